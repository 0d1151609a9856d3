"""Comments and bias sentences of a run, cut into splits that share no sentence."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ...samples import Samples, drawn_by_weight
from ...zoo.data import IDENTITY_TERMS, Comments, hold_out_templates, load_comments, split_comments
from ...zoo.data.comments import normalize
from ...zoo.models.bag_of_words import words_of
from .config import TRANSFORMER, UNSEEN_TEMPLATES, DebiasConfig
from .files import read_set, some_templates, terms_of
from .group_names import free_name, without_reserved_names

logger = logging.getLogger("rledit")

SHARES = {"train": 0.45, "reward": 0.20, "validation": 0.10, "test": 0.25}
"""Shares of the comments. The classifier is trained on the first, the reward sees the second, the third
picks."""

SHARES_TRAINED = {"train": 0.0, "reward": 0.40, "validation": 0.20, "test": 0.40}
"""Where the classifier is there already, trained on something else."""

BIAS_SENTENCES = {"reward": 12_000, "validation": 12_000}
"""Sentences of the bias set, but at most a quarter of it each; the test gets the rest, at least half. With
50 groups a third of these leaves some with 40 sentences of a label to validate on: two points of an error
rate are then less than one sentence, and no edit can be told to be within them."""

MANY_GIGABYTES = 4.0
PARTS = ("reward", "validation", "test")
MOST_IDENTITIES = 62
GROUP_OPTIONS = "--group-columns, --group-column or --terms say which groups there are"
UNSEEN = "unseen templates"
TRANSFER = ("toxigen",)
"""Sets that are read only at the end, if their files exist."""

Encode = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, eq=False)
class Split:
    """Comments for utility and sentences for bias, which may be the very same object."""

    utility: Comments
    bias: Comments

    @cached_property
    def both(self) -> Comments:
        """The comments of both, those for utility first; each comment once where they are the same."""
        return self.utility if self.bias is self.utility else self.utility.join(self.bias)

    def samples(self, encode: Encode, identities: Sequence[str]) -> Samples:
        """Both as one, with the groups "utility", "bias" and the identities, as far as they are there. Where
        both are the same comments, "utility" and "bias" are all of them."""
        place = torch.arange(len(self.both))
        same = self.bias is self.utility
        in_bias = place >= 0 if same else place >= len(self.utility)
        groups = {"utility": place < len(self.utility), "bias": in_bias}
        groups |= {name: self.both.identities[name] & in_bias for name in identities}
        groups = {name: mask for name, mask in groups.items() if bool(mask.any())}
        return Samples(encode(self.both.texts), self.both.labels, groups, self.both.weights)


@dataclass(frozen=True, eq=False)
class CommentSets:
    """What a run begins with, before it is cut into splits.

    Attributes:
        comments: what the classifier is trained on and must stay good at.
        bias: what bias is measured on; sentences that are among the comments are left out. Or ``comments``
            itself: then bias is measured on the very comments of each split.
        unseen_templates: templates of the bias set that neither reward nor validation see.
        transfer: other bias sets, read at the end alone, by name.
        terms: words that identity groups are called; a classifier of words must know them, however rare.
    """

    comments: Comments
    bias: Comments
    unseen_templates: tuple[str, ...] = ()
    transfer: Mapping[str, Comments] = field(default_factory=dict)
    terms: tuple[str, ...] = tuple(term for terms in IDENTITY_TERMS.values() for term in terms)


def shares_of(config: DebiasConfig) -> Mapping[str, float]:
    """Shares of the comments for each split: :data:`SHARES` where the classifier is still to be trained."""
    return SHARES_TRAINED if config.model == TRANSFORMER else SHARES


def load_sets(config: DebiasConfig, data_root: str | os.PathLike[str] | None) -> CommentSets:
    """The sets that a config names.

    Raises:
        ValueError, OSError: see :func:`rledit.zoo.data.load_comments` and :func:`rledit.zoo.data.read_table`.
        MissingExtraError: for files without pandas.
    """
    if config.has_files:
        return _sets_of_files(config, data_root)
    assert config.bias_name
    return CommentSets(
        Comments.join(*[load_comments(name, data_root) for name in config.dataset]),
        load_comments(config.bias_name, data_root),
        UNSEEN_TEMPLATES.get(config.bias_name, ()),
        _named_transfer(config, data_root),
    )


def _named_transfer(config: DebiasConfig, data_root: str | os.PathLike[str] | None) -> dict[str, Comments]:
    return {
        name: found
        for name in TRANSFER
        if name != config.bias_name and (found := _optional(name, data_root)) is not None
    }


def _sets_of_files(config: DebiasConfig, data_root: str | os.PathLike[str] | None) -> CommentSets:
    """The same where some sets come from files; each of the others is the named one."""
    terms = terms_of(config, data_root)
    known = tuple(term for words in terms.values() for term in words)
    least = len({word for term in (*known, *CommentSets.terms) for word in words_of(term)})
    if config.model == "bag-of-words" and config.vocabulary < least:
        raise ValueError(
            f"vocabulary: expected at least {least}, the words of identity terms; got {config.vocabulary}"
        )
    if config.train:
        comments = read_set(config.train, config, terms, data_root, with_groups=config.same_comments)
    else:
        comments = Comments.join(*[load_comments(name, data_root) for name in config.dataset])
    if config.bias_name:
        bias = load_comments(config.bias_name, data_root)
    else:
        bias = read_set(config.bias, config, terms, data_root) if config.bias else comments
    unseen = UNSEEN_TEMPLATES.get(config.bias_name) or some_templates(bias)
    if config.model == "bag-of-words":
        _warn_of_size(comments, config.vocabulary)
    # Who brings comments of their own names the sets that go with them.
    transfer = {} if config.train else _named_transfer(config, data_root)
    for file in config.transfer:
        found = read_set([file], config, terms, data_root)
        name = found.name if found.name not in transfer else free_name(found.name, "set", tuple(transfer))
        if (usable := _usable(name, found)) is not None:
            transfer[name] = usable
    return CommentSets(comments, bias, unseen, transfer, tuple(dict.fromkeys((*known, *CommentSets.terms))))


def _warn_of_size(comments: Comments, vocabulary: int) -> None:
    """Of the words of the training comments, which are encoded as a whole."""
    gigabytes = 4 * SHARES["train"] * len(comments) * vocabulary / 1e9
    if gigabytes > MANY_GIGABYTES:
        logger.warning(
            "%s: to train on %s comments takes up to %.0f GB of memory; --sample 100000 draws fewer.",
            comments.name,
            f"{len(comments):,}",
            gigabytes,
        )


class DebiasData:
    """The splits of a run.

    Where comments have weights, those to train on and those of the reward split are drawn by them, and each
    then counts once; figures of the others weigh them.

    Attributes:
        train: comments that the classifier is trained on.
        splits: "reward", "validation" and "test".
        unseen: sentences of templates that neither reward nor validation see, or None.
        transfer: other bias sets, by name.
        identities: groups with positives and negatives in reward and validation, the most frequent first.
        every_text: texts of all splits and sets, sorted; the same for every seed.
        terms: see :class:`CommentSets`.

    Args:
        sets: what is cut.
        seed: of the cuts.
        shares: of the comments, for each split.

    Raises:
        ValueError: if the bias set has no identity group that can be measured.
    """

    def __init__(self, sets: CommentSets, seed: int, shares: Mapping[str, float] = SHARES) -> None:
        same = sets.bias is sets.comments
        comments = without_reserved_names(sets.comments)
        bias = comments if same else _without(without_reserved_names(sets.bias), comments)
        if not len(bias):
            raise ValueError(
                f"bias: expected sentences that are not among the comments, too; all of {sets.bias.name} are "
                f"in {comments.name}. Without --bias it is measured on the comments themselves"
            )
        self.terms = sets.terms
        self.transfer = _named_apart(sets.transfer)
        self.every_text = sorted(
            {text for part in (comments, bias, *self.transfer.values()) for text in part.texts}
        )
        if not bias.identities:
            raise ValueError(
                f"{bias.name}: expected comments with identity groups, got none; {GROUP_OPTIONS}"
            )
        self.unseen: Comments | None = None
        if sets.unseen_templates:
            bias, self.unseen = _held_out(bias, sets.unseen_templates)
            comments = bias if same else comments
        utility = dict(zip(shares, split_comments(comments, list(shares.values()), seed), strict=True))
        for name in ("train", "reward"):
            utility[name] = _drawn(utility[name], seed)
        self.train = utility["train"]
        if same:
            reward, validation, test = (_by_identity(utility[name]) for name in PARTS)
            pairs = [(part, part) for part in (reward, validation, test)]
        else:
            reward, validation, test = _split_bias(bias, seed)
            reward = _by_identity(_drawn(reward, seed))
            pairs = list(zip((utility[name] for name in PARTS), (reward, validation, test), strict=True))
        self.splits = {name: Split(*pair) for name, pair in zip(PARTS, pairs, strict=True)}
        self.identities = _measurable(reward, validation)
        if not self.identities:
            raise ValueError(
                f"bias_set: expected identity groups with toxic and harmless sentences; {bias.name} has none"
                f"; {GROUP_OPTIONS}"
            )
        if not any(_fits(test, name) for name in self.identities):
            raise ValueError(
                f"bias_set: expected identity groups with toxic and harmless sentences in the test split, "
                f"too; {bias.name} is too small for that"
            )

    def test_sets(self) -> dict[str, tuple[Sequence[str], Samples, tuple[str, ...]]]:
        """Test sets by name, the test split first: texts, labels and groups without inputs, identities."""
        test = self.splits["test"]
        sets: dict[str, tuple[Sequence[str], Samples, tuple[str, ...]]] = {
            "test": (test.both.texts, test.samples(no_inputs, self.identities), self.identities)
        }
        for name, comments in {UNSEEN: self.unseen, **self.transfer}.items():
            if comments is None:
                continue
            sizes = {group: int(mask.sum()) for group, mask in comments.identities.items()}
            names = tuple(sorted((g for g in sizes if sizes[g]), key=lambda g: -sizes[g])[:MOST_IDENTITIES])
            groups = {"bias": torch.ones(len(comments), dtype=torch.bool)}
            groups |= {group: comments.identities[group] for group in names}
            samples = Samples(no_inputs(comments.texts), comments.labels, groups, comments.weights)
            sets[name] = (comments.texts, samples, names)
        return sets

    @property
    def texts(self) -> list[str]:
        """The texts that the classifier is trained on."""
        return list(self.train.texts)


def no_inputs(texts: Sequence[str]) -> Tensor:
    return torch.zeros(len(texts), 1)


def _named_apart(sets: Mapping[str, Comments]) -> dict[str, Comments]:
    """Without reserved names of groups, and without those of a run's own test sets."""
    taken = ("test", UNSEEN, *sets)
    return {
        free_name(name, "set", taken) if name in ("test", UNSEEN) else name: without_reserved_names(comments)
        for name, comments in sets.items()
    }


