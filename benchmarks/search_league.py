"""Which search: PPO and the others on the same scorer, budget and choice of the edit.

    python -m benchmarks.search_league --data-root DIR                  # ten classes, two worlds, three seeds
    python -m benchmarks.search_league --dataset mnist5k --classes 7 --seeds 1

Every seed pretrains a network, as the recipe does. A task is a class to forget in one world; all searches
of a task take turns, one update each, whoever has spent fewest candidates being next: a slow minute of the
machine is everybody's. The edit is chosen on the validation split, and the test images are read once per
edit. Settings are the searches' defaults and the recipe's 128 candidates per update. Those of evolution
strategies, separable CMA-ES and hill climbing were picked among two to four on the validation split of
class 3, seed 0; full CMA-ES, TPE and random search were not tuned.

Finished searches are kept in a folder, one file per task and search, and are not repeated. Searches that are
added to a task later are timed without the others.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

import rledit
from rledit.recipes.unlearning.config import UnlearningConfig
from rledit.recipes.unlearning.data import UnlearningData, evaluate
from rledit.recipes.unlearning.run import load_weights, make_task, pretrain
from rledit.search import Row, Search, SearchEnded
from rledit.storage.files import write_json, write_tensors
from rledit.worlds import WORLDS
from rledit.zoo import models
from rledit.zoo.data import load

from . import ROOT
from .record import circumstances, write

WorldName = Literal["mask", "shift"]

SEARCHES: dict[str, Callable[[Any, int], Search]] = {
    "ppo": lambda env, seed: rledit.PPO(env, seed=seed),
    "parameters": lambda env, seed: rledit.PPO(env, seed=seed, policy="parameters"),
    "es": lambda env, seed: rledit.ES(env, seed),
    "es-low-rank": lambda env, seed: rledit.ES(env, seed, low_rank=1),
    "sep-cma": lambda env, seed: rledit.SepCMAES(env, seed),
    "cma": lambda env, seed: rledit.CMAES(env, seed),
    "tpe": lambda env, seed: rledit.TPE(env, seed),
    "hill-climbing": lambda env, seed: rledit.HillClimbing(env, seed),
    "random": lambda env, seed: rledit.RandomSearch(env, seed),
}

REACHED = 0.95
"""The share of the best reward found by any search on the task and seed that counts as reached."""


def main(
    dataset: Literal["mnist", "mnist5k"] = "mnist",
    data_root: Path | None = None,
    classes: tuple[int, ...] = tuple(range(10)),
    worlds: tuple[WorldName, ...] = ("mask", "shift"),
    searches: tuple[str, ...] = tuple(SEARCHES),
    seeds: int = 3,
    candidates: int = 6_400,
    folder: Path = ROOT / "runs" / "search-league",
    name: str = "",
    cells: int = 0,
) -> None:
    """Run the league, or what is missing of it.

    Args:
        dataset: mnist needs --data-root (or RLEDIT_DATA, or a download).
        data_root: folder with the data set.
        classes: one task per class and world.
        worlds: edit rules.
        searches: who takes part.
        seeds: how many networks and searches.
        candidates: budget of each search on each task.
        folder: where what is done is kept.
        name: name of the results files; by default search-league, with what is not whole after it.
        cells: stop after this many new tasks (0: all); the tables are written once all are there.
    """
    if unknown := [each for each in searches if each not in SEARCHES]:
        raise SystemExit(f"searches: expected some of {', '.join(SEARCHES)}; got {', '.join(unknown)}")
    console = Console(stderr=True)
    loaded = load(dataset, data_root)
    done = 0
    rows = []
    for seed in range(seeds):
        data = UnlearningData(loaded, seed)
        for label in classes:
            for world in worlds:
                config = UnlearningConfig(dataset, (label,), world=world, seed=seed)
                task_folder = folder / f"{dataset}-{candidates}" / f"{world}-{label}-{seed}"
                missing = [each for each in searches if not (task_folder / f"{each}.json").exists()]
                if missing and cells and done >= cells:
                    continue
                if missing:
                    console.print(f"class {label}, {world}, seed {seed}: {', '.join(missing)}")
                    network = network_of(config, data, folder)
                    task_folder.mkdir(parents=True, exist_ok=True)
                    for each, row in _compete(config, data, network, missing, candidates).items():
                        write_json(task_folder / f"{each}.json", row)
                    done += 1
                rows += [json.loads((task_folder / f"{each}.json").read_text()) for each in searches]
    if len(rows) < seeds * len(classes) * len(worlds) * len(searches):
        console.print(f"{len(rows)} cells are there; run again for the rest")
        return
    whole = (len(classes), len(worlds), len(searches), seeds >= 3) == (10, 2, len(SEARCHES), True)
    suffix = "" if whole and dataset == "mnist" else f"-{dataset}-partial"
    asked = {
        "--dataset": dataset,
        "--classes": " ".join(map(str, classes)),
        "--worlds": " ".join(worlds),
        "--searches": " ".join(searches),
        "--seeds": seeds,
        "--candidates": candidates,
    }
    command = " ".join(["python -m benchmarks.search_league", *(f"{k} {v}" for k, v in asked.items())])
    _report(rows, searches, worlds, candidates, command, name or f"search-league{suffix}")


def network_of(config: UnlearningConfig, data: UnlearningData, folder: Path) -> nn.Module:
    """The seed's network, trained once."""
    path = folder / f"network-{config.dataset}-{config.seed}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        network = pretrain(config, data, lambda *args, **kwargs: None)
        write_tensors(path, network.state_dict(), {})
    return load_weights(models.build(config.model_name), path)


