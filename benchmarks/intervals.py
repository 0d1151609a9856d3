"""What test figures with bootstrap intervals cost, as a debiasing run takes them twice for every test set.

python -m benchmarks.intervals
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import tyro

from rledit import Samples
from rledit.objectives.paired import RESAMPLES
from rledit.recipes.debiasing.evaluation import evaluate


def make_samples(texts: int, identities: int) -> tuple[torch.Tensor, Samples, list[str]]:
    """Margins that know something of the labels; half for utility, half in groups that overlap a little."""
    random = torch.Generator().manual_seed(0)
    labels = (torch.rand(texts, generator=random) < 0.3).long()
    order = torch.arange(texts)
    in_bias = order >= texts // 2
    own = (order - texts // 2) * identities // (texts - texts // 2)
    groups = {"utility": ~in_bias, "bias": in_bias}
    names = [f"group {k}" for k in range(identities)]
    for k, name in enumerate(names):
        groups[name] = in_bias & ((own == k) | (torch.rand(texts, generator=random) < 0.02))
    margins = torch.randn(texts, generator=random) + labels
    return margins, Samples(torch.zeros(texts, 1), labels, groups), names


def main(texts: int = 66_000, identities: int = 24, turns: int = 7) -> None:
    """Print the median and the extremes of the seconds that the CPU was busy.

    Args:
        texts: texts of the test set.
        identities: groups.
        turns: evaluations.
    """
    margins, samples, names = make_samples(texts, identities)
    seconds = []
    for _ in range(turns):
        started = time.process_time()
        evaluate(margins, samples, names)
        seconds.append(time.process_time() - started)
    print(
        f"{texts:,} texts, {identities} groups, {RESAMPLES} resamples: {statistics.median(seconds):.2f} s of "
        f"CPU time ({min(seconds):.2f} to {max(seconds):.2f})"
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
