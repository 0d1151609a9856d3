"""What is known before an edit is trained: the sets, and whether the classifier is worth editing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...experiments.console import Console, say
from ...objectives.metric_digits import with_interval
from ...objectives.metric_names import shown
from ...objectives.paired import ranks_of, tally_margins
from ...samples import Samples
from ...storage.files import Json
from ...zoo.data import Comments
from ...zoo.models.bag_of_words import Vocabulary
from .classifier import Classifier
from .data import DebiasData
from .evaluation import margins_of

MOST_NAMED = 6
"""Groups that the console names; the report has all."""

_Z = 1.96  # of an interval at 95%
_COMMENTS, _BIAS = " comments", "bias, "  # in the names of sets


def facts(classifier: Classifier, data: DebiasData) -> dict[str, Json]:
    """The entry "data" of metrics.json.

    Args:
        classifier: before any edit.
        data: the run's splits.

    Returns:
        ``sets``: by name ("training comments", "test comments", "bias, test", ...) ``size``; ``base_rate``,
        the share that is toxic; ``groups``, harmless and toxic texts of each group that has any;
        ``unknown_words``, the share of texts without a known word, None where the classifier has no list of
        words. ``classifier``: see :func:`worth`, on the validation comments.
    """
    split = data.splits["validation"]
    # All of the split, since the encodings of these very texts are kept for the record.
    margins = margins_of(classifier.model, classifier.encode, split.both.texts)[: len(split.utility)]
    return {
        "sets": {name: _set(comments, classifier) for name, comments in _sets(data).items()},
        "classifier": worth(margins, split.utility.labels),
    }


def _sets(data: DebiasData) -> dict[str, Comments]:
    sets = {f"training{_COMMENTS}": data.train}
    sets |= {f"{name}{_COMMENTS}": split.utility for name, split in data.splits.items()}
    sets |= {f"{_BIAS}{name}": split.bias for name, split in data.splits.items()}
    if data.unseen is not None:
        sets["unseen templates"] = data.unseen
    return {**sets, **data.transfer}


def _set(comments: Comments, classifier: Classifier) -> dict[str, Json]:
    labels = comments.labels
    sizes = {
        group: [int((mask & (labels == label)).sum()) for label in (0, 1)]
        for group, mask in comments.identities.items()
    }
    return {
        "size": len(comments),
        "base_rate": float(labels.double().mean()) if len(comments) else None,
        "groups": {group: size for group, size in sizes.items() if sum(size)},
        "unknown_words": _unknown(comments.texts, classifier),
    }


def _unknown(texts: Sequence[str], classifier: Classifier) -> float | None:
    vocabulary = getattr(classifier, "vocabulary", None)
    if not isinstance(vocabulary, Vocabulary) or not texts:
        return None
    return vocabulary.unknown(texts) / len(texts)


def worth(margins: Tensor, labels: Tensor) -> dict[str, Json]:
    """Whether a classifier knows more of some comments than how many are toxic.

    Args:
        margins: logit[1] - logit[0], float32 [S].
        labels: int64 [S], 0 and 1.

    Returns:
        ``accuracy``; ``majority``, that of always giving the more frequent label; ``auc`` with
        ``auc_interval`` at 95%, None where there is one label only; ``useless``, and for which ``reasons``.

    Raises:
        ValueError: there are no comments.
    """
    if not len(labels):
        raise ValueError("validation: expected comments to judge the classifier by, got none")
    negatives, positives = torch.bincount(labels, minlength=2).tolist()
    everyone = {"comments": torch.ones(len(labels), dtype=torch.bool)}
    tally = tally_margins(ranks_of(margins)[None], Samples(torch.zeros(len(labels), 1), labels, everyone))
    accuracy = float(tally.accuracy("comments")[0])
    majority = max(negatives, positives) / len(labels)
    auc, interval = None, None
    if negatives and positives:
        auc = float(tally.auc("comments")[0])
        interval = auc_interval(auc, negatives, positives)
    reasons = []
    if unknown := int(margins.isnan().sum()):
        reasons.append(f"it gives no number for {unknown:,} of {len(labels):,} comments")
    if accuracy <= majority:
        reasons.append("it is right no more often than one that always gives the more frequent label")
    if interval is not None and interval[0] <= 0.5:
        reasons.append("it ranks toxic above harmless comments no better than chance")
    return {
        "accuracy": accuracy,
        "majority": majority,
        "auc": auc,
        "auc_interval": None if interval is None else list(interval),
        "useless": bool(reasons),
        "reasons": [*reasons],
    }


def auc_interval(auc: float, negatives: int, positives: int) -> tuple[float, float]:
    """At 95%, from the standard error of J. A. Hanley and B. J. McNeil, "The meaning and use of the area
    under a receiver operating characteristic (ROC) curve", Radiology 143 (1982), equation 1."""
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
    ) / (negatives * positives)
    half = _Z * math.sqrt(max(0.0, variance))
    return max(0.0, auc - half), min(1.0, auc + half)


def tell(known: Mapping[str, Any], console: Console) -> None:
    """Print the facts, a useless classifier in bold."""
    for line in lines(known["sets"]):
        say(console, line)
    classifier = known["classifier"]
    accuracy, majority = (shown("accuracy", classifier[key]) for key in ("accuracy", "majority"))
    auc = with_interval("utility_auc", classifier["auc"], classifier["auc_interval"])
    say(
        console,
        f"The classifier on the validation comments: accuracy {accuracy} (always the more frequent label: "
        f"{majority}), AUC {auc}",
    )
    if classifier["useless"]:
        say(console, f"Warning: {warning(classifier)}", "bold red")


def warning(classifier: Mapping[str, Any]) -> str:
    """What is said of a useless classifier, on the console and in the report."""
    return (
        f"this classifier is of no use: {' and '.join(classifier['reasons'])}. Less bias means nothing in a "
        "classifier that does not tell toxic from harmless comments."
    )


def lines(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sets in a few lines: what the classifier must stay good at, what bias is measured on, the rest."""
    comments = {name: known for name, known in sets.items() if name.endswith(_COMMENTS)}
    bias = {name: known for name, known in sets.items() if name.startswith(_BIAS)}
    others = {name: known for name, known in sets.items() if name not in comments and name not in bias}
    out = [
        f"Comments: {_sizes({name.removesuffix(_COMMENTS): known for name, known in comments.items()})}",
        f"Bias set: {_sizes({name.removeprefix(_BIAS): known for name, known in bias.items()})}",
    ]
    if others:
        out.append(f"Read at the end alone: {_sizes(others)}")
    out.append(_groups(sets["bias, reward"]["groups"]))
    unknown = [
        f"{known['unknown_words']:.1%} of {name}"
        for name, known in {**bias, **others}.items()
        if known["unknown_words"]
    ]
    if unknown:
        out.append(f"Sentences of unknown words only: {'; '.join(unknown)}")
    return out


def _sizes(sets: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{name} {known['size']:,}"
        + ("" if known["base_rate"] is None else f" ({known['base_rate']:.0%} toxic)")
        for name, known in sets.items()
    )


def _groups(groups: Mapping[str, Sequence[int]]) -> str:
    """How many, and the smallest ones: what they say is known worst."""
    if not groups:
        return "Groups: none"
    smallest = sorted(groups, key=lambda group: min(groups[group]))
    named = ", ".join(
        f"{group} ({groups[group][0]} harmless, {groups[group][1]} toxic)" for group in smallest[:MOST_NAMED]
    )
    which = "all" if len(groups) <= MOST_NAMED else "the smallest"
    return f"Groups in the reward split: {len(groups)}; {which}: {named}"
