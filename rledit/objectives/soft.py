"""Soft counterparts of what is counted: differentiable, for searches that follow a slope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from ..ops.logistic import logistic_weights, standardized
from ..ops.probe import RIDGE, halves

PROBE_STEPS = 24
"""Steps of a probe that is differentiated: half as many as of one that is counted, in half the time."""
PROBE_SHARPNESS = 2.0
"""Sharpness of the sigmoid that stands for "recalled", per nat of log-odds."""
MEAN_SHARPNESS = 4.0
"""The same per mean squared distance from the nearest class mean."""
LOSS_SHARPNESS = 2.0
"""The same per nat between two losses."""
ANSWER_SHARPNESS = 8.0
"""Sharpness of the sigmoid that stands for "answered wrongly", per unit of logits."""
ANSWER_LEAD = 0.3
"""The lead of the right label at which an answer counts as half wrong: right by less is not yet safe."""


class SoftTally:
    """Soft results of N candidates on some samples, for :meth:`rledit.Objective.soft`.

    Every figure is floating [N], differentiable in logits and features.

    Args:
        logits: floating [N, S, C].
        features: what the head reads, floating [N, S, D]; None where it is not needed.
        labels: int64 [S].
        groups: bool [S] masks by name; none of them empty.
        fit: bool [S], what probes learn from; by default :func:`rledit.ops.halves`.
    """

    def __init__(
        self,
        logits: Tensor,
        features: Tensor | None,
        labels: Tensor,
        groups: Mapping[str, Tensor],
        fit: Tensor | None = None,
    ) -> None:
        self.logits = logits
        self.features = features
        self.labels = labels
        self.groups = dict(groups)
        self._fit = fit

    def cross_entropy(self, group: str) -> Tensor:
        """Mean over the group, in nats: an accuracy to be kept."""
        return self._mean(self._losses(), group)

    def stratified_cross_entropy(self, groups: Sequence[str]) -> Tensor:
        """Mean over the samples of each label of each group, then over labels and groups, in nats: groups
        and labels weigh alike, whatever their sizes. Those that a batch lacks are left out."""
        classes = self.logits.shape[-1]
        strata = torch.stack([self._rows(group) for group in groups])[:, None] & (
            self.labels == torch.arange(classes, device=self.labels.device)[:, None]
        )  # [G, C, S]
        sizes = strata.sum(-1)
        shares = strata[sizes > 0] / sizes[sizes > 0][:, None]  # [strata, S]
        return self._losses() @ shares.mean(0).to(self.logits.dtype)

    def error_rates(self, groups: Sequence[str], label: int) -> Tensor:
        """About the share of each group's samples of a label that are answered otherwise, floating [N, G]; on
        the safe side, see :data:`ANSWER_LEAD`. 0 for a group of which a batch has no such samples."""
        own, others = _own_and_others(self.logits, self.labels)
        errors = (ANSWER_SHARPNESS * (ANSWER_LEAD - (own - others.amax(-1)))).sigmoid()
        asked = torch.stack([self._rows(group) & (self.labels == label) for group in groups])  # [G, S]
        shares = asked.to(errors.dtype) / asked.sum(1, keepdim=True).clamp(min=1)
        return errors @ shares.T

    def unlikelihood(self, group: str) -> Tensor:
        """Mean of -log(1 - p) of the label's probability p, in nats: an accuracy to be brought down. (S.
        Welleck et al., "Neural Text Generation with Unlikelihood Training", arXiv:1908.04319, equation 2.)"""
        _, others = _own_and_others(self.logits, self.labels)
        return self._mean(self.logits.logsumexp(-1) - others.logsumexp(-1), group)

    def probe_recall(self, group: str) -> Tensor:
        """About the share of the group that logistic regression on the features recalls, learned from every
        second sample of a stratum and judged by the others, whatever :attr:`rledit.Objective.classifier`
        says: it is the stronger of the two."""
        features, targets, fit = self._learning
        seen, unseen = standardized(features[:, fit], features[:, ~fit])
        scores = unseen @ logistic_weights(seen, targets[fit], RIDGE, PROBE_STEPS)
        return self._recall(PROBE_SHARPNESS * scores, group, fit)

    def nearest_recall(self, group: str) -> Tensor:
        """The same by the nearest class mean."""
        features, targets, fit = self._learning
        sizes = targets[fit].sum(0)  # [C]
        means = targets[fit].T @ features[:, fit] / sizes.clamp(min=1)[:, None]  # [N, C, D]
        distances = torch.cdist(features[:, ~fit], means).square()  # [N, J, C]
        distances = distances.masked_fill(sizes == 0, torch.inf)
        unit = distances.detach().amin(-1).mean(-1).clamp(min=torch.finfo(distances.dtype).tiny)
        return self._recall(-MEAN_SHARPNESS * distances / unit[:, None, None], group, fit)

    def membership_auc(self, members: str, others: str) -> Tensor:
        """About the share of pairs in which the member has the lower loss: odds are compared, as in the
        counts, which keep their precision where the network is sure."""
        own, rest = _own_and_others(self.logits, self.labels)
        odds = rest.logsumexp(-1) - own  # a loss is log(1 + exp(odds))
        lower, higher = odds[:, self._rows(members)], odds[:, self._rows(others)]
        return (LOSS_SHARPNESS * (higher[:, None] - lower[:, :, None])).sigmoid().mean((1, 2))

    def _losses(self) -> Tensor:
        """The samples' losses, [N, S]."""
        labels = self.labels.expand(self.logits.shape[:2])
        return F.cross_entropy(self.logits.transpose(1, 2), labels, reduction="none")

    def _mean(self, values: Tensor, group: str) -> Tensor:
        return values[:, self._rows(group)].mean(1)

    def _rows(self, group: str) -> Tensor:
        if group not in self.groups:
            raise ValueError(f"group: expected one of {', '.join(self.groups)}; got {group!r}")
        return self.groups[group]

    @cached_property
    def _learning(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features, one-hot targets, and which samples are learned from."""
        if self.features is None:
            raise ValueError(
                "soft: it reads features, which are made for objectives that need recalled or nearest alone"
            )
        targets = F.one_hot(self.labels, self.logits.shape[-1]).to(self.features.dtype)
        fit = self._fit
        if fit is None:
            fit = halves(self.labels, torch.stack(list(self.groups.values())))
        return self.features, targets, fit

    def _recall(self, scores: Tensor, group: str, fit: Tensor) -> Tensor:
        """The share of the group's judged samples whose label scores highest [N, J, C], each by a sigmoid of
        its lead."""
        judged = self._rows(group)[~fit]
        own, others = _own_and_others(scores[:, judged], self.labels[~fit][judged])
        return (own - others.amax(-1)).sigmoid().mean(-1)


def _own_and_others(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labels' scores [N, S] among [N, S, C], and all scores with -inf in place of the labels'."""
    own = scores.gather(-1, labels.expand(scores.shape[:2])[..., None])[..., 0]
    label = F.one_hot(labels, scores.shape[-1]).bool()
    return own, scores.masked_fill(label, -torch.inf)
