"""Edit for an objective of your own: first a function, then a class with a constraint.

The classifier was trained on group "b" alone and is worse on group "a", whose inputs are all shifted by the
same vector. Both objectives close the gap in accuracy. The function trades it freely for accuracy; the class
allows only edits that cost group "b" at most one point. Prints accuracy per group before and after, on the
validation split. Takes a few seconds.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import rledit


def gap(tally: rledit.Tally) -> Tensor:
    """A plain function of the tally, [N] values for N candidates; larger is better."""
    return tally.accuracy("all") - (tally.accuracy("a") - tally.accuracy("b")).abs()


@dataclass(frozen=True)
class GapWithinBudget(rledit.Objective):
    """As small a gap as possible, while group "b" loses no more than ``budget`` of its accuracy."""

    budget: float = 0.01
    before: float | None = None  # of the unedited model, known once a scorer has counted it

    def __call__(self, tally: rledit.Tally) -> Tensor:
        lost = self._unedited() - tally.accuracy("b")
        return -self._gap(tally) - 20 * (lost - self.budget).clamp(min=0)

    def relative_to(self, unedited: rledit.Tally) -> "GapWithinBudget":
        """Called for every split with what the unedited model gets on it."""
        return replace(self, before=float(unedited.accuracy("b")[0]))

    def admissible(self, tally: rledit.Tally) -> Tensor:
        """Which candidates may be chosen at all, bool [N]."""
        return tally.accuracy("b") >= self._unedited() - self.budget - 1e-9

    def check(self, samples: rledit.Samples) -> None:
        """Refuse samples that lack a group, before anything is trained."""
        for group in ("all", "a", "b"):
            if group not in samples.groups:
                raise ValueError(f"objective: GapWithinBudget needs a group {group!r}")

    def metrics(self, tally: rledit.Tally) -> dict[str, Tensor]:
        """What history and progress show."""
        return {"accuracy": tally.accuracy("all"), "gap": self._gap(tally)}

    def _gap(self, tally: rledit.Tally) -> Tensor:
        return (tally.accuracy("a") - tally.accuracy("b")).abs()

    def _unedited(self) -> float:
        if self.before is None:
            raise ValueError("objective: GapWithinBudget compares with the unedited model")
        return self.before


def make_split(count: int, share_of_a: float, generator: torch.Generator) -> rledit.Samples:
    """Four classes, and two groups that differ by an offset of their inputs."""
    fixed = torch.Generator().manual_seed(0)
    centers, offset = torch.randn(4, 16, generator=fixed), 2 * torch.randn(16, generator=fixed)
    labels = torch.randint(4, (count,), generator=generator)
    in_a = torch.rand(count, generator=generator) < share_of_a
    inputs = centers[labels] + in_a[:, None] * offset + torch.randn(count, 16, generator=generator)
    everyone = torch.ones(count, dtype=torch.bool)
    groups = {"all": everyone, "a": in_a, "b": ~in_a} if share_of_a else {"all": everyone}
    return rledit.Samples(inputs, labels, groups)


def pretrain(samples: rledit.Samples) -> nn.Module:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    inputs = torch.cat(list(samples.batches()))
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), samples.labels).backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    train, reward, validation = (make_split(2000, share, generator) for share in (0.0, 0.5, 0.5))
    model = pretrain(train)
    for title, objective in (("function", gap), ("class", GapWithinBudget())):
        task = rledit.Task(model, ["0"], reward, objective, validation=validation)
        result = rledit.PPO(rledit.ShiftWorld(task, num_envs=128, rank=2), seed=0).train(candidates=3_200)
        scorer = task.scorer(split="validation")
        factors = {name: (left[None], right[None]) for name, (left, right) in result.edit.factors.items()}
        for when, tally in (
            ("before", scorer.score({})),
            ("after", scorer.score(factors, world=result.edit.world, scale=result.edit.scale)),
        ):
            shares = ", ".join(f"{group} {tally.accuracy(group).item():.1%}" for group in tally.groups)
            print(f"{title:>8}, {when:>6}: accuracy of {shares}")


if __name__ == "__main__":
    main()
