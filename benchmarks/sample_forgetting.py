"""Forget single samples: a tenth of the training images of a network that has learned them by heart.

    python -m benchmarks.sample_forgetting --data-root DIR                 # MNIST, three seeds
    python -m benchmarks.sample_forgetting --dataset mnist5k --seeds 1     # few images, no download

The network is trained on a part of the training images without shifting them, for many epochs, so that it
knows them better than others. To have something to learn by heart, a share of all labels is drawn at random,
also of those of images that are never seen (C. Zhang et al., "Understanding deep learning requires rethinking
generalization", ICLR 2017, arXiv:1611.03530). A random tenth of the training images is to be forgotten: the
loss attack (forgotten against never seen) should find no more than in a network retrained without them, and
accuracy should stay. Each row edits other layers, in ShiftWorld, with the same level of membership, by PPO or
by gradients.

Three disjoint sets of never-seen images: of the training set for the reward and for the choice, and the test
images for the table. All images to forget are in the reward and in the choice: what makes a network forget
one does not make it forget another.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import rledit
from rledit.ops import loss_bins, lower_loss_pairs
from rledit.storage.files import read_tensors, write_json, write_tensors
from rledit.zoo import models
from rledit.zoo.data import Dataset, load, split
from rledit.zoo.training import HYPERPARAMETERS, train_classifier

from . import ROOT
from .record import RESULTS, write

LAYERS = {
    "fc1": ("fc1",),
    "fc1, fc2": ("fc1", "fc2"),
    "conv3, fc1, fc2": ("conv3", "fc1", "fc2"),
    "all layers": ("conv1", "conv2", "conv3", "fc1", "fc2"),
}

PENALTY = 30.0
"""Penalty of membership beyond the level: ten times the default, or what is learned by heart weighs more."""


def _ppo(env: Any, seed: int) -> rledit.Result:
    return rledit.PPO(env, seed=seed).train(6_400)


def _gradients(env: Any, seed: int) -> rledit.Result:
    # A step through all convolutions of 2,048 images, the default, would take half an hour per edit.
    batch = 512 if "conv1" in env.engine.task.weights() else 2_048
    return rledit.GradientSearch(env, seed=seed, batch=batch).train(2_200)


SEARCHES: list[tuple[str, int, Callable[[Any, int], rledit.Result], int]] = [
    ("PPO", 4, _ppo, 2),
    ("gradients", 4, _gradients, 4),
    ("gradients", 32, _gradients, 3),
]
"""Name, rank, which is at most what each layer has, search, and for how many of the sets of layers: those of
convolutions take long."""

GROUPS = ("forget", "retain", "test")

Labeled: TypeAlias = tuple[Tensor, Tensor]
"""Inputs and labels."""


@dataclass(frozen=True)
class Images:
    """Disjoint rows of the training set.

    Attributes:
        forget, retain: what the network is trained on.
        unseen: what it is not, for the reward and for the choice.
    """

    forget: Tensor
    retain: Tensor
    unseen: tuple[Tensor, Tensor]


def main(
    dataset: Literal["mnist", "mnist5k"] = "mnist",
    data_root: Path | None = None,
    images: int = 10_000,
    epochs: int = 60,
    noise: float = 0.2,
    seeds: int = 3,
    level: float = 0.52,
    folder: Path = ROOT / "runs" / "sample-forgetting",
) -> None:
    """Measure what is missing, and leave a table.

    Args:
        dataset: mnist needs --data-root (or RLEDIT_DATA, or a download).
        data_root: folder with the data set.
        images: how many the network is trained on; a tenth of them is to be forgotten.
        epochs: epochs of its training.
        noise: share of labels that are drawn anew, among all classes. Test accuracy is of true labels.
        seeds: how many seeds of networks, splits and searches.
        level: the level of membership that edits are held to.
        folder: where what is done is kept.
    """
    loaded = load(dataset, data_root)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        path = folder / f"{dataset}-{images}-{epochs}-{noise}-{level}-{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows += _seed(loaded, path, images, epochs, noise, level, seed)
    whole = dataset == "mnist" and seeds >= 3
    name = f"sample-forgetting-{dataset}" + ("" if whole else "-partial")
    command = (
        f"python -m benchmarks.sample_forgetting --dataset {dataset} --images {images} --epochs {epochs} "
        f"--noise {noise} --seeds {seeds} --level {level}"
    )
    RESULTS.mkdir(exist_ok=True)
    write(name, command, _table(rows, images, epochs, noise), {"rows": rows}, _NOTE.format(level=level))


def _seed(
    loaded: Dataset, path: Path, images: int, epochs: int, noise: float, level: float, seed: int
) -> list[dict[str, Any]]:
    """All rows of one seed; each is kept as soon as it is there, and so are the networks."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    parts = _images(loaded, images, seed)
    inputs = models.normalize(loaded.name, loaded.train.images)
    shown_test = models.normalize(loaded.name, loaded.test.images)
    labels, drawn = (
        _drawn(part.labels, noise, 2 * seed + i) for i, part in enumerate((loaded.train, loaded.test))
    )
    recipe = replace(HYPERPARAMETERS[loaded.name], epochs=epochs, max_shift=0, weight_decay=0.0)

    def shown(rows: Tensor) -> Labeled:
        return inputs[rows], labels[rows]

    asked = {
        "forget": shown(parts.forget),
        "retain": shown(parts.retain),
        "test": (shown_test, loaded.test.labels),
    }

    def keep(model: nn.Module, name: str, **more: Any) -> None:
        row = {
            "name": name,
            "seed": seed,
            **{f"{group}_accuracy": _accuracy(model, *of) for group, of in asked.items()},
            "membership_auc": _membership(model, shown(parts.forget), (shown_test, drawn)),
            **more,
        }
        rows.append(row)
        write_json(path, {"rows": rows})
        Console(stderr=True).print(row, highlight=False)

    def trained(name: str, chosen: Tensor) -> nn.Module:
        torch.manual_seed(seed)
        model = models.build("mnist_cnn")
        weights = path.with_name(f"{path.stem}-{name}.safetensors")
        if weights.exists():
            model.load_state_dict(read_tensors(weights)[0])
            return model.eval()
        started = time.perf_counter()
        train_classifier(model, inputs[chosen], labels[chosen], seed=seed, **asdict(recipe))
        rows[:] = [row for row in rows if row["name"] != name]  # of a run that ended between the two
        keep(model.eval(), name, seconds=time.perf_counter() - started)
        write_tensors(weights, model.state_dict())
        return model

    model = trained("unedited", torch.cat([parts.forget, parts.retain]))
    trained("retrained", parts.retain)
    reward, choice = (_split(inputs, labels, parts, half) for half in (0, 1))
    for search, most, run, sets in SEARCHES:
        for layers, targets in list(LAYERS.items())[:sets]:
            rank = min(most, *(min(model.get_parameter(f"{t}.weight").flatten(1).shape) for t in targets))
            name = f"{layers}, rank {rank}, {search}"
            if any(row["name"] == name for row in rows):
                continue
            # Wrong answers to all of them would tell that they are being hidden.
            objective = rledit.Unlearning(forget_weight=0.0, membership=level, penalty=PENALTY)
            started = time.perf_counter()
            task = rledit.Task(model, targets, reward, objective, choice)
            result = run(rledit.ShiftWorld(task, num_envs=128, rank=rank, final_obs=False), seed)
            seconds = time.perf_counter() - started
            edited = deepcopy(model)
            result.edit.apply_(edited)
            figures: Any = result.edit.metrics["validation"]
            auc = figures["after"]["loss_auc"]
            keep(
                edited,
                name,
                seconds=seconds,
                kept=max(auc, 1 - auc) <= level,
                candidates=result.candidates,
            )
    return rows


