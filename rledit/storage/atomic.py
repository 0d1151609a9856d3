"""Files that are either the old version or the new one.

Every file of rledit is written here: into a temporary file in the same folder, flushed to the disk, then
renamed over the old version. Readers therefore always see a whole file, whether the writer was killed or the
disk was full.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

TEMPORARY_SUFFIX = ".rledit-tmp"
"""Ends the name of every temporary file; only a killed process leaves one behind."""


class WriteError(OSError):
    """A file could not be written; the version that was there before is intact. `errno` and `filename` are
    set.
    """


class Staged:
    """Files that are written under temporary names and get their own names together, in :meth:`commit`.

    A context manager: whatever is not committed when it ends, by an error or Ctrl-C, is removed, and the
    previous versions stay as they were. Each rename is atomic; a sequence of them is not.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, Path, Path]] = []  # the name that was asked for, temporary, target

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes whatever is not committed."""
        for _, temporary, _ in self._pending:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        self._pending.clear()

    @contextlib.contextmanager
    def open(self, path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
        """The file that will become `path`, for writing; on the disk when the block ends.

        A symbolic link is followed, as the built-in `open` would. The folder must exist.

        Raises:
            WriteError: full disk, missing folder, no permission.
        """
        target = Path(os.path.realpath(path))
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        self._pending.append((os.fspath(path), temporary, target))
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if isinstance(error, WriteError) or (error.filename not in (None, str(temporary))):
                raise  # another file's: one that was being read inside the block
            raise write_error(path, error) from error

    def commit(self) -> None:
        """Gives every file its name, in the order in which they were opened.

        Raises:
            WriteError: a folder has that name, no permission.
        """
        while self._pending:
            name, temporary, target = self._pending[0]
            try:
                os.replace(temporary, target)
            except OSError as error:
                raise write_error(name, error) from error
            del self._pending[0]
            _sync_folder(target.parent)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file for writing that replaces `path` when the block ends without an error. See :class:`Staged`."""
    with Staged() as staged:
        with staged.open(path) as file:
            yield file
        staged.commit()


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replaces the file `path` by `data`, atomically.

    A symbolic link is followed, as `open` would. The folder must exist.

    Raises:
        WriteError: (an OSError) full disk, missing folder, no permission, a folder of that name. The previous
            version of the file is intact and no temporary file is left.
    """
    with replacing(path) as file:
        file.write(data)


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