def _without(comments: Comments, others: Comments) -> Comments:
    """The comments whose sentence is not among the others."""
    known = {normalize(text) for text in others.texts}
    return comments.subset(torch.tensor([normalize(text) not in known for text in comments.texts]))


def _drawn(comments: Comments, seed: int) -> Comments:
    """As many comments, each as often as its weight says; without weights the same."""
    if comments.weights is None or not bool(comments.weights.any()):
        return comments
    return replace(comments.subset(drawn_by_weight(comments.weights, seed)), weights=None)


def _split_bias(bias: Comments, seed: int) -> tuple[Comments, ...]:
    fractions = [min(0.25, size / max(1, len(bias))) for size in BIAS_SENTENCES.values()]
    reward, validation, test = split_comments(bias, [*fractions, 1 - sum(fractions)], seed)
    return tuple(_by_identity(part) for part in (reward, validation, test))


def _by_identity(comments: Comments) -> Comments:
    """Sentences of the same groups side by side, which is how the core counts them fastest."""
    members = torch.stack(list(comments.identities.values()))
    _, kind = torch.unique(members, dim=1, return_inverse=True)
    return comments.subset(torch.argsort(kind, stable=True))


def _fits(part: Comments, name: str) -> bool:
    """Whether there are positives and negatives of a group, inside and outside."""

    def counts(mask: Tensor) -> tuple[int, int]:
        positives = int((part.labels[mask] == 1).sum())
        return positives, int(mask.sum()) - positives

    mask = part.identities[name]
    return min(*counts(mask), *counts(~mask)) > 0


