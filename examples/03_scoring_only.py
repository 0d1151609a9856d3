"""Score 256 candidates in one call, without any learning.

Draws random low-rank shifts of one layer, counts what each of the 256 edited networks gets right on 5,000
samples, and prints the best candidate and the time it took. One candidate is then checked the slow way, by
editing a copy of the model in plain PyTorch. Takes a second or two.
"""

import copy
import time

import torch
from torch import nn

import rledit


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 10)
    ).eval()
    inputs = torch.randn(5000, 64)
    labels = model(inputs).argmax(1)  # a "perfect" model, so that every change can be seen
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, int(labels[0])))
    task = rledit.Task(model, ["2"], samples, rledit.Unlearning())

    scorer = task.scorer()  # runs what comes before the target once and keeps its activations
    left = 0.1 * torch.randn(256, 32, 4)  # [N, O, R]
    right = 0.1 * torch.randn(256, 4, 128)  # [N, R, I]
    start = time.perf_counter()
    tally = scorer.score({"2": (left, right)}, world="shift")
    seconds = time.perf_counter() - start

    value = rledit.Unlearning()(tally)
    best = int(value.argmax())
    print(scorer)
    print(f"256 candidates in {1000 * seconds:.1f} ms")
    print(
        f"best is number {best}: forget {tally.accuracy('forget')[best]:.1%}, "
        f"retain {tally.accuracy('retain')[best]:.1%}"
    )

    edited = copy.deepcopy(model)
    with torch.no_grad():
        edited[2].weight += left[best] @ right[best]
        correct = edited(inputs).argmax(1) == labels
    counted = {name: int(correct[mask].sum()) for name, mask in samples.groups.items()}
    scored = {name: int(tally.correct[name][best]) for name in tally.groups}
    print(f"correct, plain PyTorch: {counted}")
    print(f"correct, scored:        {scored}")


if __name__ == "__main__":
    main()