def _compete(
    config: UnlearningConfig, data: UnlearningData, network: nn.Module, names: Sequence[str], candidates: int
) -> dict[str, dict[str, Any]]:
    """A row for each of these searches on one task."""
    task = make_task(config, network, data)
    running: dict[str, Search] = {}
    for name in names:
        env = WORLDS[config.world](task, num_envs=config.num_envs, rank=config.rank, final_obs=False)
        running[name] = SEARCHES[name](env, config.seed)
    wall, cpu = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    waiting = set(names)
    while waiting:
        name = min(waiting, key=lambda each: (running[each].candidates, names.index(each)))
        search = running[name]
        started = time.perf_counter(), time.process_time()
        try:
            search.update()
        except SearchEnded:
            waiting.discard(name)
        wall[name] += time.perf_counter() - started[0]
        cpu[name] += time.process_time() - started[1]
        if search.candidates >= candidates:
            waiting.discard(name)
    rows = {}
    before = _test(network, data, config)
    for name, search in running.items():
        result = search.result()
        search.close()
        edited = deepcopy(network)
        result.edit.apply_(edited)
        validation = result.edit.metrics["validation"]
        assert isinstance(validation, dict)
        rows[name] = {
            "search": name,
            "world": config.world,
            "class": config.forget[0],
            "seed": config.seed,
            "before": before,
            "after": _test(edited, data, config),
            "validation": validation["after"],
            "origin": result.origin,
            "stopped": result.stopped,
            "candidates": result.candidates,
            "seconds": wall[name],
            "cpu_seconds": cpu[name],
            "score_seconds": result.seconds["score"],
            "curve": _curve(result.history),
            "circumstances": circumstances(""),
        }
    return rows


def _curve(history: list[Row]) -> list[tuple[float, float, float]]:
    """Candidates, mean reward of a population, and best reward so far, of every update."""
    return [(row["candidates"], row["reward_mean"], row["reward_elite"]) for row in history]


def _test(model: nn.Module, data: UnlearningData, config: UnlearningConfig) -> dict[str, float]:
    figures = evaluate(model, data, config.forget, audits=())
    return {name: float(figures[f"{name}_accuracy"]) for name in ("forget", "retain")}  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- report


