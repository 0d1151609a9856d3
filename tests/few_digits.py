"""A quarter of mnist5k in place of the whole: what commands do with it does not hang on how much there is."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import torch

from rledit.recipes.unlearning.config import DEFAULTS
from rledit.zoo.data import Dataset
from rledit.zoo.data import load as load_whole


@cache
def few_digits() -> Dataset:
    whole = load_whole("mnist5k")
    train, test = (part.subset(torch.arange(0, len(part), 4)) for part in (whole.train, whole.test))
    return replace(whole, train=train, test=test)


def load(name: str, data_root: str | Path | None = None) -> Dataset:
    return few_digits() if name == "mnist5k" else load_whole(name, data_root)


def in_place() -> ExitStack:
    """Within it, commands have these digits."""
    stack = ExitStack()
    stack.enter_context(mock.patch("rledit.recipes.unlearning.run.load", load))
    fewer = {
        "mnist5k": replace(DEFAULTS["mnist5k"], reward=800, validation=200),
        "cifar10": replace(DEFAULTS["cifar10"], reward=100, validation=200),
    }
    stack.enter_context(mock.patch.dict(DEFAULTS, fewer))
    return stack
