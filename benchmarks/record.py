"""Where and when a figure was measured, and the files it goes to."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import rledit

from . import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


# Of the start: people may go on working while a benchmark runs.
_DIRTY = bool(_git("status", "--porcelain", "--untracked-files=no", "--", "csrc", "rledit", "kernels"))
_COMMIT = (_git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if _DIRTY else "")


def circumstances(command: str) -> dict[str, Any]:
    """Machine, date, commit and versions. A commit with local changes says so."""
    return {
        "command": command,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": _COMMIT,
        "machine": f"{_cpu()}, {_cores()} cores",
        "instruction_set": rledit._native.active_isa(),
        "threads": {"rledit": rledit.num_threads(), "torch": torch.get_num_threads()},
        "versions": {"rledit": rledit.__version__, "torch": torch.__version__},
    }


def write(name: str, command: str, table: Table, data: dict[str, Any], note: str = "", *more: Table) -> None:
    """Print the tables, and write them with their circumstances to results/NAME.md and NAME.json."""
    where = circumstances(command)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(_json({**where, **data}))
    lines = [
        f"# {table.title}",
        "",
        f"`{command}`, {where['date']}, commit {where['commit']}, {where['machine']} "
        f"({where['instruction_set']}), torch {where['versions']['torch']}.",
        "",
    ]
    if note:
        lines += [note, ""]
    for each in (table, *more):
        Console().print(each)
        lines += [] if each is table else ["", f"## {each.title}", ""]
        lines += _markdown(each)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")


def _json(data: dict[str, Any]) -> str:
    """One line for each entry, and for each row of a list."""
    lines = []
    for key, value in data.items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(row) for row in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _markdown(table: Table) -> list[str]:
    head = "| " + " | ".join(str(column.header) for column in table.columns) + " |"
    rule = "|" + "|".join("--:" if c.justify == "right" else "---" for c in table.columns) + "|"
    rows = zip(*(list(c.cells) for c in table.columns), strict=True)
    return [head, rule, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]
