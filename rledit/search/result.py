"""What a search gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..edits import Edit

Row = dict[str, float]
"""Figures of one update, by name."""

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Selection:
    """The chosen edit of one task.

    Attributes:
        edit: its ``metrics`` hold those of the validation split before and after, and the origin.
        origin: the name of a proposal, "elite k", either of them "shrunk to x", or "no edit".
        choices: validation metrics of everything that was compared, and "value" and "admissible" (1 or 0).
    """

    edit: Edit
    origin: str
    choices: list[dict[str, float]]


@dataclass
class Result:
    """What a search gave.

    Attributes:
        edit: the best edit on the validation split.
        origin, choices: see :class:`Selection`.
        history: one row of figures per update.
        candidates: how many were scored for the reward.
        seconds: "score": waiting for the engine; "policy": everything else, some of which may have run
            during scoring.
        stopped: why the search ended before its budget, or "".
        selections: selections of every task, the first being the one above; more than one if several were
            searched.
    """

    edit: Edit
    origin: str
    choices: list[dict[str, float]] = field(repr=False)
    history: list[Row] = field(repr=False)
    candidates: int
    seconds: dict[str, float] = field(default_factory=dict)
    stopped: str = ""
    selections: list[Selection] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        lines = [f"Result({self.edit!r}", f"origin: {self.origin}"]
        validation = self.edit.metrics.get("validation")
        if isinstance(validation, dict):
            before, after = validation["before"], validation["after"]
            changes = [f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before]
            lines.append("validation: " + ", ".join(changes))
        lines.append(f"{self.candidates:,} candidates in {sum(self.seconds.values()):.1f} s")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        return "\n  ".join(lines) + ")"
