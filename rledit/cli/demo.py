"""``rledit demo``: forget a class with a real CNN, in both worlds, without a download."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from ..experiments import RunResult
from ..experiments.console import say
from ..recipes.unlearning import UnlearningConfig, run
from .unlearn import table


def demo(out: Path = Path("runs/demo"), forget: int = 7, seed: int = 0) -> None:
    """Train a small CNN on 4,000 real digits, forget a class in both worlds, compare with retraining.

    Args:
        out: Folder for the two runs, mask and shift. A demo in it is replaced.
        forget: The class to forget.
        seed: Seed of everything random.
    """
    started = time.perf_counter()
    console = Console()
    say(console, f"Training a CNN on 4,000 handwritten digits, then forgetting {forget} in both worlds.")
    mask = run(
        UnlearningConfig(dataset="mnist5k", forget=(forget,), world="mask", seed=seed),
        out / "mask",
        overwrite=True,
    )
    shift = run(
        UnlearningConfig(
            dataset="mnist5k",
            forget=(forget,),
            world="shift",
            seed=seed,
            weights=str(out / "mask" / "model.safetensors"),  # the same network
        ),
        out / "shift",
        overwrite=True,
        with_retrain=False,
        baselines=mask.baselines,
    )
    results: dict[str, RunResult] = {"mask": mask, "shift": shift}
    console.print(table("1,000 test digits", results))
    editing = sum(result.seconds["edit"] for result in results.values())
    say(
        console,
        f"{sum(result.candidates for result in results.values()):,} candidates scored and learned from in "
        f"{editing:.1f} s; everything took {time.perf_counter() - started:.1f} s.",
    )
    for result in results.values():
        say(console, f"Report: {result.folder / 'report.html'}")
