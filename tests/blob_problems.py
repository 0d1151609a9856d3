"""Problems of separable blobs, trained in a moment."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

import rledit
from rledit.methods import UnlearningProblem
from rledit.zoo.training import Hyperparameters, train_classifier

CLASSES = 4
TRAINING = Hyperparameters(epochs=3, batch_size=32, learning_rate=1e-2)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def build_with_modes() -> nn.Module:
    """A network that behaves otherwise in train mode, and draws from torch's global state there."""
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, CLASSES)
    )


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs [count, 8] around four orthogonal centers, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return 2 * torch.eye(8)[labels] + 0.3 * torch.randn(count, 8, generator=generator), labels


def make_problem(
    forget: tuple[int, ...] = (1,), build_model: object = build, seed: int = 0, train: int = 480
) -> tuple[UnlearningProblem, rledit.Samples]:
    """A problem and its test samples. Without classes, every tenth sample is to be forgotten."""
    assert callable(build_model)

    def samples(count: int, seed: int) -> rledit.Samples:
        inputs, labels = blobs(count, seed)
        if forget:
            return rledit.Samples(inputs, labels, rledit.forget_groups(labels, forget))
        chosen = torch.arange(count) % 10 == 0
        return rledit.Samples(inputs, labels, {"forget": chosen, "retain": ~chosen})

    inputs, labels = blobs(train, seed)
    torch.manual_seed(seed)
    model = build_model()
    train_classifier(model, inputs, labels, seed=seed, **dataclasses.asdict(TRAINING))
    problem = UnlearningProblem(
        model=model.eval(),
        train=samples(train, seed),
        reward=samples(160, seed + 1),
        validation=samples(160, seed + 2),
        classes=CLASSES,
        targets=tuple(name for name, part in model.named_modules() if isinstance(part, nn.Linear)),
        forget=forget,
        build=build_model,
        training=TRAINING,
    )
    return problem, samples(200, seed + 3)


def accuracies(model: nn.Module, samples: rledit.Samples) -> tuple[float, float]:
    """Forget and retain accuracy."""
    with torch.no_grad():
        hits = model(samples.head(len(samples))).argmax(1) == samples.labels
    forget, retain = (float(hits[samples.groups[name]].double().mean()) for name in ("forget", "retain"))
    return forget, retain
