"""Other searches than PPO on the same task: evolution strategies, hill climbing and random search.

All share the budget, the scorer, checkpoints and the choice of the edit on a validation split; only how they
spend candidates differs. Prints, for each, where the edit comes from and the accuracies on held-out points.
Takes a few seconds.
"""

import torch
from torch import nn

import rledit

BUDGET = 3_200


def make_task() -> tuple[nn.Module, rledit.Task, rledit.Samples]:
    """A classifier of six clouds of points, which is to forget the first; and points to test on."""
    torch.manual_seed(0)
    labels = torch.randint(6, (2500,))
    inputs = torch.randn(6, 16)[labels] + 0.7 * torch.randn(2500, 16)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 6))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[:500]), labels[:500]).backward()
        optimizer.step()
    reward, validation, test = (
        rledit.Samples(inputs[part], labels[part], rledit.forget_groups(labels[part], 0))
        for part in (slice(0, 500), slice(500, 1500), slice(1500, 2500))
    )
    return model.eval(), rledit.Task(model, ["2"], reward, rledit.Unlearning(), validation), test


def accuracies(model: nn.Module, samples: rledit.Samples) -> str:
    with torch.no_grad():
        correct = model(torch.cat(list(samples.batches()))).argmax(1) == samples.labels
    return ", ".join(f"{name} {correct[mask].double().mean():.1%}" for name, mask in samples.groups.items())


def main() -> None:
    model, task, test = make_task()
    print(f"unedited: {accuracies(model, test)}")
    for make in (rledit.PPO, rledit.ES, rledit.HillClimbing, rledit.RandomSearch):
        search = make(rledit.ShiftWorld(task, num_envs=128, rank=2), seed=0)
        result = search.train(candidates=BUDGET)
        search.close()
        result.edit.apply_(model)
        print(f"{make.__name__}: {accuracies(model, test)} ({result.origin})")
        result.edit.revert_(model)


if __name__ == "__main__":
    main()
