"""A probe: a fresh classifier that learns from the features of some samples and is judged by the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..checks import positive

PROBE_PARTS = ("recalled", "nearest")
"""What a probe counts, some of :data:`rledit.ops.TALLY_PARTS`."""

RIDGE = 1e-3
"""The usual penalty of a probe, see :func:`rledit.ops.tally_features_ref`."""

Classifier: TypeAlias = Literal["ridge", "logistic"]
CLASSIFIERS: tuple[Classifier, ...] = get_args(Classifier)
"""What ``recalled`` may be counted by. The ridge probe is solved at once, and the core knows it; logistic
regression takes dozens of steps, sees more, and is counted in PyTorch everywhere."""


def check_classifier(classifier: str) -> None:
    """Raise ValueError unless it is one of :data:`CLASSIFIERS`."""
    if classifier not in CLASSIFIERS:
        raise ValueError(f"classifier: expected one of {', '.join(CLASSIFIERS)}; got {classifier!r}")


@dataclass(frozen=True, eq=False)
class Probe:
    """Which samples a probe learns from; it is judged by the others.

    Attributes:
        fit: bool [S], the samples to learn from. See :func:`halves`.
        ridge: the penalty: of the ridge probe in mean variances of a feature, of logistic regression on
            standardized features.
        classifier: what ``recalled`` is counted by, one of :data:`CLASSIFIERS`.

    Raises:
        ValueError: for a mask of another shape or dtype, a ridge that is not a finite number above 0, or an
            unknown classifier.
    """

    fit: Tensor
    ridge: float = RIDGE
    classifier: Classifier = "ridge"

    def __post_init__(self) -> None:
        if self.fit.dim() != 1 or self.fit.dtype != torch.bool:
            raise ValueError(f"fit: expected bool [S], got {self.fit.dtype} {list(self.fit.shape)}")
        object.__setattr__(self, "ridge", positive("ridge", self.ridge))
        check_classifier(self.classifier)

    def judged(self, groups: Tensor) -> Tensor:
        """How many samples of each group are judged, int64 [G], from groups [G, S]: what the counts are out
        of."""
        return (groups & ~self.fit).sum(1)


def halves(labels: Tensor, groups: Tensor | None = None) -> Tensor:
    """Every second sample of each label, the first among them: bool [S], for :attr:`Probe.fit`.

    So each class is learned from as many samples as it is judged by, or one more. The same for the same
    labels.

    Args:
        labels: int64 [S].
        groups: bool [G, S]; then every second sample of each label within the same groups (stratum).
    """
    return places(strata(labels, groups)) % 2 == 0


def strata(labels: Tensor, groups: Tensor | None = None) -> Tensor:
    """Which stratum each sample is of, int64 [S]: its label within the same groups, counted from 0.

    Args:
        labels: int64 [S].
        groups: bool [G, S]; without them a stratum is a label.
    """
    keys = labels[None] if groups is None else torch.cat([labels[None], groups.to(labels.dtype)])
    stratum: Tensor = torch.unique(keys, dim=1, return_inverse=True)[1]
    return stratum


def places(stratum: Tensor) -> Tensor:
    """How many of the same stratum come before each sample, int64 [S]."""
    order = stratum.argsort(stable=True)
    sizes = torch.bincount(stratum)
    first = (sizes.cumsum(0) - sizes)[stratum[order]]  # where each one's stratum begins in the order
    place = torch.empty_like(stratum)
    place[order] = torch.arange(len(stratum), device=stratum.device) - first
    return place


def check_fit(fit: Tensor, samples: int) -> None:
    """Raise ValueError unless there are samples to learn from. Reads values, so it waits for a GPU."""
    check_fit_shape(fit, samples)
    if samples and not bool(fit.any()):
        raise ValueError(f"fit: expected at least one of {samples} samples to learn from, got none")


def check_fit_shape(fit: Tensor, samples: int) -> None:
    """Raise ValueError unless the mask is bool [S]."""
    if fit.shape != (samples,) or fit.dtype != torch.bool:
        raise ValueError(f"fit: expected bool [{samples}], got {fit.dtype} {list(fit.shape)}")
