"""Comments with toxicity labels and identity groups, and parts of them that share no sentence."""

from __future__ import annotations

import logging
import re
import unicodedata
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .dataset import check_indices, split

logger = logging.getLogger("rledit")

# The underscore counts as a letter in \w, and as punctuation in comments.
_GAPS = re.compile(r"[\W_]+")
_ASCII_GAPS = bytes(code for code in range(128) if not chr(code).isalnum())


@dataclass(frozen=True, eq=False)  # tensors have no single truth value, so a generated __eq__ would raise
class Comments:
    """Comments with one toxicity label each, checked when constructed.

    Attributes:
        name: what the user calls them, e.g. ``"jigsaw"``.
        texts: the S comments as they were written.
        labels: int64 [S], 1 = toxic, 0 = not.
        identities: name of an identity group -> bool [S], whether the comment mentions it. A comment may
            belong to several groups or to none, and a group may be empty.
        templates: for sentences made from templates, the name of each one's template [S], ``""`` where there
            is none; else empty.
        weights: float64 [S], finite and at least 0: how much each comment counts, such as how often it stands
            for others in a survey; None where all count alike.

    Raises:
        TypeError: a container, an entry or a dtype is wrong.
        ValueError: a shape is wrong, the lengths differ, a label is neither 0 nor 1, or a weight is negative,
            infinite or NaN.
    """

    name: str
    texts: tuple[str, ...]
    labels: Tensor
    identities: dict[str, Tensor]
    templates: tuple[str, ...] = ()
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        _check_strings("texts", self.texts)
        _check_strings("templates", self.templates)
        count = len(self.texts)
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels: expected dtype int64, got {self.labels.dtype}")
        if self.labels.ndim != 1:
            raise ValueError(f"labels: expected shape [S], got {list(self.labels.shape)}")
        if len(self.labels) != count:
            raise ValueError(f"labels: expected one for each of the {count} texts, got {len(self.labels)}")
        wrong = ((self.labels != 0) & (self.labels != 1)).nonzero()
        if len(wrong):
            row = int(wrong[0, 0])
            raise ValueError(f"labels: expected 0 or 1, got {int(self.labels[row])} in row {row}")
        if not isinstance(self.identities, dict):
            raise TypeError(f"identities: expected a dict, got {type(self.identities).__name__}")
        for group, mask in self.identities.items():
            if mask.dtype != torch.bool:
                raise TypeError(f"identities[{group!r}]: expected a bool mask, got {mask.dtype}")
            if list(mask.shape) != [count]:
                raise ValueError(
                    f"identities[{group!r}]: expected shape [{count}], one entry per text, "
                    f"got {list(mask.shape)}"
                )
        if self.templates and len(self.templates) != count:
            raise ValueError(
                f"templates: expected none, or one for each of the {count} texts, got {len(self.templates)}"
            )
        if self.weights is not None:
            _check_weights(self.weights, count)

    def __len__(self) -> int:
        """The number of comments S."""
        return len(self.texts)

    def subset(self, indices: Tensor) -> Comments:
        """The comments at ``indices`` (int64 [K], 0..S-1) in that order, or where a bool [S] mask is true.

        All groups are kept, empty ones too, so that parts of one data set have the same groups.

        Raises:
            TypeError: ``indices`` is neither int64 nor bool.
            ValueError: it is not one-dimensional, or a mask has another length than S.
            IndexError: an index is outside 0..S-1 (negative ones too: they are more often a bug than a wish).
        """
        indices = indices.cpu()
        check_indices(indices, len(self))
        if indices.dtype == torch.bool:
            indices = indices.nonzero().flatten()
        positions = indices.tolist()
        return Comments(
            self.name,
            tuple(self.texts[i] for i in positions),
            self.labels[indices],
            {group: mask[indices] for group, mask in self.identities.items()},
            tuple(self.templates[i] for i in positions) if self.templates else (),
            None if self.weights is None else self.weights[indices],
        )

    def join(self, *others: Comments) -> Comments:
        """These comments, then those of ``others`` in order; ``Comments.join(a, b, c)`` reads the same.

        The groups are those of all parts. The comments of a part that lacks a group are not members of it,
        so join parts whose groups were found in the same way. Where some parts have weights, the comments of
        the others weigh 1. The names are joined by ``+``.
        """
        parts = (self, *others)
        groups = dict.fromkeys(group for part in parts for group in part.identities)
        templates: list[str] = []
        if any(part.templates for part in parts):
            for part in parts:
                templates += part.templates or [""] * len(part)
        weighted = any(part.weights is not None for part in parts)
        return Comments(
            "+".join(dict.fromkeys(part.name for part in parts)),
            tuple(text for part in parts for text in part.texts),
            torch.cat([part.labels for part in parts]),
            {
                group: torch.cat(
                    [part.identities.get(group, torch.zeros(len(part), dtype=torch.bool)) for part in parts]
                )
                for group in groups
            },
            tuple(templates),
            torch.cat([part.weights if part.weights is not None else _ones(part) for part in parts])
            if weighted
            else None,
        )


