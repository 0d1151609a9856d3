"""The levels that a network which never saw the samples would keep: what an edit can be asked for."""

from __future__ import annotations

from torch import nn

from ..ops import PROBE_PARTS, Classifier, Wanted, backend, halves, loss_bins, lower_loss_pairs
from ..ops import Probe as FeatureProbe
from ..runtime import plain_modes
from ..samples import Samples
from .readings import read


def levels_of(
    reference: nn.Module,
    samples: Samples,
    *,
    forget: str = "forget",
    unseen: str | None = None,
    margin: float = 0.0,
    classifier: Classifier = "ridge",
) -> dict[str, float]:
    """What probes and the loss attack find in a reference network, such as one retrained without the samples.

    The same counts on the same samples as :class:`rledit.Unlearning` makes of every candidate, so they can be
    handed over as its levels::

        from rledit.audits import levels_of

        rledit.Unlearning(**levels_of(retrained, task.samples))

    Args:
        reference: in any mode; it is left as it was.
        samples: those that candidates will be scored on.
        forget: the group that is to be forgotten.
        unseen: the group of samples never trained on; None: the level of membership is left out.
        margin: is added to every level.
        classifier: what the probe is; the objective has to be given the same one.

    Returns:
        "probe" and "nearest", and "membership" with ``unseen``: keyword arguments of ``Unlearning``.

    Raises:
        ValueError: for a group that the samples lack, labels beyond the reference's logits, or a reference
            without a Linear that makes the logits, or whose features are not finite; an unknown classifier.
    """
    for group in (forget,) if unseen is None else (forget, unseen):
        if group not in samples.groups:
            raise ValueError(f"samples: expected a group {group!r}, got {', '.join(samples.groups)}")
    reading = read(reference, samples)
    classes = reading.logits.shape[1]
    if int(samples.labels.max()) >= classes:
        raise ValueError(
            f"reference: expected at least {int(samples.labels.max()) + 1} classes, as there are labels; "
            f"it has {classes}"
        )
    labels, masks = samples.labels.cpu(), samples.masks.cpu()
    row = samples.group_names.index(forget)
    with plain_modes():
        probe = FeatureProbe(halves(labels, masks), classifier=classifier)
        features = reading.features()[None]
        found = backend("reference").prepare_probe(labels, masks, classes, probe)
        counts = found.count(features, Wanted(PROBE_PARTS))
        judged = int(probe.judged(masks)[row])
        if judged == 0:
            raise ValueError(f"samples: expected at least two of a label in {forget!r}, got one of each")
        levels = {
            name: min(1.0, float(count[0, row]) / judged + margin)
            for name, count in zip(("probe", "nearest"), counts, strict=True)
        }
        if unseen is None:
            return levels
        pairs = lower_loss_pairs(loss_bins(reading.logits[None], labels), masks)[0]
        other = samples.group_names.index(unseen)
        auc = float(pairs[row, other]) / float(2 * masks[row].sum() * masks[other].sum())
    return levels | {"membership": min(1.0, max(auc, 1 - auc) + margin)}