def _report(
    rows: list[dict[str, Any]],
    searches: Sequence[str],
    worlds: Sequence[str],
    candidates: int,
    command: str,
    name: str,
) -> None:
    best: dict[tuple[str, int, int], float] = {}
    for row in rows:
        key = _key(row)
        best[key] = max(best.get(key, 0.0), row["curve"][-1][2])
    for row in rows:
        row["to_95"] = _reaches(row["curve"], REACHED * best[_key(row)])
    tasks = len({_key(row)[:2] for row in rows})
    table = Table(title=f"Searches ({tasks} tasks, test split, rank 4, {candidates:,} candidates)")
    for header in ("world", "search"):
        table.add_column(header)
    for header in (
        "forget", "retain", "retain less forget", "less that of PPO (95% interval)",
        "validation", "seconds", "CPU seconds", "candidates to 95%", "reached",
    ):  # fmt: skip
        table.add_column(header, justify="right")
    summary = []
    for world in worlds:
        mine = [row for row in rows if row["world"] == world]
        for search in searches:
            figures = _summary(search, world, mine)
            summary.append(figures)
            low, high = figures["interval"] or (0.0, 0.0)
            table.add_row(
                world, search,
                *(_percent(figures[key]) for key in ("forget", "retain", "value")),
                f"{low:+.2f} to {high:+.2f}" if figures["interval"] else "",
                f"{figures['validation']:.4f}", f"{figures['seconds']:.1f}", f"{figures['cpu_seconds']:.1f}",
                f"{figures['to_95']:,.0f}" if figures["to_95"] is not None else "n/a",
                f"{figures['reached']} of {figures['runs']}",
            )  # fmt: skip
    note = (
        "Accuracies in percent, mean and standard deviation over classes and seeds. Intervals: of the mean "
        "difference from PPO on the same class, seed and network, resampled by class, or by seed where there "
        "is one class. Seconds: medians; all searches of a task took turns, update by update, and choosing "
        "the edit is not counted. Candidates to 95%: when the best reward so far comes within "
        f"{100 * REACHED:.0f}% of the best that any search found on that task and seed, the median of the "
        "runs that came there. TPE searches another and smaller space, see its documentation."
    )
    for row in rows:  # cells may be of different days
        row["commit"] = row.pop("circumstances")["commit"]
    write(name, command, table, {"summary": summary, "rows": rows}, note)


def _percent(spread: tuple[float, float | None]) -> str:
    mean, deviation = spread
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")


def _key(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["world"], row["class"], row["seed"]


def _reaches(curve: Sequence[Sequence[float]], bar: float) -> float | None:
    """Candidates after which the best reward so far is at the bar."""
    return next((scored for scored, _, elite in curve if elite >= bar), None)


def _value(row: dict[str, Any]) -> float:
    return float(row["after"]["retain"] - row["after"]["forget"])


def _summary(search: str, world: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in rows if row["search"] == search]
    theirs = {_key(row): _value(row) for row in rows if row["search"] == "ppo"}
    reached = [row["to_95"] for row in mine if row["to_95"] is not None]
    differences = [(row["class"], row["seed"], _value(row) - theirs[_key(row)]) for row in mine if theirs]
    return {
        "search": search,
        "world": world,
        "runs": len(mine),
        "forget": _spread([row["after"]["forget"] for row in mine]),
        "retain": _spread([row["after"]["retain"] for row in mine]),
        "value": _spread([_value(row) for row in mine]),
        "interval": _interval(differences) if search != "ppo" else None,
        "validation": statistics.fmean(row["validation"]["value"] for row in mine),
        "seconds": statistics.median(row["seconds"] for row in mine),
        "cpu_seconds": statistics.median(row["cpu_seconds"] for row in mine),
        "to_95": statistics.median(reached) if reached else None,
        "reached": len(reached),
    }


def _spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation, of which one value has none."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _interval(differences: list[tuple[int, int, float]]) -> tuple[float, float] | None:
    """The 95% percentile interval of the mean difference, in points: whole classes are drawn with
    replacement, whose seeds belong together; where there is one class, seeds."""
    by_class = {each[0] for each in differences}
    place = 0 if len(by_class) > 1 else 1
    clusters: dict[int, list[float]] = {}
    for each in differences:
        clusters.setdefault(each[place], []).append(each[2])
    if len(clusters) < 2:
        return None
    means = np.array([statistics.fmean(values) for values in clusters.values()])  # of equal sizes
    drawn = np.random.default_rng(0).integers(len(means), size=(10_000, len(means)))
    low, high = np.quantile(means[drawn].mean(1), (0.025, 0.975))
    return 100 * float(low), 100 * float(high)


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    sys.exit(tyro.cli(main))