def _images(loaded: Dataset, images: int, seed: int) -> Images:
    available = len(loaded.train)
    unseen = min((available - images) // 2, images // 10)
    if unseen < 50:
        raise SystemExit(f"images: expected at most {available - 100} of {available}, got {images}")
    sizes = [images // 10, images - images // 10, unseen, unseen, available - images - 2 * unseen]
    forget, retain, first, second, _ = split(loaded.train.labels, sizes, seed)
    return Images(forget, retain, (first, second))


def _split(inputs: Tensor, labels: Tensor, parts: Images, half: int) -> rledit.Samples:
    """What is to be forgotten, as much that was never seen, and half of what is to be kept."""
    forget, unseen, retain = parts.forget, parts.unseen[half], parts.retain[half::2]
    rows = torch.cat([forget, unseen, retain])
    kind = torch.cat([torch.full((len(part),), i) for i, part in enumerate((forget, unseen, retain))])
    groups = {"forget": kind == 0, "unseen": kind == 1, "retain": kind == 2}
    return rledit.Samples(inputs[rows], labels[rows], groups)


def _drawn(labels: Tensor, noise: float, seed: int) -> Tensor:
    """A share of the labels drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    anew = torch.randint(int(labels.max()) + 1, labels.shape, generator=generator)
    return torch.where(torch.rand(labels.shape, generator=generator) < noise, anew, labels)


def _accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((_logits(model, inputs).argmax(1) == labels).double().mean())


def _membership(model: nn.Module, members: Labeled, others: Labeled) -> float:
    """The AUC of the loss attack."""
    sizes = len(members[1]), len(others[1])
    logits = torch.cat([_logits(model, inputs) for inputs, _ in (members, others)])
    bins = loss_bins(logits[None], torch.cat([members[1], others[1]]))
    mine = torch.arange(sum(sizes)) < sizes[0]
    pairs = lower_loss_pairs(bins, torch.stack([mine, ~mine]))[0]
    return float(pairs[0, 1]) / (2 * sizes[0] * sizes[1])


@torch.no_grad()
def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([model(part) for part in inputs.split(2000)])


_NOTE = (
    "Mean and standard deviation over seeds. Membership AUC: the loss attack, images to forget against test "
    "images; 0.5 finds nothing. Accuracy on forget and retain is of the labels that were trained on. Level "
    "kept: by how many of the edits, on the images that chose them ({level} or as far below 0.5). Seconds: "
    "medians, with the preparation of the task. Gradients of all layers are of 512 samples a step, others of "
    "2,048."
)


def _table(rows: list[dict[str, Any]], images: int, epochs: int, noise: float) -> Table:
    table = Table(
        title=f"Single samples: a tenth of {images:,} images that a network has seen {epochs} times, "
        f"{noise:.0%} of labels drawn at random"
    )
    table.add_column("")
    for header in ("membership AUC", "from retrained", "forget", "retain", "test", "level kept", "seconds"):
        table.add_column(header, justify="right")
    names = list(dict.fromkeys(row["name"] for row in rows))
    retrained = {row["seed"]: row["membership_auc"] for row in rows if row["name"] == "retrained"}
    for name in names:
        mine = [row for row in rows if row["name"] == name]
        apart = [row["membership_auc"] - retrained[row["seed"]] for row in mine]
        kept = [row["kept"] for row in mine if "kept" in row]
        table.add_row(
            name,
            _spread([row["membership_auc"] for row in mine], 4),
            _spread(apart, 4, sign="+"),
            *(_spread([100 * row[f"{group}_accuracy"] for row in mine], 2) for group in GROUPS),
            f"{sum(kept)} of {len(kept)}" if kept else "",
            f"{statistics.median(row['seconds'] for row in mine):.1f}",
        )  # fmt: skip
    return table


def _spread(values: list[float], digits: int, sign: str = "") -> str:
    mean = f"{statistics.fmean(values):{sign}.{digits}f}"
    return mean + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
