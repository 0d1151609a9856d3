"""What a run gives back to the program that asked for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..edits.edit import Edit


@dataclass(frozen=True)
class Change:
    """Figures of one split before and after the edit, by metric; shares are fractions."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class RunResult(Mapping[str, Any]):
    """A finished run, or one that Ctrl-C has stopped.

    Version 0.1 returned the content of metrics.json instead: items of it can still be read from here, with a
    DeprecationWarning.

    Attributes:
        folder: the run folder, absolute.
        edit: the chosen edit, as saved in the folder.
        test, validation: figures before and after the edit. The test split played no part in choosing it.
        candidates: how many were scored.
        origin: where the edit comes from, see :class:`rledit.Result`.
        stopped: why training ended before its budget, or "".
        seconds: times by part of the run, as in metrics.json.
        baselines: figures of what the edit is compared with, by name.
        metrics: what metrics.json holds, all of the above and what is specific to the recipe.
        missing: what could not be made although training and evaluation went well, and why, such as a figure
            or the report; empty for a run that lacks nothing.
    """

    folder: Path
    edit: Edit
    test: Change
    validation: Change
    candidates: int
    origin: str
    stopped: str
    seconds: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Any]
    missing: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        ended = f", stopped: {self.stopped}" if self.stopped else ""
        return (
            f"RunResult({str(self.folder)!r}: {self.edit!r}, {self.candidates:,} candidates, chosen: "
            f"{self.origin}{ended})"
        )

    def __getitem__(self, key: str) -> Any:
        warnings.warn(
            f"items of a run's result are deprecated, use its attributes or .metrics[{key!r}]",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.metrics[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)
