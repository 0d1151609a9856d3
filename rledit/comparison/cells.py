"""The folder of a comparison: one file for each cell, so that what is finished stays whatever happens."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from ..experiments.folder import RunBusyError
from ..storage.files import Json, write_error, write_json

logger = logging.getLogger("rledit")

CONFIG, CELLS, LOCK = "comparison.json", "cells", ".lock"

UNEDITED = "unedited"
"""The row of the network before anything is forgotten."""

VERSION = "rledit"
"""What the entries of a cell begin with that say which rledit has measured it: its version, code and compiled
parts, see :func:`rledit.experiments.record.own_version`."""


@dataclass(frozen=True, order=True)
class Cell:
    """One method on one task from one seed."""

    task: str
    method: str
    seed: int

    @property
    def file(self) -> str:
        """Name of the cell's file in the folder."""
        return re.sub(r"[^\w.-]+", "_", f"{self.task}--{self.method}--{self.seed}") + ".json"

    def __str__(self) -> str:
        return f"{self.method} on {self.task}, seed {self.seed}"


class Cells:
    """The cells of a comparison in a folder, locked for this process until :meth:`close`.

    Args:
        path: the folder; created with its parents. It must be new, empty, or that of the same comparison.
        config: everything that the figures of a cell depend on apart from task, method and seed.

    Raises:
        FileExistsError: for a folder with anything else in it.
        ValueError: for that of another comparison (what differs is listed).
        RunBusyError: while another process writes there.
        OSError: if the disk refuses.
    """

    def __init__(self, path: Path, config: Mapping[str, Json]) -> None:
        self.path = path.absolute()
        asked = json.loads(json.dumps(dict(config)))
        self._check(asked)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._lock = FileLock(self.path / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RunBusyError(f"{self.path}: another process is comparing there") from error
        try:
            self._check(asked)
            write_json(self.path / CONFIG, asked)
            (self.path / CELLS).mkdir(exist_ok=True)
        except BaseException:
            self._lock.release()
            raise

    def _check(self, config: dict[str, Any]) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file; expected a folder")
        found = {item.name for item in self.path.iterdir()} - {LOCK} if self.path.exists() else set()
        if not found:
            return
        try:
            theirs = json.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            theirs = None
        if not isinstance(theirs, dict):
            raise FileExistsError(
                f"the folder {self.path} exists, is not empty and holds no comparison of rledit "
                f"(it has {', '.join(sorted(found)[:3])})"
            )
        differing = [
            f"{key} is {theirs.get(key)!r} there and {config.get(key)!r} here"
            for key in dict.fromkeys([*config, *theirs])
            if theirs.get(key) != config.get(key)
        ]
        if differing:
            raise ValueError(
                f"{self.path} holds another comparison: {'; '.join(differing)}. Give another folder; methods "
                "and seeds alone may be added"
            )

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The row of a finished cell; None for one that is still to be measured, or whose file is damaged."""
        path = self.path / CELLS / cell.file
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            row = None
        if not isinstance(row, dict) or (row.get("task"), row.get("method"), row.get("seed")) != (
            cell.task, cell.method, cell.seed,
        ):  # fmt: skip
            logger.warning("%s cannot be read; its cell is measured again.", path)
            return None
        return row

    def write(self, cell: Cell, row: Mapping[str, Json]) -> None:
        """Raises WriteError where the disk refuses."""
        head = {"task": cell.task, "method": cell.method, "seed": cell.seed}
        write_json(self.path / CELLS / cell.file, {**head, **row})

    def rows(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """The rows of those cells that are finished, in the given order."""
        return [row for cell in cells if (row := self.read(cell)) is not None]

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Cells:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
