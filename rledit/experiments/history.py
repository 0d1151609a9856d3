"""One row of numbers per update: in memory, in history.csv, in TensorBoard if asked."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage.files import write_error, write_text


class History:
    """Rows of floats with fixed columns.

    Nothing is written before the first `append` or `rewrite`, so that a resumed run can load its checkpoint
    first; from then on history.csv holds exactly the rows in memory.

    Args:
        columns: names, unique, such as update, candidates (so far), reward_mean, reward_best,
            forget_accuracy, retain_accuracy, candidates_per_second. Units belong into the name.
        path: history.csv, or None to keep the rows in memory only.
        tensorboard: folder for a TensorBoard mirror, or None. The step is the row's `update`, if there is
            one.
        rows: what a resumed run has already; not mirrored again. Call `rewrite` to bring the CSV in line.

    Raises:
        ValueError: no columns, or one twice.
        ImportError: `tensorboard` is given and the package is missing.
    """

    def __init__(
        self,
        columns: Sequence[str],
        path: str | os.PathLike[str] | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
        rows: Iterable[Mapping[str, float]] = (),
    ) -> None:
        if not columns or len(set(columns)) != len(columns):
            raise ValueError(f"columns: expected unique names, got {list(columns)}")
        self.columns = list(columns)
        self.rows: list[list[float]] = [[float(row[name]) for name in self.columns] for row in rows]
        self._path = None if path is None else Path(path)
        self._started = False
        self._board_folder = tensorboard
        self._board: Any = None
        if tensorboard is not None:
            _summary_writer()  # a missing package should end the run now, not after its first update

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[float]:
        """The values of one column, oldest first. Raises ValueError for an unknown name."""
        if name not in self.columns:
            raise ValueError(f"name: expected one of {self.columns}, got {name!r}")
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def append(self, row: Mapping[str, float]) -> None:
        """Adds a row and writes it at once.

        Args:
            row: a number for every column and no other; NaN is allowed (unknown).

        Raises:
            ValueError: columns are missing or unknown.
            OSError: the disk refuses; the rows before this one are intact, in memory and in the file.
        """
        if set(row) != set(self.columns):
            missing, unknown = sorted({*self.columns} - {*row}), sorted({*row} - {*self.columns})
            raise ValueError(
                f"row: expected the columns of the history; missing {missing}, unknown {unknown}"
            )
        self.rows.append([float(row[name]) for name in self.columns])
        try:
            if not self._started:
                self.rewrite()
            elif self._path is not None:
                _append_text(self._path, _csv(self.rows[-1:]))
        except BaseException:
            self.rows.pop()
            raise
        self._mirror(row)

    def rewrite(self, path: str | os.PathLike[str] | None = None) -> None:
        """Writes all rows to `path` (default: the history's own), atomically. Raises OSError as
        `write_text`.
        """
        target = self._path if path is None else path
        if target is not None:
            write_text(target, _csv([self.columns]) + _csv(self.rows))
        if path is None:
            self._started = True

    def close(self) -> None:
        """Closes the TensorBoard mirror, if there is one."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _mirror(self, row: Mapping[str, float]) -> None:
        if self._board_folder is None:
            return
        step = int(row.get("update", len(self.rows) - 1))
        if self._board is None:
            # purge_step: after a resume the events that the checkpoint does not know of are hidden
            self._board = _summary_writer()(os.fspath(self._board_folder), purge_step=step)
        for name, value in row.items():
            if name != "update":
                self._board.add_scalar(name, value, step)
        self._board.flush()


def read_history(path: str | os.PathLike[str]) -> History:
    """The rows of a history.csv, in memory only.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not a table of numbers.
    """
    with open(path, encoding="utf-8", newline="") as file:
        try:
            columns, *rows = csv.reader(file)
            return History(columns, rows=[dict(zip(columns, map(float, row), strict=True)) for row in rows])
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{os.fspath(path)}: expected a table of numbers ({error})") from error


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError('tensorboard is missing: pip install "rledit[tensorboard]"') from error
    return SummaryWriter


def _csv(rows: Sequence[Sequence[str | float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_short(cell) for cell in row])
    return text.getvalue()


def _short(cell: str | float) -> str:
    # repr is exact; counts read better without ".0"
    return repr(cell)[:-2] if isinstance(cell, float) and repr(cell).endswith(".0") else str(cell)


def _append_text(path: Path, text: str) -> None:
    """Adds whole lines; where the disk is full, none of them."""
    try:
        with open(path, "ab", buffering=0) as file:
            size = file.tell()
            data = text.encode("utf-8")
            try:
                if (written := file.write(data)) != len(data):
                    raise OSError(None, f"only {written} of {len(data)} bytes fit")
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to report
                    file.truncate(size)
                raise
    except OSError as error:
        raise write_error(path, error) from error
