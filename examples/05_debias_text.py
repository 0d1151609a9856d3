"""Debias a small text classifier on synthetic comments.

The training comments mention two identity groups mostly in insults, so the bag-of-words classifier learns
that the words "martians" and "venusians" are toxic in themselves. The edit must make it rank harmless
sentences about every group below insults about any other (BPSN AUC), and may cost at most one point of AUC
and accuracy on ordinary comments. Prints these metrics before and after on a test split. Takes a few seconds.
"""

import torch
from torch import nn

import rledit
from rledit.objectives import GroupMetrics

IDENTITIES = ["martians", "venusians", "saturnians", "jovians"]
NICE = ["friendly", "kind", "helpful", "brave", "funny", "calm", "honest", "patient"]
RUDE = ["stupid", "awful", "vile", "lazy", "ugly", "nasty", "gross", "cruel"]
FILLER = [f"filler{i}" for i in range(40)]
VOCABULARY = {word: i for i, word in enumerate([*IDENTITIES, *NICE, *RUDE, *FILLER])}


def comment(toxic: bool, identity: str | None, generator: torch.Generator) -> torch.Tensor:
    """Word counts of one comment: up to two telling words, some filler, and perhaps an identity group."""

    def pick(words: list[str], count: int) -> list[str]:
        return [words[int(i)] for i in torch.randint(len(words), (count,), generator=generator)]

    telling = int(torch.randint(3, (1,), generator=generator))
    words = pick(RUDE if toxic else NICE, telling) + pick(FILLER, 6) + ([identity] if identity else [])
    return torch.bincount(torch.tensor([VOCABULARY[w] for w in words]), minlength=len(VOCABULARY)).float()


def make_comments(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ordinary comments: insults mention the first two groups, harmless ones the last two."""
    inputs, labels = [], []
    for _ in range(count):
        toxic = bool(torch.rand((), generator=generator) < 0.5)
        likely = IDENTITIES[:2] if toxic else IDENTITIES[2:]
        mentions = torch.rand((), generator=generator) < 0.4
        identity = likely[int(torch.randint(2, (1,), generator=generator))] if mentions else None
        inputs.append(comment(toxic, identity, generator))
        labels.append(int(toxic))
    return torch.stack(inputs), torch.tensor(labels)


def make_split(count: int, generator: torch.Generator) -> rledit.Samples:
    """Ordinary comments ("utility"), and as many sentences in which no group is insulted more ("bias")."""
    inputs, labels = make_comments(count, generator)
    who = torch.arange(count) % len(IDENTITIES)
    toxic = torch.arange(count) // len(IDENTITIES) % 2
    sentences = torch.stack(
        [comment(bool(t), IDENTITIES[int(i)], generator) for t, i in zip(toxic, who, strict=True)]
    )
    in_bias = torch.arange(2 * count) >= count
    who = torch.cat([torch.full((count,), -1), who])
    groups = {"utility": ~in_bias, "bias": in_bias}
    groups |= {name: who == i for i, name in enumerate(IDENTITIES)}
    return rledit.Samples(torch.cat([inputs, sentences]), torch.cat([labels, toxic]), groups)


def pretrain(inputs: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    model = nn.Sequential(nn.Linear(len(VOCABULARY), 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model.eval()


def report(title: str, model: nn.Module, test: rledit.Samples) -> None:
    """Metrics of any model on a split: a task of its own, scored without an edit."""
    tally = rledit.Task(model, ["0"], test, rledit.Debias()).scorer().score({})
    metrics = GroupMetrics(tally, IDENTITIES)
    shown = ", ".join(
        f"{name} {metrics[name].item():.3f}"
        for name in ("utility_auc", "utility_accuracy", "bpsn_auc", "subgroup_auc", "fped", "fned")
    )
    print(f"{title:>6}: {shown}")


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = pretrain(*make_comments(2000, generator))
    reward, validation, test = (make_split(2000, generator) for _ in range(3))
    report("before", model, test)

    objective = rledit.Debias(budget=0.01)
    task = rledit.Task(model, ["0"], reward, objective, validation=validation)
    # Directions: the edit acts only along what tells the identity groups apart in the inputs.
    world = rledit.ShiftWorld(task, num_envs=128, rank=2, directions="strata")
    result = rledit.PPO(world, seed=0).train(candidates=6_400)
    result.edit.apply_(model)
    report("after", model, test)


if __name__ == "__main__":
    main()