def _measurable(*parts: Comments) -> tuple[str, ...]:
    """Groups that every part has positives and negatives of, inside and outside."""
    sizes = {
        name: int(mask.sum())
        for name, mask in parts[0].identities.items()
        if all(_fits(part, name) for part in parts)
    }
    if left_out := sorted(set(parts[0].identities) - set(sizes)):
        logger.warning(
            "Left out, because the bias set lacks toxic or harmless sentences of them: %s.",
            ", ".join(left_out),
        )
    chosen = sorted(sizes, key=lambda name: -sizes[name])
    if len(chosen) > MOST_IDENTITIES:
        logger.warning("Of %d identity groups the %d largest are measured.", len(chosen), MOST_IDENTITIES)
    return tuple(chosen[:MOST_IDENTITIES])


def _held_out(bias: Comments, templates: Sequence[str]) -> tuple[Comments, Comments | None]:
    """Sentences of the other templates, and those of these for the evaluation alone."""
    try:
        seen, unseen = hold_out_templates(bias, templates)
    except ValueError as error:
        logger.warning("unseen templates: left out of the evaluation: %s", error)
        return bias, None
    return bias.subset(seen), _usable(UNSEEN, bias.subset(unseen))


def _usable(name: str, comments: Comments) -> Comments | None:
    """The same, or None with a warning where no group of theirs can be measured."""
    if any(_fits(comments, group) for group in comments.identities):
        return comments
    logger.warning(
        "%s: left out of the evaluation, because no identity group has toxic and harmless sentences there, "
        "in it and outside it.",
        name,
    )
    return None


def _optional(name: str, data_root: str | os.PathLike[str] | None) -> Comments | None:
    """A set that a run can do without: None, with a warning unless it simply is not there."""
    try:
        comments = load_comments(name, data_root)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s: left out of the evaluation, because it cannot be read: %s", name, error)
        return None
    return _usable(name, comments)
