"""``rledit demo``: forget a class from a real CNN, in both worlds, without a download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ..recipes.unlearning import UnlearningConfig, run
from .unlearn import table


def demo(out: Path = Path("runs/demo"), forget: int = 7, seed: int = 0) -> None:
    """Train a small CNN on 4,000 real digits, forget a class in both worlds, compare with retraining.

    Args:
        out: folder for the two runs, mask and shift; a demo in it is replaced.
        forget: the class to forget.
        seed: of everything random.
    """
    started = time.perf_counter()
    console = Console()
    console.print(f"Training a CNN on 4,000 handwritten digits, then forgetting {forget} in both worlds.")
    mask = run(
        UnlearningConfig(dataset="mnist5k", forget=(forget,), world="mask", seed=seed),
        out / "mask",
        overwrite=True,
    )
    metrics: dict[str, Any] = {
        "mask": mask,
        "shift": run(
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
            baselines=mask["baselines"],
        ),
    }
    console.print(table("1,000 test digits", metrics))
    editing = sum(m["seconds"]["edit"] for m in metrics.values())
    console.print(
        f"{sum(m['candidates'] for m in metrics.values()):,} candidates scored and learned from in "
        f"{editing:.1f} s; everything took {time.perf_counter() - started:.1f} s.",
        highlight=False,
    )
    for world in metrics:
        console.print(f"Report: {out / world / 'report.html'}", highlight=False, soft_wrap=True)
