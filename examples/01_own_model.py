"""Make a model of your own forget one class.

Trains a small classifier on synthetic data, lets PPO look for a low-rank edit of its second layer that
forgets class 3 and keeps the other nine, and applies the edit. Prints accuracy on a test split that the
search has never seen, before the edit, after it, and after it has been taken back. Takes a few seconds.
"""

import torch
from torch import nn

import rledit

FORGET = 3


def make_data(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten classes, each a cloud of points around its own center in 32 dimensions."""
    centers = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(10, (count,), generator=generator)
    return centers[labels] + torch.randn(count, 32, generator=generator), labels


def pretrain(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    model.eval()


def report(title: str, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    with torch.no_grad():
        correct = model(inputs).argmax(1) == labels
    forget = correct[labels == FORGET].double().mean()
    retain = correct[labels != FORGET].double().mean()
    print(f"{title:>15}: class {FORGET} {forget:7.2%}, the other classes {retain:7.2%}")


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    train, reward, validation, test = (make_data(2000, generator) for _ in range(4))
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    pretrain(model, *train)
    report("before", model, *test)

    # The agent is rewarded on one split, another picks the edit, the test split is only read at the end.
    samples, held_out = (
        rledit.Samples(inputs, labels, rledit.forget_groups(labels, FORGET))
        for inputs, labels in (reward, validation)
    )
    task = rledit.Task(
        model, targets=["2"], samples=samples, objective=rledit.Unlearning(), validation=held_out
    )
    result = rledit.PPO(rledit.MaskWorld(task, num_envs=128, rank=4), seed=0).train(candidates=6_400)

    result.edit.apply_(model)
    report("after the edit", model, *test)
    result.edit.revert_(model)
    report("reverted", model, *test)
    print(f"{result.candidates:,} candidates scored; chosen: {result.origin}, {result.edit!r}")


if __name__ == "__main__":
    main()
