"""What every run says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console


def close(metrics: Mapping[str, Any], out: Path, console: Console) -> None:
    """Costs, origin of the edit and where the report is. KeyboardInterrupt for an interrupted run."""
    seconds = metrics["seconds"]
    console.print(
        f"{metrics['candidates']:,} candidates in {seconds['edit']:.1f} s "
        f"({seconds['score']:.1f} s scoring); chosen on the validation split: {metrics['origin']}.",
        highlight=False,
    )
    if metrics["stopped"]:
        console.print(f"Stopped early: {metrics['stopped']}.", highlight=False)
    console.print(f"Report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    if metrics["stopped"] == "interrupted":
        raise KeyboardInterrupt
