"""Editing a model on the disk, one file or a folder of shards, without loading it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..storage.atomic import Staged, write_error
from ..storage.tensors import TensorFile
from .aliases import Tied, check_distinct, quoted, tells_nothing
from .edit import Edit
from .keys import Lookup, find_keys

INDEX_SUFFIX = ".safetensors.index.json"
"""Ends the name of the file that says which shard holds which tensor, as Hugging Face writes it."""

_COPIED = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".py", ".md"}  # beside the weights: never weights
_CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class EditedFiles:
    """What :func:`apply_to_file` did.

    Attributes:
        keys: target -> the key of its weight.
        tied: target -> further keys of the same tensor, edited as well.
        written: the files that hold edited tensors.
    """

    keys: dict[str, str]
    tied: dict[str, list[str]]
    written: list[Path]


def apply_to_file(
    edit: Edit,
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    force: bool = False,
    cast: bool = False,
    tied: Tied = None,
    overwrite: bool = False,
) -> EditedFiles:
    """Writes an edited copy of a model's safetensors file or files.

    The largest edited tensor is what it takes of memory: everything else is copied from file to file. Metadata
    and the order of tensors stay. An error or Ctrl-C leaves what was at `out` as it was.

    Keys with the dtype, shape and bits of a target's weight are taken for the same tensor and are edited with
    it (see :mod:`rledit.edits.aliases`).

    Args:
        edit: the edit.
        model: a safetensors file; or a folder with one, or with shards and their
            ``*.safetensors.index.json``; or that index.
        out: a file for a file. For a folder a folder, which gets all shards, the index, and the small files
            beside them (configuration, tokenizer, code), so that it can be loaded in place of the model's.
        force, cast: as for :meth:`Edit.apply_`.
        tied: whether equal bits mean the same tensor: True, always; False, never. Where nothing is said they
            do, but a target with at most two different values that another tensor has as well is refused.
        overwrite: replace what is at `out`, which may be the model itself. In a folder, files that are not
            of the model stay.

    Raises:
        FileNotFoundError: no model, a missing shard, or no folder for `out`.
        FileExistsError: `out` exists (unless `overwrite`), or holds other weights as well.
        IsADirectoryError, NotADirectoryError: one is a folder and the other a file.
        ValueError, TypeError: files that are not safetensors or do not fit their index, and what
            :meth:`Edit.apply_to_state_dict` refuses.
        WriteError: the disk refuses.
    """
    source, target = Path(model), Path(out)
    with _open(source) as shards:
        _check_out(source, target, shards, overwrite)
        return _apply(edit, shards, target, force, cast, tied)


@dataclass(frozen=True)
class _Shards:
    """The open files of a model.

    Attributes:
        folder: that holds them, or None where the model is one file.
        index: of the shards, if there is one.
        files: by name.
        homes: key -> its file.
    """

    folder: Path | None
    index: Path | None
    files: dict[str, TensorFile]
    homes: dict[str, TensorFile]

    def read(self, key: str) -> Tensor:
        return self.homes[key].read(key)


@contextlib.contextmanager
def _open(model: Path) -> Iterator[_Shards]:
    with contextlib.ExitStack() as stack:
        index = None
        if model.name.endswith(INDEX_SUFFIX):
            model, index = model.parent, model
        if not model.exists():
            raise FileNotFoundError(f"model: there is no file or folder {model}")
        if not model.is_dir():
            file = stack.enter_context(TensorFile(model))
            yield _Shards(None, None, {model.name: file}, dict.fromkeys(file.entries, file))
            return
        index = index or _only_index(model)
        weight_map = _read_index(index) if index else dict.fromkeys([_only_file(model)])
        names = sorted({name for name in weight_map.values() if name} or weight_map)
        files, homes = {}, {}
        for name in names:
            if not (model / name).is_file():
                raise FileNotFoundError(f"model: {index} names the file {name}, which is not in {model}")
            files[name] = stack.enter_context(TensorFile(model / name))
            for key in files[name].entries:
                if key in homes:
                    raise ValueError(f"model: both {homes[key].name} and {name} have a tensor {key!r}")
                homes[key] = files[name]
        if index:
            lost = [key for key, name in weight_map.items() if key not in files[name].entries]
            if lost:
                raise ValueError(f"model: {index} names tensors that its files do not have: {quoted(lost[:3])}")
        yield _Shards(model, index, files, homes)
