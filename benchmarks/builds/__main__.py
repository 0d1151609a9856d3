"""See :mod:`benchmarks.builds`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

import rledit

from ..record import write
from .worker import WORK

COMMAND = "python -m benchmarks.builds --before FOLDER"


class Build:
    """A process with one build, which answers how long a call takes."""

    def __init__(self, folder: Path) -> None:
        worker = Path(__file__).with_name("worker.py")
        self.process = subprocess.Popen(
            [sys.executable, str(worker)],
            env={**os.environ, "PYTHONPATH": str(folder)},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, work: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the build has failed at {work!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def main(
    before: Path, after: Path = Path(rledit.__file__).parents[1], turns: int = 9, only: str = ""
) -> None:
    """Time two builds turn by turn.

    Args:
        before: folder of the other build's rledit.
        after: folder of this build's.
        turns: how often each piece of work is timed; the ratio is the median over turns.
        only: pieces of work with this in their names.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=before, capture_output=True, text=True
    ).stdout.strip()
    table = Table(title="Two builds, turn by turn")
    for header in ("work", "before, ms", "after, ms", "before / after", "same result"):
        table.add_column(header, justify="left" if header == "work" else "right")
    builds = {"before": Build(before), "after": Build(after)}
    rows = []
    try:
        for work in (name for name in WORK if only in name):
            first = {name: build.ask(work) for name, build in builds.items()}
            same = first["before"]["result"] == first["after"]["result"]
            times: dict[str, list[float]] = {"before": [], "after": []}
            for turn in range(turns):
                for name in sorted(builds, reverse=turn % 2 == 0):
                    times[name].append(builds[name].ask(work)["seconds"])
            ratio = statistics.median(b / a for b, a in zip(times["before"], times["after"], strict=True))
            shown = {name: 1e3 * statistics.median(taken) for name, taken in times.items()}
            table.add_row(
                work,
                f"{shown['before']:.3f}",
                f"{shown['after']:.3f}",
                f"{ratio:.2f}",
                "yes" if same else "NO",
            )
            rows.append({"work": work, **shown, "ratio": ratio, "same": same})
    finally:
        for build in builds.values():
            build.close()
    slowest = min(rows, key=lambda row: row["ratio"])
    note = (
        f"Before: commit {commit or 'unknown'}. Ratios above 1: the later build is faster. "
        f"Median {statistics.median(row['ratio'] for row in rows):.2f}, smallest {slowest['ratio']:.2f} "
        f"({slowest['work']})."
    )
    write("builds", COMMAND, table, {"rows": rows}, note)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
