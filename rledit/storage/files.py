"""Files that are either the old version or the new one, and tensors without pickle.

Every file of rledit is written here: into a temporary file of the same folder, flushed to the disk, then
renamed over the old version. A reader, a killed process and a full disk therefore see a whole file, always.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import safetensors.torch
import torch
from torch import Tensor

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""What a JSON file can hold; floats must be finite."""

TEMPORARY_SUFFIX = ".rledit-tmp"
"""Ends the name of every temporary file; only a killed process leaves one behind."""

_HEADER_BYTES = 8  # safetensors: the length of the JSON header as a little-endian 64-bit integer


class WriteError(OSError):
    """A file could not be written; the version that was there before is intact. `errno` and `filename` are
    set.
    """


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replaces the file `path` by `data`, atomically.

    A symbolic link is followed, as `open` would. The folder must exist.

    Raises:
        WriteError: (an OSError) full disk, missing folder, no permission, a folder of that name. The previous
            version of the file is intact and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:  # KeyboardInterrupt too: Ctrl-C must not leave litter
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise write_error(path, error) from error
    _sync_folder(target.parent)


def write_error(path: str | os.PathLike[str], error: OSError) -> WriteError:
    """The WriteError that tells the user what `error` means for the file `path`."""
    name = os.fspath(path)
    if not os.path.isdir(os.path.dirname(os.path.realpath(name))):
        fate = "its folder does not exist"
    elif os.path.isdir(name):
        fate = "a folder has that name"
    elif os.path.exists(name):
        fate = "the previous version of the file is intact"
    else:
        fate = "nothing was written"
    return WriteError(error.errno, f"cannot write: {error.strerror or error}; {fate}", name)


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself durable. Some file systems refuse to sync a folder; the new file is whole either
    # way.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces the file `path` by `text` in UTF-8, atomically. Raises WriteError as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Json) -> None:
    """Replaces the file `path` by `value`, indented, keys in the order given, atomically.

    Equal values give equal bytes.

    Raises:
        ValueError: NaN or an infinity, which JSON cannot express.
        TypeError: something that is not JSON.
        WriteError: as `write_bytes`.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    except (ValueError, TypeError) as error:
        raise type(error)(f"cannot write {os.fspath(path)} as JSON: {error}") from error
    write_text(path, text + "\n")


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes `tensors` (any device, strides and dtype that safetensors knows) as one safetensors file,
    atomically.

    Equal tensors and metadata give equal bytes.

    Raises:
        TypeError: a value that is not a dense tensor, or metadata that is not text.
        WriteError: as `write_bytes`.
    """
    dense: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(f"tensor {name!r}: expected a dense tensor, got {type(tensor).__name__}")
        # clone: safetensors refuses tensors that share memory
        dense[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    for key, text in (metadata or {}).items():
        if not isinstance(text, str):
            raise TypeError(f"metadata {key!r}: expected text, got {type(text).__name__}")
    try:
        data = safetensors.torch.save(dense, metadata=dict(metadata) if metadata else None)
    except (KeyError, ValueError) as error:
        dtypes = sorted({str(tensor.dtype) for tensor in dense.values()})
        raise TypeError(f"safetensors cannot hold these tensors ({', '.join(dtypes)}): {error}") from error
    write_bytes(path, _sorted_header(data))


def _sorted_header(data: bytes) -> bytes:
    # safetensors keeps metadata in a hash map with a random order; runs that are equal should end in equal
    # files.
    size = int.from_bytes(data[:_HEADER_BYTES], "little")
    header = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the format aligns the tensors to 8 bytes
    return len(text).to_bytes(_HEADER_BYTES, "little") + text + data[_HEADER_BYTES + size :]


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file: its tensors (on the CPU, sorted by name) and its metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupt or not safetensors; it says so when it looks like a pickle.
    """
    name = os.fspath(path)
    with open(name, "rb") as file:
        data = file.read()
    try:
        tensors = safetensors.torch.load(data)
        size = int.from_bytes(data[:_HEADER_BYTES], "little")
        metadata = json.loads(data[_HEADER_BYTES : _HEADER_BYTES + size]).get("__metadata__") or {}
    except MemoryError:
        raise
    except Exception as error:  # SafetensorError, or KeyError, ValueError, OverflowError ... by version
        raise ValueError(f"{name} is not a readable safetensors file: {_diagnose(data, error)}") from error
    return dict(sorted(tensors.items())), {str(key): str(text) for key, text in metadata.items()}


def _diagnose(data: bytes, error: Exception) -> str:
    if not data:
        return "it is empty"
    # torch.save writes a zip archive, older versions and pickle.dump a stream that starts with protocol 2 to
    # 5.
    if data.startswith(b"PK\x03\x04") or (data[0] == 0x80 and len(data) > 1 and 2 <= data[1] <= 5):
        return "it looks like a pickle (torch.save). rledit never reads pickles; convert with safetensors"
    return f"it is truncated or corrupt ({type(error).__name__}: {error})"
