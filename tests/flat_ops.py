"""The ops of any backend, called with the flat arguments of the registered ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rledit.ops import Backend, Counts, Wanted
from rledit.ops.score_tail import from_schema


def score_tail(backend: Backend, *arguments: Any, bins: int = 1024, margin_limit: float = 16.0) -> Counts:
    """``arguments``: those of :func:`rledit.ops.score_tail` up to ``wanted``."""
    problem, candidates, wanted = from_schema(*arguments, bins, margin_limit)
    return backend.prepare_tail(problem).score(candidates, wanted)


def tally_logits(
    backend: Backend,
    logits: Tensor,
    labels: Tensor,
    groups: Tensor,
    parts: Sequence[str],
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> Counts:
    tally = backend.prepare_tally(labels, groups, logits.shape[2])
    return tally.count(logits, slice(None), Wanted(parts, bins, margin_limit))
