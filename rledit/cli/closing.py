"""What every run prints at its end."""

from __future__ import annotations

from ..experiments import RunResult
from ..experiments.console import Console, say


def close(result: RunResult, console: Console) -> None:
    """Print the costs, where the edit comes from and where the report is.

    Raises:
        KeyboardInterrupt: Ctrl-C has stopped the run.
        RuntimeError: there is no report.
    """
    seconds = result.seconds
    say(
        console,
        f"{result.candidates:,} candidates in {seconds['edit']:.1f} s ({seconds['score']:.1f} s scoring); "
        f"chosen on the validation split: {result.origin}.",
    )
    if result.stopped:
        say(console, f"Stopped early: {result.stopped}.")
    say(console, f"Edit: {result.folder / 'edit.safetensors'}")
    report = result.folder / "report.html"
    if report.exists():
        say(console, f"Report: {report}")
    for lacking in result.missing:
        say(console, f"Missing: {lacking}")
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    if not report.exists():
        raise RuntimeError("the report could not be written; --resume tries again, without training again")
