"""The table and what is said about it."""

from __future__ import annotations

import statistics
from typing import Any

from rich.table import Table

from . import ours
from .goal import Goal, Outcome


def make_rows(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """One row per world and contestant; ratios are to rledit with the same seed.

    A run that was stopped by the limit counts with the time it has had, so its ratio is a lower bound.
    """
    own = {(o.world, o.seed): o for o in outcomes if o.contestant == ours.NAME}
    rows = []
    for world, contestant in dict.fromkeys((o.world, o.contestant) for o in outcomes):
        runs = [o for o in outcomes if (o.world, o.contestant) == (world, contestant)]
        pairs = [(run, own[world, run.seed]) for run in runs]
        rows.append(
            {
                "world": world,
                "contestant": contestant,
                "reached": sum(run.reached for run in runs),
                "runs": len(runs),
                "seconds_seed_0": runs[0].seconds,
                "ratio_seed_0": runs[0].seconds / pairs[0][1].seconds,
                "seconds": statistics.median(run.seconds for run in runs),
                "seconds_range": [min(run.seconds for run in runs), max(run.seconds for run in runs)],
                "ratio": statistics.median(run.seconds / mine.seconds for run, mine in pairs),
                "updates": statistics.median(run.updates for run in runs),
                "ms_per_update": 1e3 * statistics.median(run.seconds / run.updates for run in runs),
                "setup_seconds": statistics.median(run.setup_seconds for run in runs),
                "ratio_with_setup": statistics.median(
                    (run.seconds + run.setup_seconds) / (mine.seconds + mine.setup_seconds)
                    for run, mine in pairs
                ),
            }
        )
    return rows


def make_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Until class 7 of MNIST is forgotten: seconds of editing")
    for header in ("world", "contestant"):
        table.add_column(header)
    for header in ("seed 0", "ratio", "median", "range", "ratio", "updates", "ms each", "set-up", "with it"):
        table.add_column(header, justify="right")
    for row in rows:
        low, high = row["seconds_range"]
        more = "" if row["reached"] == row["runs"] else "> "
        table.add_row(
            row["world"], row["contestant"],
            f"{more}{row['seconds_seed_0']:.2f}", f"{row['ratio_seed_0']:.1f}",
            f"{more}{row['seconds']:.2f}", f"{low:.2f} to {high:.2f}", f"{more}{row['ratio']:.1f}",
            f"{row['updates']:g}", f"{row['ms_per_update']:.1f}",
            f"{row['setup_seconds']:.2f}", f"{row['ratio_with_setup']:.1f}",
        )  # fmt: skip
    return table


HOW = """\
Goal: forget accuracy at most {forget}, retain accuracy at least {retain} on 6,000 validation images. Every
contestant checks that after every update, on the policy's mean and on the best candidate so far; the check is
part of the time. Candidates are scored on 6,000 other images, 128 per update, with equal settings of PPO.
Network and cached activations are given: set-up, apart, is caching them and building environments and agent,
and the last column is the ratio with it included.

Every run is made in {turns} turns, and the fastest counts. Torch has {threads} threads, whichever makes a
product faster right before the run: on a machine that is busy with something else, products that wait for a
second core take many times as long.

Our means: the constructor of Stable-Baselines3's PPO leaves the policy's initial means near zero, where the
reward has no slope; these rows set them by hand to what rledit starts from."""


def make_note(
    rows: list[dict[str, Any]],
    headline: str,
    goal: Goal,
    profiles: dict[str, Any],
    threads: list[int],
    turns: int,
) -> str:
    """Paragraphs of Markdown: the headline, how it was measured, the profile."""
    figures = [
        f"{row['world']} {row['ratio']:.1f} (seed 0: {row['ratio_seed_0']:.1f})"
        for row in rows
        if row["contestant"] == headline
    ]
    paragraphs = [
        f"Seconds of {headline} over rledit's, median of the seeds: {', '.join(figures)}.",
        HOW.format(
            forget=percent(goal.forget),
            retain=percent(goal.retain),
            threads=" or ".join(map(str, threads)),
            turns=turns,
        ),
    ]
    if missed := [row for row in rows if row["reached"] < row["runs"]]:
        which = "; ".join(f"{row['world']}, {row['contestant']}" for row in missed)
        paragraphs.append(
            f"Not in every run reached within {goal.limit_seconds:g} s: {which}. "
            "Such runs count with that time."
        )
    paragraphs += [_profile_note(world, figures) for world, figures in profiles.items()]
    return "\n\n".join(paragraphs)


def _profile_note(world: str, figures: dict[str, Any]) -> str:
    share = figures["share"]
    lines = [
        f"Python in rledit's run, {world}: {percent(share['python'])} of {figures['wall_ms']:.1f} ms per "
        f"update, of rledit {percent(share['rledit'])}, torch's own Python {percent(share['torch'])}, other "
        f"{percent(share['other'])}; the rest are native calls. Largest by own time, per update:",
        "",
    ]
    lines += [
        f"- `{f['function']}`: {f['ms']:.3f} ms, {f['calls']:.0f} calls, {percent(f['share'])}"
        for f in figures["functions"]
    ]
    return "\n".join(lines)


def percent(value: float) -> str:
    return f"{100 * value:.2f}%"
