"""Unlearning: forget one group, keep another, and keep what an auditor can find below a level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import Classifier, check_classifier, halves
from ..samples import Samples
from ..storage.files import Json
from ..tally import Tally
from .base import Objective
from .metric_names import METRIC_DISPLAYS, MetricDisplay
from .soft import SoftTally

LEVELS = {"probe": "recalled", "nearest": "nearest", "membership": "lower_loss"}
"""What may be held to a level, and the part of the tally that it is counted in."""

METRIC_DISPLAYS.update(
    probe_recall=MetricDisplay(
        "recall of a fresh probe", "fresh probe", percent=True, digits=2, direction=-1
    ),
    nearest_recall=MetricDisplay(
        "recall by the nearest class mean", "nearest mean", percent=True, digits=2, direction=-1
    ),
    loss_auc=MetricDisplay("AUC of the loss attack", "loss attack", direction=0),
)

SOFT_FORGET = 0.1
"""The weight of an unlikelihood, which is unbounded, relative to a cross-entropy that is to stay as it is."""


@dataclass(frozen=True)
class Unlearning(Objective):
    """Forget one group and keep another: ``retain_weight * acc(retain) - forget_weight * acc(forget)``.

    The sum of utility preservation and editing objective of S. Malik, "Reinforcement Learning for Neural
    Model Editing" (arXiv:2606.13461, 2026).

    An accuracy of zero is cheap: suppressing one logit is enough, and the features go on telling the class.
    So what auditors find may be held to a level, each counted anew for every candidate:

    - ``probe``: the share of the forget group that a fresh linear classifier on the features recalls, which
      learns from one half of the samples and is judged on the other (:class:`rledit.ops.Probe`): a ridge
      classifier, or with ``classifier="logistic"`` logistic regression, which is harder to deceive and takes
      several times as long;
    - ``nearest``: the same for the nearest class mean;
    - ``membership``: the AUC of the attack that takes samples of a lower loss for samples that were trained
      on, forget group against ``unseen`` (S. Yeom et al., "Privacy Risk in Machine Learning", CSF 2018). A
      loss that is conspicuously high tells as much, so with a level of 0.55 the AUC is held to 0.45..0.55.

    Levels are a constraint and never traded: the edit that is returned keeps them on the validation split, if
    any does. Only to lead the search there, each excess over a level costs ``penalty`` times as much as
    accuracy, and what lies below a level gains nothing. What a network that never saw the group would show is
    the natural level: :func:`rledit.audits.levels_of`.

    Args:
        forget, retain: names of groups of the samples.
        forget_weight, retain_weight: weights of their accuracies.
        probe, nearest: what may be recalled at most, 0 to 1; None for no such level.
        membership: AUC at most, 0.5 to 1; None for no such level.
        unseen: the group of samples that the model was never trained on, like those of the forget group in
            everything else.
        penalty: penalty of each unit beyond a level.
        classifier: what ``probe`` is counted by, "ridge" or "logistic"; without that level it is of no use.

    Raises:
        ValueError: for a weight that is not finite, a level or penalty out of range, or an unknown
            classifier.
    """

    forget: str = "forget"
    retain: str = "retain"
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    probe: float | None = None
    nearest: float | None = None
    membership: float | None = None
    unseen: str = "unseen"
    penalty: float = 3.0
    classifier: Classifier = "ridge"

    def __post_init__(self) -> None:
        for name, weight in (("forget_weight", self.forget_weight), ("retain_weight", self.retain_weight)):
            if not math.isfinite(weight):
                raise ValueError(f"{name}: expected a finite number, got {weight}")
        for name, least in (("probe", 0.0), ("nearest", 0.0), ("membership", 0.5)):
            level = getattr(self, name)
            if level is not None and not least <= level <= 1:
                raise ValueError(f"{name}: expected a level in {least:g}..1, or None; got {level}")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ValueError(f"penalty: expected a number of at least 0, got {self.penalty}")
        check_classifier(self.classifier)
        parts = {LEVELS[name] for name in self.levels}
        object.__setattr__(self, "needs", frozenset({*type(self).needs, *parts}))

    @property
    def levels(self) -> dict[str, float]:
        """The levels that are set, by name."""
        given = {name: getattr(self, name) for name in LEVELS}
        return {name: level for name, level in given.items() if level is not None}

    @property
    def constrained(self) -> bool:
        return bool(self.levels) or type(self).admissible is not Unlearning.admissible

    @property
    def unedited_admissible(self) -> bool:
        return not self.levels

    def check(self, samples: Samples) -> None:
        """Raise ValueError for a missing group, or one too small to teach a probe and to judge it."""
        needed = [self.forget, self.retain]
        if self.membership is not None:
            needed.append(self.unseen)
        for group in needed:
            if group not in samples.groups:
                raise ValueError(
                    f"objective: Unlearning needs a group {group!r}; the samples have "
                    f"{', '.join(samples.groups)}"
                )
        if (self.probe, self.nearest) != (None, None):
            judged = int((samples.groups[self.forget] & ~halves(samples.labels, samples.masks)).sum())
            if judged == 0:
                raise ValueError(
                    f"groups[{self.forget!r}]: expected at least two samples of a label, since probes learn "
                    "from half of them; got one of each"
                )

    def __call__(self, tally: Tally) -> Tensor:
        value = tally.weigh((self.retain, self.retain_weight), (self.forget, -self.forget_weight))
        return self._punished(value, tally)

    def admissible(self, tally: Tally) -> Tensor | None:
        """Whether every level is kept, bool [N]; None where there is none."""
        if not self.levels:
            return None
        return (torch.stack(self._excesses(tally)) <= 0).all(0)

    def _punished(self, value: Tensor, tally: Tally | SoftTally) -> Tensor:
        """A value [N] less the penalty of each excess."""
        for excess in self._excesses(tally):
            value = value - self.penalty * excess.clamp(min=0)
        return value

    def _found(self, tally: Tally | SoftTally) -> dict[str, Tensor]:
        """What auditors find, each floating [N], by the name of its level."""
        found = {}
        if self.probe is not None:
            found["probe"] = tally.probe_recall(self.forget)
        if self.nearest is not None:
            found["nearest"] = tally.nearest_recall(self.forget)
        if self.membership is not None:
            found["membership"] = tally.membership_auc(self.forget, self.unseen)
        return found

    def _excesses(self, tally: Tally | SoftTally) -> list[Tensor]:
        """Per level: by how much it is exceeded, floating [N]; negative below it."""
        found = self._found(tally)
        if "membership" in found:
            found["membership"] = torch.maximum(found["membership"], 1 - found["membership"])
        return [found[name] - level for name, level in self.levels.items()]

    def soft(self, tally: SoftTally) -> Tensor:
        """``-retain_weight * cross_entropy(retain) - forget_weight / 10 * unlikelihood(forget)``, less
        ``penalty`` times what is soft beyond each level."""
        value = -self.retain_weight * tally.cross_entropy(self.retain)
        value = value - SOFT_FORGET * self.forget_weight * tally.unlikelihood(self.forget)
        return self._punished(value, tally)

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        keys = {"probe": "probe_recall", "nearest": "nearest_recall", "membership": "loss_auc"}
        return {
            "forget_accuracy": tally.accuracy(self.forget),
            "retain_accuracy": tally.accuracy(self.retain),
            **{keys[name]: figure for name, figure in self._found(tally).items()},
        }

    def identity(self) -> dict[str, Json]:
        """Without levels and with the ridge classifier, the identity is that of versions without these
        options, so that old checkpoints still fit."""
        identity = super().identity()
        settings = identity.get("settings")
        if isinstance(settings, dict):
            later = [] if self.levels else [*LEVELS, "unseen", "penalty"]
            if self.classifier == "ridge" or not self.levels:
                later.append("classifier")
            for name in later:
                settings.pop(name, None)
        return identity
