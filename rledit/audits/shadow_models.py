"""The strongest membership attack: the likelihood of each sample's confidence, from shadow models.

N. Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022 (LiRA); as an audit of
unlearning, J. Hayes et al., "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of
Privacy", arXiv:2403.01218 (U-LiRA). It needs many models that were trained with and without each sample and
then made to forget it, so no report runs it: :mod:`.shadow_training` trains them for those who can afford it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from ..samples import Samples
from .estimates import Estimate, auc, hit_rate, mean
from .readings import read

LEAST_SPREAD = 1e-6

METRIC_DISPLAYS.update(
    shadow_auc=MetricDisplay("membership AUC, shadow models", "shadow models", direction=0),
    shadow_true_positive_rate=MetricDisplay(
        "members found at 1% false positives, shadow models",
        "shadow models at 1%",
        percent=True,
        digits=2,
        direction=0,
    ),
)


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """log(p / (1 - p)) for the probability p of the label, float64 [S]: Carlini et al., section IV-C, the
    stable form of section VI-A. It is nearly Gaussian over models.

    Args:
        logits: [S, C], C at least 2.
        labels: int64 [S].
    """
    logits = logits.double()
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own[:, 0] - others.logsumexp(1)


def shadow_confidences(
    make: Callable[[int], tuple[nn.Module, Tensor]], models: int, samples: Samples
) -> tuple[Tensor, Tensor]:
    """Confidences of shadow models that are made one after the other, and forgotten again.

    Args:
        make: from a number to a model and its members, bool [S]: for U-LiRA a model that was trained on the
            members and edited to forget all samples, so that non-members were never seen.
        models: M, how many to make.
        samples: S samples that are attacked; their groups do not matter.

    Returns:
        Confidences, float64 [M, S], and membership, bool [M, S], for :func:`likelihood_ratio_attack`.

    Raises:
        ValueError: if the members do not fit the samples.
    """
    confidences, membership = [], []
    for number in range(models):
        model, members = make(number)
        if members.dtype != torch.bool or members.shape != samples.labels.shape:
            raise ValueError(
                f"make: expected members of model {number} as bool [{len(samples)}], got {members.dtype} "
                f"{list(members.shape)}"
            )
        logits = read(model, samples, features=False).logits
        confidences.append(scaled_confidence(logits, samples.labels))
        membership.append(members.cpu())
    return torch.stack(confidences), torch.stack(membership)


def likelihood_ratios(
    target: Tensor, confidences: Tensor, membership: Tensor, *, shared_spread: bool | None = None
) -> Tensor:
    """How much likelier each sample's confidence is if it was a member: log likelihood ratios, float64 [S].

    Algorithm 1 of Carlini et al.: one Gaussian per sample for the models that have it as a member, one for
    those that do not.

    Args:
        target: scaled confidences of the attacked model [S].
        confidences: those of shadow models [M, S].
        membership: bool [M, S].
        shared_spread: take one standard deviation for all samples, as the paper does with fewer than 64
            models (section VI-B); by default, with fewer than 64.

    Raises:
        ValueError: for shapes that do not fit, confidences that are not finite, or a sample that has fewer
            than 2 shadow models with or without it.
    """
    _check(confidences, membership)
    target = target.double()
    if target.shape != confidences.shape[1:] or not bool(target.isfinite().all()):
        raise ValueError(
            f"target: expected finite confidences [{confidences.shape[1]}], got {list(target.shape)}"
        )
    if shared_spread is None:
        shared_spread = len(confidences) < 64
    ratio = torch.zeros_like(target)
    for sign, mask in ((1, membership), (-1, ~membership)):
        count = mask.sum(0)
        if int(count.min()) < 2:
            with_it = "with" if sign > 0 else "without"
            raise ValueError(
                f"membership: expected at least 2 models {with_it} each sample, sample "
                f"{int(count.argmin())} has {int(count.min())}"
            )
        weights = mask.double()
        center = (confidences.double() * weights).sum(0) / count
        squares = ((confidences.double() - center).square() * weights).sum(0)
        variance = squares.sum() / (count - 1).sum() if shared_spread else squares / (count - 1)
        spread = variance.sqrt().clamp(min=LEAST_SPREAD)
        ratio += sign * torch.distributions.Normal(center, spread).log_prob(target)
    return ratio


def likelihood_ratio_attack(
    confidences: Tensor, membership: Tensor, *, shared_spread: bool | None = None
) -> dict[str, Estimate]:
    """The attack on every model in turn, with all others as its shadow models.

    Args:
        confidences: scaled confidences [M, S], see :func:`scaled_confidence`.
        membership: bool [M, S]; each sample in about half of the models.
        shared_spread: see :func:`likelihood_ratios`.

    Returns:
        ``shadow_auc`` and ``shadow_true_positive_rate`` (at 1% false positives), means over attacked models.
        The intervals are those of these means; models that share shadow models are not quite independent.

    Raises:
        ValueError: see :func:`likelihood_ratios`; also where no model has both members and others.
    """
    _check(confidences, membership)
    areas, rates = [], []
    for number in range(len(confidences)):
        inside = membership[number]
        if bool(inside.all()) or not bool(inside.any()):
            continue
        others = torch.arange(len(confidences)) != number
        ratio = likelihood_ratios(
            confidences[number], confidences[others], membership[others], shared_spread=shared_spread
        )
        areas.append(float(auc(ratio[inside], ratio[~inside])))
        rates.append(float(hit_rate(ratio[inside], ratio[~inside], 0.01)))
    if not areas:
        raise ValueError("membership: expected a model with members and others, got none")
    return {
        "shadow_auc": mean(torch.tensor(areas), least=0, most=1),
        "shadow_true_positive_rate": mean(torch.tensor(rates), least=0, most=1),
    }


def _check(confidences: Tensor, membership: Tensor) -> None:
    if confidences.dim() != 2 or membership.dtype != torch.bool or membership.shape != confidences.shape:
        raise ValueError(
            "confidences, membership: expected [models, samples] and bool of the same shape, got "
            f"{list(confidences.shape)} and {membership.dtype} {list(membership.shape)}"
        )
    if not bool(confidences.isfinite().all()):
        raise ValueError("confidences: expected finite numbers")
