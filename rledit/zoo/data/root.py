"""Where data lives, and how a missing file gets there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...extras import require
from ...storage.cache import user_cache

VARIABLE = "RLEDIT_DATA"


def resolve_root(data_root: str | os.PathLike[str] | None = None) -> Path:
    """The folder that data sets are read from and downloaded to.

    In this order: ``data_root`` if given, the environment variable ``RLEDIT_DATA`` if set and not empty,
    the user's cache folder (the same as ``pooch.os_cache("rledit")``, on Linux ``~/.cache/rledit``).

    Args:
        data_root: a folder, ``~`` allowed; it need not exist yet.

    Raises:
        NotADirectoryError: the chosen path exists and is not a folder; the message says who chose it.
    """
    if data_root is not None:
        chosen, chooser = Path(data_root), "data_root"
    elif os.environ.get(VARIABLE):
        chosen, chooser = Path(os.environ[VARIABLE]), f"environment variable {VARIABLE}"
    else:
        chosen, chooser = user_cache(), "the user's cache folder"
    chosen = chosen.expanduser().absolute()
    if chosen.exists() and not chosen.is_dir():
        raise NotADirectoryError(f"{chooser}: expected a folder, got the file {chosen}")
    return chosen


def first_existing(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first file among ``folders`` x ``names``, folders in the outer loop, or None."""
    names = tuple(names)
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def place(folder: Path) -> str:
    """A folder for a message, with the first part of its path that is not there: it may be mistyped."""
    absent = _absent(folder)
    return f"{folder} (there is no folder {absent[-1]})" if absent else str(folder)


def missing(dataset: str, files: Iterable[str], folder: Path) -> FileNotFoundError:
    """The error for data that is not there and may not be downloaded (``download=False``)."""
    return FileNotFoundError(
        f"{dataset}: {', '.join(files)} not found in {place(folder)}. Put it there, or point data_root "
        f"(or {VARIABLE}) at the folder that has it, or allow the download with download=True."
    )


def fetch(url: str, md5: str, folder: Path) -> Path:
    """Download ``url`` into ``folder`` under its own name and return its path.

    The file appears under that name only once it is complete and its checksum is right: pooch writes
    to a temporary file in the same folder first and removes that when anything goes wrong.

    Args:
        url: http(s) address of one file.
        md5: its checksum, 32 hexadecimal digits. It guards against damaged and outdated files; it is the
            publishers' own checksum, hence MD5.
        folder: created if need be, and removed again if nothing gets there.

    Raises:
        MissingExtraError: the package pooch is not installed.
        ConnectionError: the server could not be reached or refused; the message says where to put the
            file by hand, and what of the folder's path does not exist.
        ValueError: what came has another checksum.
        OSError: the file could not be written, e.g. no permission or no space left.
    """
    pooch = require("pooch", "data", "a download")
    name = url.rsplit("/", 1)[1]
    looked_in = place(folder)
    try:
        with _removed_if_unused(folder):
            return Path(pooch.retrieve(url, known_hash=f"md5:{md5}", fname=name, path=folder))
    except ValueError as error:
        raise ValueError(
            f"{url}: the download is damaged or no longer the expected file (MD5 {md5}); nothing was kept. "
            f"Try again, or put {name} into {folder} yourself. ({error})"
        ) from error
    except OSError as error:
        # requests reports network failures as OSError too, but without an errno; with one it is the disk.
        if error.errno is not None:
            raise
        raise ConnectionError(
            f"{name} was not found in {looked_in} and could not be downloaded. Without a network, get {url} "
            f"elsewhere and put it into {folder}, or point data_root (or {VARIABLE}) at the folder that has "
            f"it. ({error})"
        ) from error


@contextmanager
def _removed_if_unused(folder: Path) -> Iterator[None]:
    """What is new of a folder's path and empty after an error is removed: a path that was mistyped is not to
    stay behind as folders."""
    absent = _absent(folder)
    try:
        yield
    except BaseException:
        for new in absent:
            with suppress(OSError):  # never made, or somebody has put something there
                new.rmdir()
        raise


def _absent(folder: Path) -> list[Path]:
    """What of a path does not exist, from the folder itself upwards."""
    return [path for path in (folder, *folder.parents) if not path.exists()]
