"""A model on the disk as one set of tensors: a safetensors file, or the shards of a folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..storage.tensors import StoredTensor, TensorFile
from .aliases import quoted

INDEX_SUFFIX = ".safetensors.index.json"
"""Ends the name of the file that says which shard holds which tensor, as Hugging Face writes it."""


@dataclass(frozen=True)
class Shards:
    """The open files of a model.

    Attributes:
        folder: the folder that holds them, or None where the model is one file.
        index: index of the shards, if there is one.
        files: the open files by name.
        homes: key -> its file.
    """

    folder: Path | None
    index: Path | None
    files: dict[str, TensorFile]
    homes: dict[str, TensorFile]

    def stored(self, key: str) -> StoredTensor:
        """A tensor, whichever file it is in."""
        return self.homes[key].stored(key)


@contextlib.contextmanager
def open_shards(model: Path) -> Iterator[Shards]:
    """The files of a model, while the block lasts.

    Args:
        model: a safetensors file; a folder with one, or with shards and their index; or the index.

    Raises:
        FileNotFoundError: no model, or a missing shard.
        ValueError: no safetensors, an index that does not fit its files, or several models in a folder.
    """
    index = None
    if model.name.endswith(INDEX_SUFFIX):
        model, index = model.parent, model
    if not model.exists():
        raise FileNotFoundError(f"model: there is no file or folder {model}")
    with contextlib.ExitStack() as stack:
        if not model.is_dir():
            file = stack.enter_context(TensorFile(model))
            yield Shards(None, None, {model.name: file}, dict.fromkeys(file.entries, file))
            return
        index = index or _only_index(model)
        places = _read_index(index) if index else {}
        files: dict[str, TensorFile] = {}
        homes: dict[str, TensorFile] = {}
        for name in sorted(set(places.values())) or [_only_file(model)]:
            if not (model / name).is_file():
                raise FileNotFoundError(f"model: {index} names the file {name}, which is not there")
            file = files[name] = stack.enter_context(TensorFile(model / name))
            for key in file.entries:
                if key in homes:
                    raise ValueError(f"model: both {homes[key].name} and {file.name} have a tensor {key!r}")
                homes[key] = file
        if lost := [key for key, name in places.items() if key not in files[name].entries]:
            raise ValueError(f"model: {index} names tensors that are not in its files: {quoted(lost[:3])}")
        yield Shards(model, index, files, homes)


def _only_index(folder: Path) -> Path | None:
    found = sorted(path for path in folder.iterdir() if path.name.endswith(INDEX_SUFFIX))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"model: {folder} has several indexes ({names}); give the one that is meant")
    return found[0] if found else None


def _only_file(folder: Path) -> str:
    found = sorted(path.name for path in folder.iterdir() if path.suffix == ".safetensors")
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"model: {folder} has {len(found)} safetensors files and no index (*{INDEX_SUFFIX}) to say which "
            "belong together; give one of the files"
        )
    hint = "; rledit never reads pickles, convert them with safetensors" if _pickles(folder) else ""
    raise FileNotFoundError(f"model: there is no safetensors file in {folder}{hint}")


def _pickles(folder: Path) -> bool:
    return any(path.suffix in (".bin", ".pt", ".pth", ".ckpt") for path in folder.iterdir())


def _read_index(index: Path) -> dict[str, str]:
    """Key -> the name of its file."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {str(key): str(name) for key, name in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"model: {index} is not an index of shards: {error!r}") from error
    for name in names.values():
        if name != os.path.basename(name) or not name.endswith(".safetensors"):
            raise ValueError(f"model: {index} should name safetensors files next to it, it names {name!r}")
    if not names:
        raise ValueError(f"model: {index} names no tensors")
    return names
