"""Edits of one label's logit leave the other labels alone where they can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...edits import Edit
from ...heads import find_head
from ...search import Result
from .two_logits import OneOfSeveral


def sparing_other_labels(result: Result, model: nn.Module, inputs: Tensor) -> Result:
    """The result with an edit that leaves the rows of other labels as they are, where one Linear makes the
    logits of all labels and is edited: they play no part in the label's own logit, so nothing has told the
    search not to change them.

    Args:
        result: of a search.
        model: which was searched.
        inputs: a few of its inputs.
    """
    if not isinstance(model, OneOfSeveral) or model.label is None:
        return result
    name = find_head(model.inner, inputs).name
    if name not in result.edit.targets:
        return result
    return replace(result, edit=_rows_only(result.edit, name, model.label))


def _rows_only(edit: Edit, target: str, row: int) -> Edit:
    """The edit with a left factor of zeros for all other rows of a target."""
    left, right = edit.factors[target]
    kept = torch.zeros_like(left)
    kept[..., row, :] = left[..., row, :]
    factors: Mapping[str, tuple[Tensor, Tensor]] = {**edit.factors, target: (kept, right)}
    return Edit(factors, edit.world, edit.scale, edit.fingerprint, edit.metrics, edit.casts)
