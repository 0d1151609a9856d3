"""The backends by name. Each offers the three ops with the signatures of their references."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from . import native
from .apply_lowrank import apply_lowrank_ref
from .counts import Counts
from .score_tail import score_tail_ref
from .tally_logits import tally_logits_ref

BACKENDS = ("auto", "reference", "native", "triton", "cuda")


class Backend(NamedTuple):
    name: str
    apply_lowrank_: Callable[..., None]
    score_tail: Callable[..., Counts]
    tally_logits: Callable[..., Counts]


_REFERENCE = Backend("reference", apply_lowrank_ref, score_tail_ref, tally_logits_ref)
_NATIVE = Backend("native", native.apply_lowrank_, native.score_tail, native.tally_logits)


def backend(name: str = "auto") -> Backend:
    """The backend called ``name``; "auto" takes the environment variable RLEDIT_BACKEND, else "native".

    Raises:
        ValueError: for an unknown name, with the valid ones.
        NotImplementedError: for "triton" and "cuda", which this version does not have.
    """
    asked = name
    if name == "auto":
        name = os.environ.get("RLEDIT_BACKEND", "auto")
        asked = name if name == "auto" else f"{name} (from RLEDIT_BACKEND)"
    if name in ("auto", "native"):
        return _NATIVE
    if name == "reference":
        return _REFERENCE
    if name in BACKENDS:
        raise NotImplementedError(f"backend: {asked!r} is not in this version; use 'native' or 'reference'")
    raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}; got {asked!r}")
