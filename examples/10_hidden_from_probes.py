"""Forget a class so that a fresh classifier does not find it in the features either.

Zero accuracy is cheap: the last layer may forget the name while the features go on telling the class. Prints
what logistic regression on the features recalls, on points that were not used before: of the unedited
network, of an edit for accuracy alone, and of one by gradients with a level for the probe. Takes a moment.
"""

import torch
from torch import nn

import rledit
from rledit.audits import linear_probe

CLASSES = 6


def make_splits() -> list[rledit.Samples]:
    """Six clouds of points; class 0 is to be forgotten."""
    torch.manual_seed(0)
    centers = torch.randn(CLASSES, 16)
    splits = []
    for size in (1000, 1000, 1000):
        labels = torch.arange(size) % CLASSES
        inputs = centers[labels] + 0.7 * torch.randn(size, 16)
        splits.append(rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0)))
    return splits


def train(samples: rledit.Samples) -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    inputs = torch.cat(list(samples.batches()))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), samples.labels).backward()
        optimizer.step()
    return model.eval()


def describe(model: nn.Module, reward: rledit.Samples, test: rledit.Samples) -> str:
    seen, unseen = (torch.cat(list(split.batches())) for split in (reward, test))
    recall = linear_probe(model, seen, reward.labels, unseen, test.labels, CLASSES)
    with torch.no_grad():
        correct = model(unseen).argmax(1) == test.labels
    forget, retain = (correct[test.groups[name]].double().mean() for name in ("forget", "retain"))
    return f"forget {forget:.1%}, retain {retain:.1%}, a probe recalls {recall[0]:.1%}"


def main() -> None:
    reward, validation, test = make_splits()
    model = train(reward)
    print(f"unedited: {describe(model, reward, test)}")
    for name, objective, search, candidates in (
        ("accuracy alone", rledit.Unlearning(), rledit.PPO, 1_920),
        ("hidden", rledit.Unlearning(probe=0.5, classifier="logistic"), rledit.GradientSearch, 330),
    ):
        task = rledit.Task(model, ["0"], reward, objective, validation)
        result = search(rledit.ShiftWorld(task, num_envs=64, rank=4), seed=0).train(candidates)
        result.edit.apply_(model)
        print(f"{name}: {describe(model, reward, test)} ({result.origin})")
        result.edit.revert_(model)


if __name__ == "__main__":
    main()