def fold(text: str) -> str:
    """``text`` in Unicode's form NFKC without upper case: what readers see as equal is equal."""
    if text.isascii():
        return text.lower()
    # Folding the case of a normalized text can leave it not normalized.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def normalize(text: str) -> str:
    """A key that is equal for texts which differ only in case, white space or punctuation.

    It holds the letters and digits of the text and nothing between them, so "Can't  stop!" and "cant stop"
    have the same. A text without any letter or digit is its own key.
    """
    folded = fold(text)
    if folded.isascii():  # most comments are, and this takes a tenth of the time
        return folded.encode().translate(None, _ASCII_GAPS).decode() or text.strip()
    return _GAPS.sub("", folded) or text.strip()


def normalise(text: str) -> str:
    """Deprecated name of :func:`normalize`."""
    warnings.warn("normalise is deprecated, use normalize", DeprecationWarning, stacklevel=2)
    return normalize(text)


def distinct(comments: Comments) -> Tensor:
    """One comment for every different sentence, see :func:`normalize`.

    Of the copies of a sentence, the first one is taken that has the label of their majority. A sentence that
    is labeled toxic as often as not is left out: any choice would be arbitrary.

    Returns:
        int64 [K], their indices, ascending.
    """
    numbers: dict[str, int] = {}
    sentences = [numbers.setdefault(normalize(text), len(numbers)) for text in comments.texts]
    sentence = torch.tensor(sentences, dtype=torch.int64)
    votes = torch.zeros(len(numbers), dtype=torch.int64)
    votes.index_add_(0, sentence, 2 * comments.labels.cpu() - 1)
    agrees = votes[sentence].sign() == 2 * comments.labels.cpu() - 1
    first: dict[int, int] = {}
    for position in agrees.nonzero().flatten().tolist():
        first.setdefault(sentences[position], position)
    return torch.tensor(list(first.values()), dtype=torch.int64)


def split_comments(
    comments: Comments, sizes: Sequence[int] | Sequence[float], seed: int
) -> tuple[Comments, ...]:
    """Disjoint random parts with the label proportions of the whole, and no sentence in two of them.

    Copies of a sentence, which may differ in case, white space and punctuation, are dropped first, see
    :func:`distinct`: a test set that holds them again would measure memory. Then the parts are drawn as by
    :func:`rledit.zoo.data.split`; the first K of a part are a stratified subset of it.

    Args:
        comments: what is split.
        sizes: the size of each part, either all integers (comments) or all floats (fractions). They count
            what is left without copies. What is left over is in no part.
        seed: seed of the shuffle. The same comments, sizes and seed give the same parts.

    Returns:
        One part per size, all with the name and the groups of ``comments``.

    Raises:
        TypeError: ``sizes`` mixes integers and floats.
        ValueError: there are no comments, or ``sizes`` is empty, negative or too large.
    """
    kept = distinct(comments)
    if len(kept) == 0:
        raise ValueError(
            f"comments: expected at least one sentence that is mostly toxic or mostly not, got none among "
            f"{len(comments)} comments"
        )
    if len(kept) < len(comments):
        logger.info(
            "%s: %d of %d comments repeat another one and were left out.",
            comments.name,
            len(comments) - len(kept),
            len(comments),
        )
    parts = split(comments.labels[kept], sizes, seed)
    return tuple(comments.subset(kept[part]) for part in parts)


def hold_out_templates(comments: Comments, templates: str | Collection[str]) -> tuple[Tensor, Tensor]:
    """Which sentences come from other templates than these, and which from these.

    Args:
        comments: sentences with templates.
        templates: the names of one or more templates to hold out.

    Returns:
        (seen, unseen): bool [S] each, one the opposite of the other, both with at least one sentence.

    Raises:
        ValueError: the comments have no templates, a name is not among them, or nothing is on one side.
    """
    if not comments.templates:
        raise ValueError(f"comments: expected sentences with templates, {comments.name!r} has none")
    chosen = {templates} if isinstance(templates, str) else set(templates)
    known = dict.fromkeys(comments.templates)
    for name in chosen:
        if name not in known:
            raise ValueError(f"templates: expected some of {', '.join(known)}, got {name!r}")
    unseen = torch.tensor([template in chosen for template in comments.templates])
    if not chosen or bool(unseen.all()):
        raise ValueError(
            f"templates: expected some but not all of {', '.join(known)}, got {len(chosen)} of {len(known)}"
        )
    return ~unseen, unseen


def _check_strings(argument: str, values: object) -> None:
    if not isinstance(values, tuple):
        raise TypeError(f"{argument}: expected a tuple of strings, got {type(values).__name__}")
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{argument}: expected strings, got {type(value).__name__} in row {row}")


def _check_weights(weights: Tensor, count: int) -> None:
    if weights.dtype != torch.float64:
        raise TypeError(f"weights: expected dtype float64, got {weights.dtype}")
    if list(weights.shape) != [count]:
        raise ValueError(f"weights: expected shape [{count}], one for each text, got {list(weights.shape)}")
    wrong = (~(weights.isfinite() & (weights >= 0))).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        raise ValueError(
            f"weights: expected finite numbers of at least 0, got {float(weights[row])} in row {row}"
        )


def _ones(comments: Comments) -> Tensor:
    return torch.ones(len(comments), dtype=torch.float64)
