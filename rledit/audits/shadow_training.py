"""Shadow models for the likelihood ratio attack, trained here: each on a random half of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

from ..checks import integer
from ..runtime import plain_modes, seeded
from ..samples import Samples
from ..zoo.training import Hyperparameters, train_classifier
from .readings import selected
from .shadow_models import shadow_confidences

FEWEST = 6
"""The fewest models: with less, an attack on one leaves fewer than two others with, or without, a sample."""

Forget = Callable[[nn.Module, Tensor], nn.Module]
"""A function from a trained model and its members, bool [S], to the model after it was made to forget. What
it is to forget must not depend on the members. Non-members were never seen: perfect forgetting looks like
them."""


def train_shadow_models(
    build: Callable[[], nn.Module],
    training: Hyperparameters,
    samples: Samples,
    models: int = 16,
    *,
    forget: Forget | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Confidences of models that were each trained on a random half of the samples.

    Every sample is in exactly half of the models, as in N. Carlini et al., "Membership Inference Attacks From
    First Principles", IEEE S&P 2022, section IV-C; with ``forget`` the models are those of U-LiRA (J. Hayes
    et al., arXiv:2403.01218): trained, and then made to forget. One model is held at a time.

    Args:
        build: makes a new network with random weights; called with torch's global generator seeded, whose
            state is restored afterwards.
        training: as the model that is attacked was trained.
        samples: S samples that it was trained on, or might have been; their groups do not matter.
        models: M, how many to train; even, at least 6. The more, the stronger the attack: Carlini et al. take
            up to 256.
        forget: makes each model forget; None attacks trained models as they are.
        seed: seed of the halves, the networks and their training.

    Returns:
        Scaled confidences, float64 [M, S], and membership, bool [M, S], for
        :func:`~rledit.audits.likelihood_ratio_attack`, or with the confidences of another model for
        :func:`~rledit.audits.likelihood_ratios`.

    Raises:
        TypeError: if ``build`` or ``forget`` gives something other than a module.
        ValueError: for an odd number of models or less than 6, or less than 2 samples.
        TypeError, ValueError, FloatingPointError: as :func:`rledit.zoo.training.train_classifier`.
    """
    if integer("models", models) < FEWEST or models % 2:
        raise ValueError(f"models: expected an even number of at least {FEWEST}, got {models}")
    if len(samples) < 2:
        raise ValueError(f"samples: expected at least 2, got {len(samples)}")
    generator = torch.Generator().manual_seed(seed)
    membership = torch.rand(models, len(samples), generator=generator).argsort(0) < models // 2
    seeds = torch.randint(2**31, (models,), generator=generator).tolist()

    def make(number: int) -> tuple[nn.Module, Tensor]:
        members = membership[number]
        inputs = selected(samples, members)
        with plain_modes(grad=True):
            with seeded(seeds[number], inputs.device):
                model = _module("build", build()).to(inputs.device)
            labels = samples.labels[members].to(inputs.device)
            train_classifier(model, inputs, labels, seed=seeds[number], **asdict(training))
            model.eval()
            if forget is not None:
                model = _module("forget", forget(model, members.clone()))
        return model, members

    return shadow_confidences(make, models, samples)


def _module(argument: str, made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise TypeError(f"{argument}: expected it to give a torch.nn.Module, got {type(made).__name__}")
    return made
