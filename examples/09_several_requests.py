"""Forget several classes one after another, and take one of the edits back later.

Requests to forget come one at a time. Each edit is learned on top of those before, with the classes of
earlier requests still in the group to forget, so that they do not come back. A ledger keeps the edits; one of
them is removed, and what is left is, bit for bit, what the others give on the original model. Takes half a
minute.
"""

import copy

import torch
from torch import nn

import rledit
from rledit.edits import forget_in_turn

REQUESTS = [3, 7, 1]


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


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    train, reward, validation, test = (make_data(2000, generator) for _ in range(4))
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    pretrain(model, *train)

    def make_edit(edited: nn.Module, classes: tuple[int, ...]) -> rledit.Edit:
        """Of the model as it is now; all classes that were asked for so far are to be forgotten."""
        splits = [
            rledit.Samples(inputs, labels, rledit.forget_groups(labels, classes))
            for inputs, labels in (reward, validation)
        ]
        task = rledit.Task(edited, ["2"], splits[0], rledit.Unlearning(), validation=splits[1])
        return rledit.PPO(rledit.MaskWorld(task, num_envs=64, rank=4), seed=0).train(candidates=2_560).edit

    # The test split is only read for the table.
    judged = rledit.Samples(*test, {"all": torch.ones(len(test[1]), dtype=torch.bool)})
    done = forget_in_turn(model, REQUESTS, make_edit, judged)
    print(done)

    # The second request is withdrawn. The third edit was learned on top of it, so this asks for permission.
    ledger = done.ledger
    try:
        ledger.remove("forget 7", model)
    except ValueError as error:
        print(f"refused: {str(error)[:60]}...")
    print(ledger.remove("forget 7", model, force=True, samples=judged))

    left, scratch = copy.deepcopy(model), copy.deepcopy(model)
    ledger.apply_to(left)
    for entry in ledger.entries:
        entry.edit.apply_(scratch, force=entry.displaced)
    print(f"left is what the others give, bit for bit: {torch.equal(left[2].weight, scratch[2].weight)}")


if __name__ == "__main__":
    main()
