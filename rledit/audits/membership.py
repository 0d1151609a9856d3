"""Whether a model still tells forgotten samples that it was trained on from others of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..objectives.metric_names import METRIC_DISPLAYS, MetricDisplay
from ..scoring.logits import unsound
from .base import FORGET, AuditData
from .estimates import UNKNOWN, auc, balanced, hit_rate, share
from .readings import read, selected

FALSE_POSITIVES = 0.01

METRIC_DISPLAYS.update(
    membership_auc=MetricDisplay("membership AUC, loss", "membership", direction=0),
    membership_confidence_auc=MetricDisplay("membership AUC, confidence", "confidence", direction=0),
    membership_entropy_auc=MetricDisplay("membership AUC, entropy", "entropy", direction=0),
    membership_true_positive_rate=MetricDisplay(
        "members found at 1% false positives", "members at 1%", percent=True, digits=2, direction=0
    ),
    membership_attack_accuracy=MetricDisplay(
        "accuracy of the membership attack", "attack", percent=True, digits=2, direction=0
    ),
)


@dataclass(frozen=True)
class Membership:
    """Membership inference on the samples to forget.

    Members are the samples to forget that the model was trained on, the others are test samples of the same
    classes. Scores: minus the loss (S. Yeom et al., "Privacy Risk in Machine Learning", IEEE CSF 2018), the
    largest probability, and minus the entropy of the probabilities (A. Salem et al., "ML-Leaks", NDSS 2019).

    Figures: ``membership_auc`` (loss), ``membership_confidence_auc``, ``membership_entropy_auc``; the loss
    attack's true positive rate at 1% false positives, ``membership_true_positive_rate`` (N. Carlini et al.,
    "Membership Inference Attacks From First Principles", IEEE S&P 2022, section III); and
    ``membership_attack_accuracy``: score, threshold and its side are chosen on a half of both kinds, drawn
    from the data's seed, and judged on the other half, where each kind weighs 1/2. An area far below 1/2
    gives members away, too: compare with the retrained network.

    Args:
        whole: ask all samples to forget that the model was trained on, not only those that probes learn from.
    """

    whole: bool = False

    note: ClassVar[str] = (
        "The membership figures say how well samples to forget that the network was trained on can be told "
        "from test samples of their classes: 0.5 is chance, further below tells as much as further above. "
        "The retrained network shows how much the two sets differ by themselves."
    )

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        trained = data.trained if self.whole and data.trained is not None else data.train
        mine = trained.groups.get(FORGET)
        others = (
            torch.zeros(len(data.test), dtype=torch.bool)
            if mine is None
            else torch.isin(data.test.labels, trained.labels[mine].unique())
        )
        if mine is None or not bool(others.any()):
            return dict.fromkeys(_KEYS, UNKNOWN)
        if trained is data.train:
            members = data.read(model, trained).logits[mine]
        else:
            members = read(model, selected(trained, mine), features=False).logits
        inside = scores(members, trained.labels[mine])
        outside = scores(data.read(model, data.test).logits[others], data.test.labels[others])
        areas = [auc(positives, negatives) for positives, negatives in zip(inside, outside, strict=True)]
        rate = hit_rate(inside[0], outside[0], FALSE_POSITIVES)
        attack = _attack(inside, outside, data.seed)
        return dict(zip(_KEYS, [*areas, rate, attack], strict=True))


_KEYS = (
    "membership_auc",
    "membership_confidence_auc",
    "membership_entropy_auc",
    "membership_true_positive_rate",
    "membership_attack_accuracy",
)


def scores(logits: Tensor, labels: Tensor) -> Tensor:
    """How much each sample looks like a member, by loss, confidence and entropy: float64 [3, S].

    Args:
        logits: [S, C], NaN and +inf nowhere.
        labels: int64 [S].

    Raises:
        ValueError: for NaN or +inf.
    """
    if bool(unsound(logits).any()):
        raise ValueError("model: its logits are not numbers")
    log = logits.double().log_softmax(1)
    probabilities = log.exp()
    entropy = -torch.special.xlogy(probabilities, probabilities).sum(1)
    return torch.stack([log.gather(1, labels[:, None])[:, 0], log.max(1).values, -entropy])


def _attack(inside: Tensor, outside: Tensor, seed: int) -> float:
    """Balanced accuracy on one half of what was chosen on the other."""
    generator = torch.Generator().manual_seed(seed)
    halves = []
    for kind in (inside, outside):
        order = torch.randperm(kind.shape[1], generator=generator)
        halves.append((kind[:, order[::2]], kind[:, order[1::2]]))
    (inside, judged_inside), (outside, judged_outside) = halves
    if judged_inside.shape[1] == 0 or judged_outside.shape[1] == 0:
        return UNKNOWN
    best, chosen = -1.0, (0, 0.0, 1)
    for score in range(len(inside)):
        for side in (1, -1):
            accuracy, threshold = _threshold(side * inside[score], side * outside[score])
            if accuracy > best:
                best, chosen = accuracy, (score, threshold, side)
    score, threshold, side = chosen
    found = share(side * judged_inside[score] > threshold)
    left = share(side * judged_outside[score] <= threshold)
    return balanced(found, left)


def _threshold(inside: Tensor, outside: Tensor) -> tuple[float, float]:
    """The best balanced accuracy of "member where above", and the threshold that has it."""
    values = torch.cat([inside, outside]).unique()
    found = 1 - torch.searchsorted(inside.sort().values, values, right=True).double() / len(inside)
    left = torch.searchsorted(outside.sort().values, values, right=True).double() / len(outside)
    at = int((found + left).argmax())
    return float(found[at] + left[at]) / 2, float(values[at])
