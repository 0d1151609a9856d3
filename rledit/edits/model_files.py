"""Editing a model on the disk, one file or a folder of shards, without loading it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..storage.atomic import Staged, write_error
from .aliases import Tied, check_distinct, quoted, tells_nothing
from .edit import Edit
from .keys import find_keys
from .shards import Shards, open_shards

_COPIED = {
    ".json",
    ".txt",
    ".model",
    ".jinja",
    ".tiktoken",
    ".py",
    ".md",
}  # next to the weights: never weights
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

    It takes a few megabytes of memory whatever the model's size, unless the edit is of a kind that needs
    whole matrices. Everything that is not edited is copied from file to file.
    Metadata and the order of tensors stay. An error or Ctrl-C leaves what was at `out` as it was.

    Keys with the dtype, shape and bits of a target's weight are taken for the same tensor and are edited with
    it (see :mod:`rledit.edits.aliases`).

    Args:
        edit: the edit.
        model: a safetensors file; or a folder with one, or with shards and their
            ``*.safetensors.index.json``; or that index.
        out: a file for a file. For a folder a folder, which gets all shards, the index, and the small files
            next to them (configuration, tokenizer, code), so that it can be loaded in place of the model's.
        force, cast: as for :meth:`Edit.apply_`.
        tied: whether equal bits mean the same tensor: True, always; False, never. Where nothing is said they
            do, but a target with at most two different values that another tensor has as well is refused.
        overwrite: replace what is at `out`, which may be the model itself. In a folder, files that are not
            the model's stay. Each file is replaced atomically, several are not: only a new folder is safe
            from a power failure at the very end.

    Raises:
        FileNotFoundError: no model, a missing shard, or no folder for `out`.
        FileExistsError: `out` exists (unless `overwrite`), or holds other weights as well.
        IsADirectoryError, NotADirectoryError: one is a folder and the other a file.
        ValueError, TypeError: files that are not safetensors or do not fit their index, and what
            :meth:`Edit.apply_to_state_dict` refuses.
        WriteError: the disk refuses.
    """
    source, target = Path(model), Path(out)
    with open_shards(source) as shards:
        _check_out(source, target, shards, overwrite)
        return _apply(edit, shards, target, force, cast, tied)


def _check_out(source: Path, out: Path, shards: Shards, overwrite: bool) -> None:
    """Refuse what cannot be written or must not be, before anything is computed."""
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"out: the folder {out.absolute().parent} does not exist")
    if not out.exists():
        return
    if shards.folder is None and out.is_dir():
        raise IsADirectoryError(
            f"out: {out} is a folder; the model is a file, so expected the name of a file"
        )
    if shards.folder is not None and not out.is_dir():
        raise NotADirectoryError(f"out: {out} is a file; the model is a folder, so expected a folder")
    itself = out.samefile(shards.folder or source)
    if not overwrite and (shards.folder is None or any(out.iterdir())):
        what = "is the model itself" if itself else "exists" if shards.folder is None else "is not empty"
        raise FileExistsError(f"out: {out} {what}; overwrite=True (rledit apply --overwrite) replaces it")
    if shards.folder is not None and not itself:
        own = {*shards.files, shards.index.name if shards.index else ""}
        others = [path.name for path in sorted(out.iterdir()) if _is_weights(path) and path.name not in own]
        if others:  # a loader of the folder may read those instead
            raise FileExistsError(
                f"out: {out} holds other weights as well ({quoted(others[:3])}); remove them"
            )


def _is_weights(path: Path) -> bool:
    known = (
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".h5",
        ".msgpack",
        ".gguf",
        ".onnx",
        ".index.json",
    )
    return path.name.endswith(known)


def _apply(edit: Edit, shards: Shards, out: Path, force: bool, cast: bool, tied: Tied) -> EditedFiles:
    shapes = {key: file.entries[key].shape for key, file in shards.homes.items()}
    keys = find_keys(edit.sizes, shapes, edit.fingerprint, shards.stored, "model")
    recognized = edit.check({name: shards.stored(key) for name, key in keys.items()}, force, cast=cast)
    aliases = {name: _tied_in_files(shards, key, tied) for name, key in keys.items()}
    check_distinct(keys, aliases)
    owners = {key: name for name in keys for key in (keys[name], *aliases[name])}

    def changed(key: str) -> Iterator[Tensor] | None:
        name = owners.get(key)
        if name is None:
            return None
        return edit.edited_rows(name, shards.stored(key), warn=recognized and key == keys[name])

    touched = [name for name, file in shards.files.items() if not owners.keys().isdisjoint(file.entries)]
    with Staged() as staged:
        if shards.folder is None:
            shards.files[touched[0]].rewrite(out, changed, staged)
            staged.commit()
            return EditedFiles(keys, aliases, [out])
        made = _make_folder(out)
        try:
            in_place = out.samefile(shards.folder)
            for name in shards.files:
                if name in touched:
                    shards.files[name].rewrite(out / name, changed, staged)
                elif not in_place:
                    _copy(shards.folder / name, out / name, staged)
            if not in_place:
                _stage_the_rest(shards.folder, shards.index, out, staged)
            staged.commit()
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    staged.close()
                    out.rmdir()
            raise
    return EditedFiles(keys, aliases, [out / name for name in touched])


def _tied_in_files(shards: Shards, key: str, tied: Tied) -> list[str]:
    """The other keys that are edited with `key`."""
    if tied is False:
        return []
    file = shards.homes[key]
    entry = file.entries[key]
    equal = [
        other
        for other, home in shards.homes.items()
        if other != key
        and (home.entries[other].code, home.entries[other].shape) == (entry.code, entry.shape)
        and all(a == b for a, b in zip(file.chunks(key), home.chunks(other), strict=True))
    ]
    if equal and tied is None and tells_nothing(file.stored(key).flat_parts()):
        raise ValueError(
            f"{quoted(equal)} and {key!r} have the same values, but at most two different ones, which may be "
            "chance, so they may or may not be one tensor of the model: tied=True (rledit apply --tied yes) "
            "edits all of them, tied=False (--tied no) leaves the others"
        )
    return equal


def _make_folder(out: Path) -> bool:
    """Make the folder; whether it was not there before."""
    try:
        out.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise write_error(out, error) from error
    return True


def _stage_the_rest(folder: Path, index: Path | None, out: Path, staged: Staged) -> None:
    """Copy what a loader needs besides the weights; the index last, since no shards load without it."""
    for path in sorted(folder.iterdir()):
        if path.suffix in _COPIED and path.is_file() and path != index and not _is_weights(path):
            _copy(path, out / path.name, staged)
    if index:
        (out / index.name).unlink(missing_ok=True)
        _copy(index, out / index.name, staged)


def _copy(source: Path, target: Path, staged: Staged) -> None:
    # Not a hard link: programs that save a model in place would change the original as well.
    with open(source, "rb") as old, staged.open(target) as new:
        shutil.copyfileobj(old, new, _CHUNK)
