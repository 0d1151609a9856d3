"""Comments and bias sentences of a run, cut into splits that share no sentence."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...samples import Samples
from ...zoo.data import Comments, hold_out_templates, load_comments, split_comments
from ...zoo.data.comments import normalize
from .config import UNSEEN_TEMPLATES, DebiasConfig

logger = logging.getLogger("rledit")

SHARES = {"train": 0.45, "reward": 0.20, "validation": 0.10, "test": 0.25}
"""Of the comments. The classifier is trained on the first, the reward sees the second, the third picks."""

BIAS_SENTENCES = {"reward": 6_000, "validation": 4_000}
"""Of the bias set, but at most a quarter each; the test gets the rest, at least half."""

MOST_IDENTITIES = 62
TRANSFER = ("toxigen",)
"""Sets that are read at the end alone, where their files are there."""

Encode = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True, eq=False)
class Split:
    """Comments for utility and sentences for bias."""

    utility: Comments
    bias: Comments

    @cached_property
    def both(self) -> Comments:
        """Utility first."""
        return self.utility.join(self.bias)

    def samples(self, encode: Encode, identities: Sequence[str]) -> Samples:
        """Both as one, with the groups "utility", "bias" and the identities, as far as they are there."""
        in_bias = torch.arange(len(self.both)) >= len(self.utility)
        groups = {"utility": ~in_bias, "bias": in_bias}
        groups |= {name: self.both.identities[name] & in_bias for name in identities}
        groups = {name: mask for name, mask in groups.items() if bool(mask.any())}
        return Samples(encode(self.both.texts), self.both.labels, groups)


@dataclass(frozen=True, eq=False)
class CommentSets:
    """What a run begins with, before it is cut into splits.

    Attributes:
        comments: what the classifier is trained on and must stay good at.
        bias: what bias is measured on; sentences that are among the comments are left out.
        unseen_templates: templates of the bias set that neither reward nor validation see.
        transfer: other bias sets, read at the end alone, by name.
    """

    comments: Comments
    bias: Comments
    unseen_templates: tuple[str, ...] = ()
    transfer: Mapping[str, Comments] = field(default_factory=dict)


def load_sets(config: DebiasConfig, data_root: str | os.PathLike[str] | None) -> CommentSets:
    """The sets that a config names.

    Raises:
        ValueError, OSError: see :func:`rledit.zoo.data.load_comments`.
    """
    return CommentSets(
        Comments.join(*[load_comments(name, data_root) for name in config.dataset]),
        load_comments(config.bias_name, data_root),
        UNSEEN_TEMPLATES.get(config.bias_name, ()),
        {
            name: found
            for name in TRANSFER
            if name != config.bias_name and (found := _optional(name, data_root)) is not None
        },
    )


class DebiasData:
    """The splits of a run.

    Attributes:
        train: comments that the classifier is trained on.
        splits: "reward", "validation" and "test".
        unseen: sentences of templates that neither reward nor validation see, or None.
        transfer: other bias sets, by name.
        identities: groups with positives and negatives in reward and validation, the most frequent first.
        every_text: of all splits and sets, sorted; the same for every seed.

    Args:
        sets: what is cut.
        seed: of the cuts.

    Raises:
        ValueError: if the bias set has no identity group that can be measured.
    """

    def __init__(self, sets: CommentSets, seed: int) -> None:
        comments = sets.comments
        parts = split_comments(comments, list(SHARES.values()), seed)
        utility = dict(zip(SHARES, parts, strict=True))
        self.train = utility["train"]
        bias = _without(sets.bias, comments)
        everything = [comments, bias, *sets.transfer.values()]
        self.unseen: Comments | None = None
        if sets.unseen_templates:
            bias, self.unseen = _held_out(bias, sets.unseen_templates)
        reward, validation, test = _split_bias(bias, seed)
        self.splits = {
            "reward": Split(utility["reward"], reward),
            "validation": Split(utility["validation"], validation),
            "test": Split(utility["test"], test),
        }
        self.identities = _measurable(reward, validation)
        if not self.identities:
            raise ValueError(
                f"bias_set: expected identity groups with toxic and harmless sentences; {bias.name} has none"
            )
        if not any(_fits(test, name) for name in self.identities):
            raise ValueError(
                f"bias_set: expected identity groups with toxic and harmless sentences in the test split, "
                f"too; {bias.name} is too small for that"
            )
        self.transfer = dict(sets.transfer)
        self.every_text = sorted({text for part in everything for text in part.texts})

    def test_sets(self) -> dict[str, tuple[Sequence[str], Samples, tuple[str, ...]]]:
        """By name: texts, labels and groups without inputs, identity groups. The test split comes first."""
        test = self.splits["test"]
        sets: dict[str, tuple[Sequence[str], Samples, tuple[str, ...]]] = {
            "test": (test.both.texts, test.samples(no_inputs, self.identities), self.identities)
        }
        for name, comments in {"unseen templates": self.unseen, **self.transfer}.items():
            if comments is None:
                continue
            sizes = {group: int(mask.sum()) for group, mask in comments.identities.items()}
            names = tuple(sorted((g for g in sizes if sizes[g]), key=lambda g: -sizes[g])[:MOST_IDENTITIES])
            groups = {"bias": torch.ones(len(comments), dtype=torch.bool)}
            groups |= {group: comments.identities[group] for group in names}
            samples = Samples(no_inputs(comments.texts), comments.labels, groups)
            sets[name] = (comments.texts, samples, names)
        return sets

    @property
    def texts(self) -> list[str]:
        """Of the classifier's training."""
        return list(self.train.texts)


def no_inputs(texts: Sequence[str]) -> Tensor:
    return torch.zeros(len(texts), 1)


def _without(comments: Comments, others: Comments) -> Comments:
    """Those that are in no other set."""
    known = {normalize(text) for text in others.texts}
    return comments.subset(torch.tensor([normalize(text) not in known for text in comments.texts]))


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
    return bias.subset(seen), _usable("unseen templates", bias.subset(unseen))


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
