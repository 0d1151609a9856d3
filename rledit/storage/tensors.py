"""Tensors in safetensors files: read and written one at a time, without pickle.

The format (https://huggingface.co/docs/safetensors): eight bytes with the length of a JSON header as a
little-endian integer, the header with dtype, shape and byte offsets of each tensor, then their bytes without
gaps. Files are written here rather than by the safetensors package because that needs all of them in memory
at once, more than once; when reading, the package checks the header.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO

import safetensors
import torch
from torch import Tensor

from .atomic import Staged, replacing

_LENGTH_BYTES = 8
_CHUNK = 1 << 22  # bytes that are copied or compared at a time

_NAMES = (
    ("bool", "BOOL"),
    ("uint8", "U8"),
    ("int8", "I8"),
    ("float8_e5m2", "F8_E5M2"),
    ("float8_e4m3fn", "F8_E4M3"),
    ("float8_e8m0fnu", "F8_E8M0"),
    ("int16", "I16"),
    ("uint16", "U16"),
    ("float16", "F16"),
    ("bfloat16", "BF16"),
    ("int32", "I32"),
    ("uint32", "U32"),
    ("float32", "F32"),
    ("complex64", "C64"),
    ("float64", "F64"),
    ("int64", "I64"),
    ("uint64", "U64"),
)  # by size, the order of tensors in a file being that of the safetensors package: the largest first
_DTYPES: dict[str, torch.dtype] = {
    name: torch.__dict__[ours] for ours, name in _NAMES if ours in torch.__dict__
}  # versions of torch know more or fewer
_CODES = {dtype: name for name, dtype in _DTYPES.items()}
_RANKS = {name: rank for rank, (_, name) in enumerate(_NAMES)}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file.

    Attributes:
        code: safetensors' name of the dtype, such as ``"BF16"``.
        shape: shape of the tensor.
        begin, end: where its bytes begin and end, counted from the start of the tensors.
    """

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """The tensor's size in bytes."""
        return self.end - self.begin

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype; None for one that this version of torch does not have."""
        return _DTYPES.get(self.code)


class StoredTensor:
    """A tensor in a file, of which a part is in memory when asked for. See :meth:`TensorFile.stored`.

    Attributes:
        shape, dtype: as a tensor's.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, fill: Callable[[Tensor, int], None]
    ) -> None:
        """``fill``: reads a contiguous tensor from an offset in bytes."""
        self.shape, self.dtype, self._fill = shape, dtype, fill

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Some successive rows, read into memory."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows: expected successive ones")
        part = torch.empty((max(0, stop - start), *self.shape[1:]), dtype=self.dtype, device="cpu")
        self._fill(part, start * _bytes_of(self.dtype, self.shape[1:]))
        return part

    def flat_parts(self) -> Iterator[Tensor]:
        """All values in order, as tensors [n] of a few megabytes."""
        size, values = self.dtype.itemsize, math.prod(self.shape)
        for begin in range(0, values, _CHUNK // size):
            part = torch.empty(min(_CHUNK // size, values - begin), dtype=self.dtype, device="cpu")
            self._fill(part, begin * size)
            yield part


class TensorFile:
    """An open safetensors file whose header is sound; tensors are read when asked for. A context manager.

    The file stays open, so that what is read belongs together even if another file takes its name.

    Attributes:
        name: the path.
        entries: entries of its tensors, in the order in which they lie in the file.
        metadata: the texts of its ``__metadata__``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupt or not safetensors; says so when it looks like a pickle.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._file = open(self.name, "rb")  # noqa: SIM115 - closed by close()
        try:
            self._parse()
        except MemoryError:
            self._file.close()
            raise
        except Exception as error:  # SafetensorError, or KeyError, ValueError, OverflowError ... by version
            self._file.seek(0)
            reason = _diagnose(self._file.read(_LENGTH_BYTES), error)
            self._file.close()
            raise ValueError(f"{self.name} is not a readable safetensors file: {reason}") from error

    def _parse(self) -> None:
        with safetensors.safe_open(self.name, framework="pt"):
            pass  # the header and the file's size are checked
        size = int.from_bytes(self._file.read(_LENGTH_BYTES), "little")
        header: dict[str, Any] = json.loads(self._file.read(size))
        self._start = _LENGTH_BYTES + size
        metadata = header.pop("__metadata__", None) or {}
        self.metadata = {str(key): str(text) for key, text in metadata.items()}
        found = [
            (name, Entry(str(it["dtype"]), tuple(map(int, it["shape"])), *map(int, it["data_offsets"])))
            for name, it in header.items()
        ]
        self.entries = dict(sorted(found, key=lambda item: (item[1].begin, item[1].end, item[0])))
        end = 0
        for name, entry in self.entries.items():
            if entry.begin != end or (entry.dtype and entry.size != _bytes_of(entry.dtype, entry.shape)):
                raise ValueError(f"the bytes of {name!r} do not fit its shape")
            end = entry.end
        if os.fstat(self._file.fileno()).st_size != self._start + end:
            raise ValueError("its size is not what its header says")

    def read(self, name: str) -> Tensor:
        """A tensor, in memory of its own.

        Raises:
            TypeError: a dtype that this version of torch does not have.
            OSError, ValueError: the disk refuses, or the file has changed since it was opened.
        """
        entry = self.entries[name]
        if entry.dtype is None:
            raise TypeError(f"{self.name}: tensor {name!r} has a dtype unknown to this torch: {entry.code}")
        tensor = torch.empty(entry.shape, dtype=entry.dtype, device="cpu")
        self._fill(tensor, entry.begin)
        return tensor

    def stored(self, name: str) -> StoredTensor:
        """A tensor that stays in the file.

        Raises:
            TypeError: as `read`.
        """
        entry = self.entries[name]
        if entry.dtype is None:
            raise TypeError(f"{self.name}: tensor {name!r} has a dtype unknown to this torch: {entry.code}")
        return StoredTensor(entry.shape, entry.dtype, lambda tensor, at: self._fill(tensor, entry.begin + at))

    def _fill(self, tensor: Tensor, begin: int) -> None:
        self._file.seek(self._start + begin)
        if tensor.numel() and self._file.readinto(_buffer(tensor)) != tensor.nbytes:
            raise ValueError(f"{self.name} was truncated while it was read")

    def chunks(self, name: str) -> Iterator[bytes]:
        """The tensor's bytes, a few megabytes at a time."""
        entry = self.entries[name]
        for begin in range(entry.begin, entry.end, _CHUNK):
            size = min(_CHUNK, entry.end - begin)
            self._file.seek(self._start + begin)
            data = self._file.read(size)
            if len(data) != size:
                raise ValueError(f"{self.name} was truncated while it was read")
            yield data

    def rewrite(
        self, path: str | os.PathLike[str], changed: Callable[[str], Iterable[Tensor] | None], staged: Staged
    ) -> None:
        """Writes this file with other values for some of its tensors; nothing but those is in memory.

        Args:
            path: the new file, which appears when `staged` is committed; may be that of this one.
            changed: from a tensor's name to its new values, of the same dtype and in the order of memory, in
                as many pieces as is convenient; or None to keep those it has.
        """
        with staged.open(path) as file:
            file.write(_header(self.entries, self.metadata))
            for name, entry in self.entries.items():
                pieces = changed(name)
                if pieces is None:
                    for data in self.chunks(name):
                        file.write(data)
                    continue
                begin = file.tell()
                for piece in pieces:
                    if piece.dtype != entry.dtype:
                        raise ValueError(f"tensor {name!r}: expected {entry.dtype}, got {piece.dtype}")
                    _write_tensor(file, piece)
                if file.tell() - begin != entry.size:
                    raise ValueError(f"tensor {name!r}: expected as many values as before")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file: its tensors (on the CPU, sorted by name) and its metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, corrupt or not safetensors; it says so when it looks like a pickle.
        TypeError: a dtype that this version of torch does not have.
    """
    with TensorFile(path) as file:
        return {name: file.read(name) for name in sorted(file.entries)}, file.metadata


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as one safetensors file, atomically; at most one of them is copied at a time.

    Equal tensors and metadata give equal bytes.

    Args:
        tensors: may have any device, strides and dtype that safetensors knows; they may share memory.
        metadata: text by name.

    Raises:
        TypeError: a value that is not a dense tensor, or metadata that is not text.
        WriteError: as `write_bytes`.
    """
    for name, tensor in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise TypeError(f"tensors: expected names of text other than '__metadata__', got {name!r}")
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(f"tensor {name!r}: expected a dense tensor, got {type(tensor).__name__}")
        if tensor.is_meta:
            raise TypeError(f"tensor {name!r}: expected values, got a tensor on the meta device")
        if tensor.dtype not in _CODES:
            raise TypeError(f"tensor {name!r}: safetensors cannot hold {tensor.dtype}")
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"metadata {key!r}: expected text, got {type(text).__name__}")
    order = sorted(tensors, key=lambda name: (-_RANKS[_CODES[tensors[name].dtype]], name))
    entries: dict[str, Entry] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + _bytes_of(tensor.dtype, tuple(tensor.shape))
        entries[name] = Entry(_CODES[tensor.dtype], tuple(tensor.shape), begin, end)
    with replacing(path) as file:
        file.write(_header(entries, metadata or {}))
        for name in order:
            _write_tensor(file, tensors[name])


def _bytes_of(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON, with sorted metadata: equal runs must end in equal files."""
    header: dict[str, object] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    for name, entry in entries.items():
        offsets = [entry.begin, entry.end]
        header[name] = {"dtype": entry.code, "shape": list(entry.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the format aligns the tensors to 8 bytes
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _write_tensor(file: BinaryIO, tensor: Tensor) -> None:
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if dense.numel():
        file.write(_buffer(dense))


def _buffer(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor; NumPy has no bfloat16, so through uint8."""
    data: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return data


def _diagnose(start: bytes, error: Exception) -> str:
    if not start:
        return "it is empty"
    # torch.save writes a zip archive, older versions and pickle.dump a stream that starts with protocol 2 to
    # 5.
    if start.startswith(b"PK\x03\x04") or (start[0] == 0x80 and len(start) > 1 and 2 <= start[1] <= 5):
        return "it looks like a pickle (torch.save). rledit never reads pickles; convert with safetensors"
    return f"it is truncated or corrupt ({type(error).__name__}: {error})"
