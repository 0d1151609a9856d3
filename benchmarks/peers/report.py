"""The table and its JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from .limit import Machine
from .shapes import PRECISIONS
from .turns import QUIET

Row = dict[str, Any]


def place(rows: Iterable[Row], machine: Machine) -> None:
    """Set every line against the limit. Done again after each: the machine may have shown better by then."""
    for row in rows:
        least = machine.limit(row["limit"]["operations"], row["limit"]["bytes"], row["precision"])
        row["limit"] |= {"seconds": least, "fraction": least * row["rledit"] / row["N"]}


def table(rows: Iterable[Row]) -> Table:
    """One section per precision, one line per network and world."""
    made = Table(title="Scoring against the strongest peers, candidates per second")
    for header in ("precision", "network", "world"):
        made.add_column(header)
    for header in ("rledit", "ratio", "of the limit"):
        made.add_column(header, justify="right")
    for header in ("best opponent", "every opponent"):
        made.add_column(header)
    rows = list(rows)
    for precision in PRECISIONS:
        for row in (row for row in rows if row["precision"] == precision):
            made.add_row(
                precision,
                f"{row['network']}, N = {row['N']}, R = {row['rank']}",
                row["world"],
                _rate(row["rledit"]),
                f"{row['ratio']:.2f}",
                f"{row['limit']['fraction']:.0%}",
                row["best"],
                _opponents(row["opponents"]),
            )
        made.add_section()
    return made


def note(rows: list[Row], machine: Machine) -> str:
    """What the columns mean, and the two figures that are not in them."""
    slowest = min(rows, key=lambda row: float(row["ratio"]))
    parts = [
        f"Smallest ratio: {slowest['ratio']:.2f} ({slowest['network']}, {slowest['world']}, "
        f"{slowest['precision']}, against {slowest['best']}).",
        "In brackets: candidates at once, by trial the opponent's best on this machine.",
        "Ratio: rledit to the best opponent, the median of the turns' ratios.",
        "Limit: "
        + ", ".join(f"{peak / 1e9:,.0f} GFLOP/s in {name}" for name, peak in machine.peak.items())
        + f" and {machine.bandwidth / 1e9:.1f} GB/s, measured in the same run.",
    ]
    shares = [row for row in rows if "inference" in row]
    if shares:
        quoted = ", ".join(f"{row['inference']['share']:.0%} in {row['precision']}" for row in shares)
        parts.append(
            "Speed of scoring a population of shifts, as a share of torch's plain inference of the unedited "
            f"network on as many samples ({shares[0]['network']}): {quoted}."
        )
    busy = max(row["others"] for row in rows)
    parts.append(f"Other programs took {busy:.0%} of the machine at most while this was timed.")
    if busy > QUIET:
        parts.append("**That is too much for these figures to be quoted.**")
    return " ".join(parts)


def line(row: Row) -> str:
    """What a run says while it goes on."""
    return (
        f"{row['network']}, {row['world']}, {row['precision']}: {row['ratio']:.2f} times {row['best']}, "
        f"{row['limit']['fraction']:.0%} of the limit ({row['turns']} turns, {row['seconds']:.0f} s, others "
        f"{row['others']:.0%})"
    )


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _opponents(figures: dict[str, Row]) -> str:
    """Fastest first, those that are missing last."""
    there = {name: o for name, o in figures.items() if "missing" not in o}
    order = sorted(there, key=lambda name: -float(there[name]["rate"]))
    parts = [f"{name} {_rate(there[name]['rate'])} ({there[name]['setting']['chunk']})" for name in order]
    return ", ".join(parts + [f"{name}: {o['missing']}" for name, o in figures.items() if "missing" in o])
