"""``tally_features``: what fresh probes on the candidates' features still know, counted per group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .counts import check_samples
from .logistic import logistic_weights, standardized
from .probe import PROBE_PARTS, RIDGE, Classifier, check_classifier, check_fit, check_fit_shape

SCHEMA = (
    "(Tensor features, Tensor labels, Tensor groups, Tensor fit, float ridge, str[] wanted) -> "
    "(Tensor recalled, Tensor nearest)"
)

LARGEST = 2.0**40
SMALLEST = 2.0**-40
"""Features that a probe can be trusted with: beyond the one the core's float32 sums overflow, and differences
that are all below the other, though not zero, vanish in them."""

WIDENED_BYTES = 32 << 20
"""Bytes of features that the reference holds in float64 at a time."""


def tally_features_ref(
    features: Tensor,  # [N, S, D] floating
    labels: Tensor,  # [S] int64, at least 0
    groups: Tensor,  # [G, S] bool, G <= 64
    fit: Tensor,  # [S] bool
    ridge: float,
    wanted: Sequence[str],
    classifier: Classifier = "ridge",
) -> tuple[Tensor, Tensor]:
    """Teach probes on the samples in ``fit`` and count, per group, which of the others they know.

    With features h and one-hot targets y of n fit samples, their means m and p, A = sum (h - m)(h - m)^T and
    B = sum (h - m)(y - p)^T, the **ridge probe** (A. Hoerl and R. Kennard, Technometrics 12, 1970) predicts
    the class with the largest score in

        p + W^T (h - m),    W = (A + ridge * tr(A) / D * I)^-1 B,

    which minimizes sum |W^T h + b - y|^2 + ridge * tr(A) / D * |W|^2 over W and an unpenalized bias b. The
    penalty is relative to the features' scale, so that features that are merely scaled down count the same.
    Where all fit samples have the same features, W is 0.

    With ``classifier="logistic"`` the class is instead that of multinomial logistic regression on features in
    units of their standard deviations, the penalty being ``ridge``, in float32:
    :func:`rledit.ops.logistic.logistic_weights`. Least squares can overlook a class that lies between others
    (T. Hastie et al., The Elements of Statistical Learning, 2009, section 4.2); this one does not.

    The **nearest class mean** of a sample is that of the class whose fit samples' mean is at the least
    Euclidean distance. A class without fit samples has none.

    Of equal scores or distances the first class wins. A candidate counts as badly as can be, with all judged
    samples, where a feature of any sample is not finite or beyond 2^40, where the fit samples' features
    differ but by less than 2^-40, or where A + ridge * tr(A) / D * I is not positive definite: a network that
    has blown up must not look as if it had forgotten.

    Returns:
        recalled and nearest, int64 [N, G], of the samples not in ``fit``; [0] where not wanted.

    Raises:
        ValueError: for shapes that do not fit, negative labels, no samples to learn from, a ridge that is not
            positive, or an unknown part.
    """
    check_features(features, labels, groups, fit, ridge, wanted)
    check_fit(fit, features.shape[1])
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels: expected values of at least 0, got {int(labels.min())}")
    classes = int(labels.max()) + 1 if len(labels) else 1
    return FeatureTally(labels, groups, fit, classes, classifier).count(features, ridge, wanted)


class FeatureTally:
    """Samples parted into those that are learned from and those that are judged, for :meth:`count`, which
    reads no values and so never waits for a GPU.

    Args:
        labels: int64 [S] in 0..classes-1.
        groups: bool [G, S].
        fit: bool [S].
        classifier: what ``recalled`` is counted by.

    Raises:
        ValueError: for an unknown classifier.
    """

    def __init__(
        self,
        labels: Tensor,
        groups: Tensor,
        fit: Tensor,
        classes: int,
        classifier: Classifier = "ridge",
    ) -> None:
        check_classifier(classifier)
        self._solve = self._ridge if classifier == "ridge" else self._logistic
        self._fit = fit.nonzero()[:, 0]
        self._judged = (~fit).nonzero()[:, 0]
        self._targets = F.one_hot(labels[self._fit], classes).double()  # [n, C]
        self._labels = labels[self._judged]
        self._groups = groups[:, self._judged].double()  # [G, J]

    def count(self, features: Tensor, ridge: float, wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        """See :func:`tally_features_ref`."""
        none = features.new_empty(0, dtype=torch.int64)
        parts = [self._count(some, ridge, wanted) for some in _blocks(features)]
        recalled, nearest = (torch.cat(part) for part in zip(*parts, strict=True))
        return recalled if "recalled" in wanted else none, nearest if "nearest" in wanted else none

    def _count(self, features: Tensor, ridge: float, wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        usable = (features.abs() <= LARGEST).flatten(1).all(1)  # False for NaN
        h = torch.where(usable[:, None, None], features, 0).double()
        learned, judged = h[:, self._fit], h[:, self._judged]  # [N, n, D], [N, J, D]
        # Relative to one of them, constant features are exactly 0.
        pivot = learned[:, :1]
        learned, judged = learned - pivot, judged - pivot
        spread = learned.abs().flatten(1).max(1).values if learned.numel() else usable.double()
        usable = usable & ((spread == 0) | (spread >= SMALLEST))
        mean = learned.mean(1, keepdim=True)
        learned, judged = learned - mean, judged - mean
        counts = []
        for part in PROBE_PARTS:
            if part not in wanted:
                counts.append(torch.empty(0, dtype=torch.int64, device=features.device))
                continue
            scores, sound = (
                self._solve(learned, judged, ridge) if part == "recalled" else self._means(learned, judged)
            )
            hits = (scores.argmax(-1) == self._labels) | ~(usable & sound)[:, None]  # [N, J]
            counts.append((hits.double() @ self._groups.T).to(torch.int64))
        return counts[0], counts[1]

    def _ridge(self, learned: Tensor, judged: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Scores [N, J, C] from centered features, and whether they could be computed, [N]."""
        moments = learned.mT @ learned  # [N, D, D]
        penalty = ridge * moments.diagonal(dim1=1, dim2=2).mean(1)
        identity = torch.eye(moments.shape[1], dtype=moments.dtype, device=moments.device)
        moments = moments + torch.where(penalty > 0, penalty, 1.0)[:, None, None] * identity
        factor, info = torch.linalg.cholesky_ex(moments)
        weights = torch.cholesky_solve(learned.mT @ self._targets, factor)  # [N, D, C]
        return judged @ weights + self._targets.mean(0), info == 0

    def _logistic(self, learned: Tensor, judged: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """The same of logistic regression."""
        seen, unseen = standardized(learned.float(), judged.float())
        weights = logistic_weights(seen, self._targets.float(), penalty)
        return unseen @ weights, weights.isfinite().flatten(1).all(1)

    def _means(self, learned: Tensor, judged: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [N, J, C] that are the larger the nearer a class mean is, and that they could be
        computed."""
        sizes = self._targets.sum(0)  # [C]
        means = (self._targets.T @ learned) / sizes.clamp(min=1)[:, None]  # [N, C, D]
        scores = judged @ means.mT - means.square().sum(-1)[:, None] / 2
        return torch.where(sizes > 0, scores, -torch.inf), learned.new_ones(len(learned), dtype=torch.bool)


def _blocks(features: Tensor) -> Iterator[Tensor]:
    each = max(1, features[0].numel() * 8) if len(features) else 1
    at_once = max(1, WIDENED_BYTES // each)
    for start in range(0, max(1, len(features)), at_once):
        yield features[start : start + at_once]


def tally_features(
    features: Tensor,
    labels: Tensor,
    groups: Tensor,
    fit: Tensor,
    ridge: float = RIDGE,
    wanted: Sequence[str] = PROBE_PARTS,
) -> tuple[Tensor, Tensor]:
    """The registered op: :func:`tally_features_ref`, in C++ for float32 CPU tensors."""
    recalled, nearest = torch.ops.rledit.tally_features(features, labels, groups, fit, ridge, wanted)
    return recalled, nearest


def check_features(
    features: Tensor, labels: Tensor, groups: Tensor, fit: Tensor, ridge: float, wanted: Sequence[str]
) -> None:
    """Raise ValueError for shapes that do not fit, or parts that cannot be counted. Reads no values."""
    if features.dim() != 3 or features.shape[2] < 1:
        raise ValueError(f"features: expected shape [N, S, D], D at least 1, got {list(features.shape)}")
    check_samples(labels, groups, features.shape[1])
    check_fit_shape(fit, features.shape[1])
    if not 0 < ridge < float("inf"):
        raise ValueError(f"ridge: expected a positive number, got {ridge}")
    for part in wanted:
        if part not in PROBE_PARTS:
            raise ValueError(f"wanted: expected some of {', '.join(PROBE_PARTS)}; got {part!r}")


def _fake(
    features: Tensor, labels: Tensor, groups: Tensor, fit: Tensor, ridge: float, wanted: Sequence[str]
) -> tuple[Tensor, Tensor]:
    check_features(features, labels, groups, fit, ridge, wanted)
    recalled, nearest = (
        features.new_empty(
            (features.shape[0], groups.shape[0]) if part in wanted else (0,), dtype=torch.int64
        )
        for part in PROBE_PARTS
    )
    return recalled, nearest


torch.library.define("rledit::tally_features", SCHEMA)
torch.library.register_fake("rledit::tally_features", _fake)
