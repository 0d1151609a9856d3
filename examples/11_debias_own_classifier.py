"""Debias a classifier of your own, here a small network on a table of incomes.

The past decisions that it learned from were unfair: of equally able people, women and black people were
hired less often. Later outcomes are known, too, and there the network errs more for these groups, and most
for who belongs to both. One call edits its first layer so that error rates of all groups of sex and race,
and of their intersections, come closer. Prints them before and after, on rows that played no part in it.
Takes a few seconds.
"""

import numpy as np
import torch
from torch import nn

import rledit

ASKED = {"fpr.worst": 0.15, "fnr.worst": 0.02}  # more people get a chance: false positives may rise
COLUMNS = ["ability", "years", "hours", "is_female", "is_black"]


def people(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A table [S, 5], who really does well, and the columns of the protected attributes."""
    numbers = np.random.default_rng(seed)
    female, black = numbers.random((2, count)) < [[0.5], [0.3]]
    ability, years, hours = numbers.normal(size=(3, count))
    well = ability + 0.5 * years + 0.3 * hours + 0.4 * numbers.normal(size=count) > 0
    table = np.stack([ability, years, hours, female, black], 1).astype(np.float32)
    attributes = {"sex": np.where(female, "female", "male"), "race": np.where(black, "black", "white")}
    return table, well.astype(int), attributes


def pretrain() -> nn.Module:
    """A network with one logit, taught by decisions that held sex and race against people."""
    table, well, _ = people(4000, seed=1)
    harsh = 0.7 * table[:, 3] + 0.7 * table[:, 4]
    hired = torch.from_numpy((well - harsh > 0.5 * np.random.default_rng(2).random(4000)).astype(np.float32))
    model = nn.Sequential(nn.Linear(len(COLUMNS), 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    inputs = torch.from_numpy(table)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(inputs).squeeze(1), hired).backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    torch.manual_seed(0)
    model = pretrain()
    table, well, attributes = people(4000, seed=3)
    groups = rledit.intersections(attributes)  # female, male, black, white, "female & black" and so on

    result = rledit.debias(
        model,
        torch.from_numpy,  # from rows of the table to what the model is called with
        (table, well, groups),
        targets=["0"],
        objective=rledit.Debias(bias={"fned": 0.5, "fped": 0.5}, budget=0.01, budgets=ASKED),
        candidates=3_840,
    )
    test = result.metrics["test"]
    for when in ("before", "after"):
        figures = test[when]
        rates = ", ".join(
            f"{name} {100 * group['false_negative_rate']:.0f}%"
            for name, group in figures["per_group"].items()
            if name in ("male", "female", "female & black")
        )
        print(f"{when:>6}: accuracy {100 * figures['accuracy']:.1f}%, false negatives: {rates}")
    edited = result.apply()  # a copy; result.edit.apply_(model) edits the model itself
    same = torch.equal(edited[2].weight, model[2].weight)
    print(f"only layer 0 differs: {same and not torch.equal(edited[0].weight, model[0].weight)}")


if __name__ == "__main__":
    main()
