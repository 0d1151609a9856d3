"""The run folder: who may create it, who may write in it, and where everything lies."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from ..storage.files import TEMPORARY_SUFFIX, Json, write_error, write_json

_LOCK = ".lock"
_OWNER = ".lock-owner"  # not in the lock file itself, which some versions of filelock empty when they try it
_OUTPUTS = (
    "model.safetensors",
    "edit.safetensors",
    "history.csv",
    "report.html",
    "metrics.json",
    "checkpoint.safetensors",
    "layers.json",
    "retrained.safetensors",
    "audits.json",
    "record.json",
)
_FOLDERS = {"tensorboard": "events.out.tfevents.*", "plots": "*.png", "edited_model": "*.*"}
_VERSION_KEY = "rledit_version"  # tells our config.json from that of any other program


class RunBusyError(RuntimeError):
    """Another process is writing this run folder."""


class RunFolder:
    """A folder that holds one run, locked for this process until `close`. Also a context manager.

    Args:
        path: the folder; created with its parents. It must be new or empty, unless:
        config: what the run was asked to do, written to config.json with the version of rledit. Leave out
            what may differ on resuming, such as the path itself.
        resume: go on with the run in the folder, which must have been started with an equal config. An empty
            folder (a run killed before its first write) starts anew.
        overwrite: delete what rledit wrote there, and only that, and start anew.
        extendable: top-level keys of ``config``, all of them integers, that may be larger on resuming; the
            folder's config.json then gets the larger value.

    Attributes:
        path: pathlib.Path of the folder, absolute.
        resumed: whether there was a run to go on with.

    Raises:
        FileExistsError: the folder is not empty (and neither flag is set), or not a run folder, or is a file.
        FileNotFoundError: `resume` without such a folder.
        ValueError: `resume` with another config (lists the keys that differ), or both flags.
        RunBusyError: another process, or another RunFolder of this one, is writing there.
        OSError: the disk refuses.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Json],
        *,
        resume: bool = False,
        overwrite: bool = False,
        extendable: Collection[str] = (),
    ) -> None:
        from .. import __version__  # here, because rledit/__init__.py may import this package

        if resume and overwrite:
            raise ValueError("resume and overwrite: expected at most one of them, got both")
        if _VERSION_KEY in config:
            raise ValueError(f"config: the key {_VERSION_KEY!r} is reserved")
        self.path = Path(path).absolute()  # a chdir must not move the run
        full: dict[str, Json] = {_VERSION_KEY: __version__, **config}
        # As it will be read again: tuples become lists, int keys text. NaN is refused here, before any write.
        full = json.loads(json.dumps(full, allow_nan=False))

        self._extendable = frozenset(extendable)

        self._check(full, resume, overwrite)  # refuse before touching anything
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._lock = _Lock(self.path / _LOCK)
        try:
            self.resumed = self._check(full, resume, overwrite)  # again: nobody can change it any more
            self._remove_temporaries()
            if not self.resumed:
                if overwrite:
                    self._remove_own_files()
                write_json(self.config, full)
            elif self._read_config() != full:  # a run that is being extended
                write_json(self.config, full)
        except BaseException:
            self._lock.release()
            raise

    def _check(self, config: dict[str, Json], resume: bool, overwrite: bool) -> bool:
        """Whether the folder holds a run to resume; raises where the flags do not allow to go on."""
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file; expected a folder for the run")
        if not self.path.exists():
            if resume:
                raise FileNotFoundError(f"{self.path} does not exist, so there is no run to resume")
            return False
        found = sorted(p.name for p in self.path.iterdir() if not _is_litter(p.name))
        if not found:
            return False
        if not (resume or overwrite):
            raise FileExistsError(
                f"the folder {self.path} exists and is not empty (it has {', '.join(found[:3])}); go on with "
                "its run with --resume, or delete that run and start anew with --overwrite"
            )
        old = self._read_config()
        if old is None:
            verb = "resume" if resume else "overwrite"
            raise FileExistsError(
                f"refused to {verb} {self.path}: it is not a run folder of rledit (no config.json that "
                f"rledit wrote; it has {', '.join(found[:3])})"
            )
        grown = {key: config[key] for key in self._extendable if _larger(old.get(key), config.get(key))}
        if resume and (differing := _differences({**old, **grown}, config)):
            raise ValueError(
                f"cannot resume {self.path}: its run has another config: {'; '.join(differing)}. Use the "
                "same settings, or start anew with --overwrite"
            )
        return resume

    def _read_config(self) -> dict[str, Json] | None:
        try:
            value = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) and _VERSION_KEY in value else None

    def _remove_temporaries(self) -> None:
        for folder in (self.path, self.plots):
            if folder.is_dir() and not folder.is_symlink():
                for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
                    path.unlink(missing_ok=True)

    def _remove_own_files(self) -> None:
        for name, pattern in _FOLDERS.items():
            folder = self.path / name
            if folder.is_dir() and not folder.is_symlink():  # behind a link lies someone else's folder
                for path in filter(Path.is_file, folder.glob(pattern)):
                    path.unlink()
                with contextlib.suppress(OSError):  # not empty: it holds files of the user
                    folder.rmdir()
        for name in _OUTPUTS:  # not config.json, which is replaced next: until then this is a run folder
            (self.path / name).unlink(missing_ok=True)

    @property
    def config(self) -> Path:
        """What the run was asked to do."""
        return self.path / "config.json"

    @property
    def model(self) -> Path:
        """The model before the edit, as a state dict."""
        return self.path / "model.safetensors"

    @property
    def edit(self) -> Path:
        """The chosen edit."""
        return self.path / "edit.safetensors"

    @property
    def history(self) -> Path:
        """One row per update."""
        return self.path / "history.csv"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def metrics(self) -> Path:
        """The numbers for programs."""
        return self.path / "metrics.json"

    @property
    def checkpoint(self) -> Path:
        """What `resume` goes on from."""
        return self.path / "checkpoint.safetensors"

    @property
    def layers(self) -> Path:
        """What came of trying several sets of layers."""
        return self.path / "layers.json"

    @property
    def retrained(self) -> Path:
        """The model trained without what was to be forgotten, as a state dict."""
        return self.path / "retrained.safetensors"

    @property
    def record(self) -> Path:
        """What a stranger checks the run by; the last file to be written."""
        return self.path / "record.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard events; made by `History`."""
        return self.path / "tensorboard"

    @property
    def plots(self) -> Path:
        """Folder of the figures as PNG; made by `write_figures`."""
        return self.path / "plots"

    @property
    def edited_model(self) -> Path:
        """Folder of the edited model, where the run began with such a folder."""
        return self.path / "edited_model"

    def leave_unused(self) -> None:
        """Take back what only says that there is a run, if nothing of it has been made yet: a command that
        failed at once must not stand in the way of the corrected one."""
        if not any((self.path / name).exists() for name in (*_OUTPUTS, *_FOLDERS)):
            self.config.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the lock back. Calling it again does nothing."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Lock:
    """The folder's lock, which ends with its process, and the id of that process for others to read."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path, timeout=0, thread_local=False)
        self._owner = path.with_name(_OWNER)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise RunBusyError(f"{path.parent} is being written by {self._holder()}") from error
        except OSError as error:
            raise write_error(path, error) from error
        with contextlib.suppress(OSError):  # a full disk: the id is for people, the lock is held without it
            self._owner.write_text(f"{os.getpid()}\n")

    def _holder(self) -> str:
        try:
            owner = self._owner.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            owner = ""
        if owner == str(os.getpid()):
            return "this process already"
        return f"process {owner}" if owner.isdigit() else "another process"

    def release(self) -> None:
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._owner.unlink(missing_ok=True)
            self._lock.release()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """A run folder while nobody else writes in it; RunBusyError where somebody does."""
    lock = _Lock(path / _LOCK)
    try:
        yield
    finally:
        lock.release()


def _is_litter(name: str) -> bool:
    return name in (_LOCK, _OWNER) or (name.startswith(".") and name.endswith(TEMPORARY_SUFFIX))


def _larger(old: Json, new: Json) -> bool:
    return type(old) is int and type(new) is int and new > old


def _differences(old: Mapping[str, Json], new: Mapping[str, Json], prefix: str = "") -> list[str]:
    """Every key that differs, with both values."""
    lines = []
    for key in sorted({*old, *new}):
        a, b = old.get(key, "(absent)"), new.get(key, "(absent)")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += _differences(a, b, f"{prefix}{key}.")
        elif a != b or type(a) is not type(b):
            lines.append(f"{prefix}{key}: the folder has {a!r}, asked for {b!r}")
    return lines
