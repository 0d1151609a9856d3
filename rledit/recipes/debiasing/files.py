"""The sets of a run from a user's own files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...zoo.data import DEFAULT_TERMS, Comments, read_table, read_terms
from ...zoo.data.identities import extended
from .file_options import FileOptions

HELD_OUT_TEMPLATES = 0.2
"""Share of the templates that neither reward nor validation see."""

SAMPLE_SEED = 0
"""The comments of a run are the same for every seed, so that embeddings are made once."""

Terms = Mapping[str, Sequence[str]]


def read_set(
    files: Sequence[str],
    options: FileOptions,
    terms: Terms,
    data_root: str | os.PathLike[str] | None,
    with_groups: bool = True,
) -> Comments:
    """The comments of some files as one set.

    Raises:
        ValueError, OSError, MissingExtraError: see :func:`rledit.zoo.data.read_table`.
    """
    return read_table(
        [find_file(file, data_root) for file in files],
        options.columns_of(),
        terms=terms,
        with_groups=with_groups,
        sample=options.sample,
        seed=SAMPLE_SEED,
    )


def terms_of(options: FileOptions, data_root: str | os.PathLike[str] | None) -> Terms:
    """The groups and terms that are looked for.

    Raises:
        ValueError, OSError: see :func:`rledit.zoo.data.read_terms`.
    """
    if not options.terms:
        return DEFAULT_TERMS
    own = read_terms(find_file(options.terms, data_root))
    return extended(own) if options.extend_terms else own


def find_file(file: str, data_root: str | os.PathLike[str] | None) -> Path:
    """The file as it is called; else, where a folder with data is given, the one of this name in it: who
    verifies a run keeps its files elsewhere.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(file).expanduser()
    places = [path] if data_root is None else [path, Path(data_root) / path, Path(data_root) / path.name]
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"there is no file {' or '.join(dict.fromkeys(map(str, places)))}")


def some_templates(comments: Comments) -> tuple[str, ...]:
    """The names of a fifth of the templates, at least one; none where there are fewer than three."""
    names = sorted({name for name in comments.templates if name.strip()})
    if len(names) < 3:
        return ()
    count = max(1, round(HELD_OUT_TEMPLATES * len(names)))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(SAMPLE_SEED))
    return tuple(names[i] for i in sorted(order[:count].tolist()))
