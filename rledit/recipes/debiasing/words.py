"""Which words an edit acts on: every word as a text of its own, scored before and after."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from ...storage.files import Json
from ...zoo.models.bag_of_words import Vocabulary, words_of
from .classifier import Classifier
from .data import DebiasData
from .evaluation import margins_of

logger = logging.getLogger("rledit")

MOST_WORDS = 30
"""That are kept: half of them the largest rises, half the largest falls."""

MOST_SCORED = 2_000
"""Of the most frequent words, where a classifier has no list of its own."""

LEAST_CHANGE = 1e-4
"""Of the log odds: smaller ones are rounding."""


def changed_words(classifier: Classifier, edited: nn.Module, data: DebiasData) -> dict[str, Json]:
    """The words whose score as one-word texts an edit changes most.

    Scored are the words of the classifier's vocabulary that occur in validation or test texts; without one,
    the :data:`MOST_SCORED` most frequent words of the validation texts.

    Returns:
        ``words``: ``word``, ``count`` of validation and test texts with it, ``before`` and ``after``, its
        log odds of being toxic, and ``change``, the difference; the largest rise first, the largest fall
        last. ``words_left_out``: why there are none, where the classifier cannot read new texts.
    """
    counts = _counts(classifier, data)
    words = list(counts)
    try:
        before, after = (
            margins_of(model, classifier.encode, words).tolist() if words else []
            for model in (classifier.model, edited)
        )
    except Exception as error:
        why = "it knows the texts of its run alone" if isinstance(error, KeyError) else f"{error}"
        logger.info("Which words the edit acts on is not known: the classifier reads no new texts: %s", why)
        return {"words": [], "words_left_out": f"the classifier reads no new texts: {why}"}
    rows = [
        {"word": word, "count": counts[word], "before": old, "after": new, "change": new - old}
        for word, old, new in zip(words, before, after, strict=True)
        if math.isfinite(new - old) and abs(new - old) > LEAST_CHANGE
    ]
    return {"words": [*most_changed(rows)]}


def most_changed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Half of :data:`MOST_WORDS` among the rises and half among the falls, or more of one kind where there
    are fewer of the other; by change, the largest rise first."""
    ordered = sorted(rows, key=lambda row: (-row["change"], row["word"]))
    rises = [row for row in ordered if row["change"] > 0]
    falls = [row for row in ordered if row["change"] < 0]
    most_falls = max(MOST_WORDS // 2, MOST_WORDS - len(rises))
    falls = falls[-most_falls:]
    return rises[: MOST_WORDS - len(falls)] + falls


def _counts(classifier: Classifier, data: DebiasData) -> dict[str, int]:
    """The words to score, and in how many validation and test texts each is."""
    found: dict[str, Counter[str]] = {}
    for name in ("validation", "test"):
        found[name] = Counter()
        for text in data.splits[name].both.texts:
            found[name].update(set(words_of(text)))
    vocabulary = getattr(classifier, "vocabulary", None)
    if isinstance(vocabulary, Vocabulary):
        chosen = [word for word in vocabulary.words if any(word in part for part in found.values())]
    else:
        frequent = found["validation"]
        chosen = sorted(frequent, key=lambda word: (-frequent[word], word))[:MOST_SCORED]
    return {word: sum(part[word] for part in found.values()) for word in chosen}
