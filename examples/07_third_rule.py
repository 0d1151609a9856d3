"""Add an edit rule: how the factors of a candidate change a weight.

Two rules ship with rledit, shift (additive) and mask (multiplicative). This adds a third one in one place:
it scales whole rows of the matrix, so that each output of the layer is turned up or down as one. The compiled
core does not know it; weights are edited in plain PyTorch and then scored as always. The rule works in
worlds, in scorers and in edits. Prints accuracy before and after. Takes a few seconds.
"""

import torch
from torch import Tensor, nn

import rledit
from rledit.ops.rules import KINDS, RuleKind


def scale_rows_(weight: Tensor, delta: Tensor) -> Tensor:
    """Change weights [N, O, I] in place by delta = scale * (left @ right); zero changes nothing."""
    return weight.mul_(1 + delta.sum(-1, keepdim=True))


KINDS["rows"] = RuleKind(
    formula="W * (1 + row sums of scale * (left @ right))", edit_=scale_rows_, relative=True
)


class RowsWorld(rledit.World):
    """Edits that scale the outputs of a layer."""

    world = "rows"


def report(title: str, model: nn.Module, samples: rledit.Samples) -> None:
    with torch.no_grad():
        correct = model(torch.cat(list(samples.batches()))).argmax(1) == samples.labels
    shares = (f"{name} {correct[mask].double().mean():.1%}" for name, mask in samples.groups.items())
    print(f"{title}: {', '.join(shares)}")


def main() -> None:
    torch.manual_seed(0)
    labels = torch.randint(5, (1000,))
    inputs = torch.randn(5, 16)[labels] + 0.7 * torch.randn(1000, 16)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    task = rledit.Task(model.eval(), ["0"], samples, rledit.Unlearning())
    world = RowsWorld(task, num_envs=64, rank=1, bound=8.0)
    result = rledit.PPO(world, seed=0).train(candidates=3_200)

    report("before", model, samples)
    result.edit.apply_(model)
    report("after", model, samples)
    print(f"the edit: {result.edit!r}")


if __name__ == "__main__":
    main()
