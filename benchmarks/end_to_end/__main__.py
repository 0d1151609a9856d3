"""The command: every contestant in turn, the table, the profile."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from rich.console import Console

from rledit.recipes.unlearning import WORLDS, UnlearningConfig
from rledit.recipes.unlearning.data import UnlearningData
from rledit.recipes.unlearning.run import load_weights, pretrain
from rledit.zoo import models
from rledit.zoo.data import load
from rledit.zoo.models import MnistCNN

from ..record import write
from . import ours
from .goal import Goal, Outcome
from .profile import summarize
from .report import make_note, make_rows, make_table, percent

FORGET = 7
WARM_UP = Goal(limit_updates=2)
"""Goal of the first round, which is not kept: torch loads parts of itself on first use."""

PROBES = 20

Edit = Callable[[Goal], Outcome]


def main(
    data_root: Path | None = None,
    seeds: int = 5,
    turns: int = 2,
    limit_seconds: float = 900.0,
    weights: str = "",
    profile: bool = False,
) -> None:
    """Run the table.

    Args:
        data_root: folder with MNIST; else RLEDIT_DATA, or a download.
        seeds: how many seeds of the agents; the network and the splits are those of seed 0.
        turns: times that each run is made; the fastest counts.
        limit_seconds: when a contestant gives up.
        weights: a safetensors file with the network of seed 0, to save its training.
        profile: also how much of rledit's time is Python.
    """
    if find_spec("stable_baselines3") is None:
        raise SystemExit("The opponent is not installed: pip install stable-baselines3")
    from .sb3 import Opponent, edit

    console = Console(stderr=True)
    load_before = os.getloadavg()[0]
    data = UnlearningData(load("mnist", data_root), 0)
    model = _network(data, weights, console)
    goal = Goal(limit_seconds=limit_seconds)
    threads = sorted({1, torch.get_num_threads()})
    # The first one is the headline's.
    opponents = [Opponent(batched, means) for batched in (False, True) for means in (False, True)]
    configs = [UnlearningConfig("mnist", (FORGET,), world=world) for world in WORLDS]  # type: ignore[arg-type]

    def contestants(config: UnlearningConfig) -> list[Edit]:
        theirs = [partial(edit, opponent, config, model, data) for opponent in opponents]
        return [partial(ours.edit, config, model, data), *theirs]

    for config in configs:
        for contestant in contestants(config):
            _faster(contestant, threads, WARM_UP)
    outcomes = _compete(contestants, configs, seeds, turns, threads, goal, console)
    profiles = {}
    if profile:
        for config in configs:
            profiles[config.world] = summarize(partial(ours.edit, config, model, data), goal)

    rows = make_rows(outcomes)
    note = make_note(rows, opponents[0].name, goal, profiles, threads, turns)
    asked = f"--seeds {seeds} --turns {turns} --limit-seconds {limit_seconds:g}"
    asked += " --profile" if profile else ""
    whole = (seeds, turns) == (5, 2) and limit_seconds == 900 and profile
    write(
        "end_to_end" if whole else "end_to_end-partial",
        f"python -m benchmarks.end_to_end {asked}",
        make_table(rows),
        {
            "goal": asdict(goal),
            "rows": rows,
            "runs": [asdict(outcome) for outcome in outcomes],
            "profile": profiles,
            "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        },
        note,
    )
    print(note)


def _network(data: UnlearningData, weights: str, console: Console) -> MnistCNN:
    config = UnlearningConfig("mnist", (FORGET,))
    if weights:
        model = load_weights(models.build(config.model_name), weights)
    else:
        console.print("Training the network of seed 0.")
        model = pretrain(config, data, lambda *_: None)
    assert isinstance(model, MnistCNN)
    return model


def _compete(
    contestants: Callable[[UnlearningConfig], list[Edit]],
    configs: list[UnlearningConfig],
    seeds: int,
    turns: int,
    threads: list[int],
    goal: Goal,
    console: Console,
) -> list[Outcome]:
    """The fastest run of every contestant, by config and seed.

    Turn by turn, so that a machine that is busy for a while spoils one turn and not one contestant.
    """
    best: dict[tuple[str, int, int], Outcome] = {}
    for turn in range(turns):
        for base in configs:
            for seed in range(seeds):
                for number, contestant in enumerate(contestants(replace(base, seed=seed))):
                    key = (base.world, number, seed)
                    best[key] = _faster(contestant, threads, goal, best.get(key))
                    console.print(f"Turn {turn + 1}: {_describe(best[key])}", highlight=False, soft_wrap=True)
    return [best[key] for key in sorted(best)]


def _faster(edit: Edit, threads: list[int], goal: Goal, best: Outcome | None = None) -> Outcome:
    """The outcome of a run, or the one that has been made before if that was faster.

    A run ends once it is slower than one that has reached the goal.
    """
    if best is not None and best.reached:
        goal = replace(goal, limit_seconds=best.seconds)
    before = torch.get_num_threads()
    try:
        count = min(threads, key=_probe)
        torch.set_num_threads(count)
        outcome = edit(goal)
    finally:
        torch.set_num_threads(before)
    outcome.threads = count
    if best is None or (outcome.reached, -outcome.seconds) > (best.reached, -best.seconds):
        return outcome
    return best


def _probe(threads: int) -> float:
    """Seconds of a few products like those of a run, on this number of torch's threads, at this moment."""
    activations, weight = torch.ones(6000, 128), torch.ones(32, 128)
    torch.set_num_threads(threads)
    F.linear(activations, weight)
    began = time.perf_counter()
    for _ in range(PROBES):
        F.linear(activations, weight)
    return time.perf_counter() - began


def _describe(outcome: Outcome) -> str:
    end = "" if outcome.reached else "NOT REACHED "
    return (
        f"{outcome.world} seed {outcome.seed} {outcome.contestant}: {end}{outcome.seconds:.2f} s (processor "
        f"{outcome.cpu_seconds:.2f} s, {outcome.threads} threads), {outcome.updates} updates, "
        f"{outcome.origin}: forget {percent(outcome.forget)}, retain {percent(outcome.retain)}"
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
