"""Directions: the part of a target's input space in which an agent's right factors lie."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..batch import rows_of
from ..scoring.network import calling_modules
from ..targets import Target, is_plain
from ..task import Task

logger = logging.getLogger("rledit")

DirectionKind = Literal["all", "strata", "groups"]
DIRECTIONS: tuple[DirectionKind, ...] = get_args(DirectionKind)

SAME = 1e-6
"""Share of the means' norm: means that differ by less are the same, but for rounding."""

NEGLIGIBLE = 1e-4
"""Share of the largest singular value: what is below is the same contrast once more."""


@dataclass(frozen=True)
class Directions:
    """Rows that span a subspace of a target's inputs.

    Attributes:
        rows: float32 [K, I'], without the columns that are zero in all of them.
        columns: int64 [I'], where these columns are among the target's inputs.
        inputs: I.
    """

    rows: Tensor
    columns: Tensor
    inputs: int

    def __len__(self) -> int:
        return len(self.rows)

    def expand(self, coefficients: Tensor) -> Tensor:
        """Coefficients float32 [N, R, K] as right factors [N, R, I].

        Candidate by candidate, so that each gets the same bits in whatever company: the factors that are
        scored are those that the edit keeps.
        """
        if coefficients.device.type == "cpu":  # in NumPy, see rledit.engine.actions
            right = np.zeros((*coefficients.shape[:2], self.inputs), np.float32)
            right[:, :, self.columns.numpy()] = np.matmul(coefficients.numpy(), self.rows.numpy())
            return torch.from_numpy(right)
        expanded = coefficients.new_zeros(*coefficients.shape[:2], self.inputs)
        expanded[:, :, self.columns] = torch.bmm(coefficients, self.rows.expand(len(coefficients), -1, -1))
        return expanded

    def differentiable(self, coefficients: Tensor) -> Tensor:
        """:meth:`expand`, but for rounding, as a differentiable function."""
        zeros = coefficients.new_zeros(*coefficients.shape[:2], self.inputs)
        return zeros.index_copy(2, self.columns, coefficients @ self.rows)


def find_directions(task: Task, kind: str) -> dict[str, Directions]:
    """The directions of every target, from what the unedited model feeds it on the reward split.

    "groups": a row for each group that the objective compares; "strata": a row for each label within each of
    these groups. A row is the mean input of its samples less the mean of all rows. Differences of means are
    what N. Belrose et al., "LEACE" (arXiv:2306.03819), find sufficient to take a concept from a linear
    classifier; null-space editing (J. Fang et al., "AlphaEdit", arXiv:2410.02355) limits what an edit
    may touch in a similar way.

    Under shift an edit then changes nothing for inputs at right angles to all rows; under mask nothing for
    inputs that are zero in all of them. Means are over all positions of a sequence or an image, padding
    included.

    Rows of groups keep their sizes, in units of their root mean square: groups that hardly differ are hardly
    edited. Strata are brought to equal sizes, as near to orthonormal as rows with a mean of zero can be
    (P.-O. Löwdin, J. Chem. Phys. 18, 1950), so that what differs between labels does not drown what differs
    between groups.

    Returns:
        Directions by target. Targets that have no more inputs than there are rows are left out: they keep
        all inputs. So do, with a warning, targets for which the rows do not differ, grouped convolutions, and
        subclasses with a forward of their own. Empty for "all".

    Raises:
        ValueError: for another kind, or an objective that compares no group or one that the samples lack.
    """
    if kind not in DIRECTIONS:
        raise ValueError(f"directions: expected one of {', '.join(DIRECTIONS)}; got {kind!r}")
    if kind == "all":
        return {}
    strata = _strata(task, by_label=kind == "strata")
    wide = {
        name: weight.shape[1]
        for name, weight in task.editable.weights().items()
        if weight.shape[1] > len(strata)
    }
    if not wide:
        return {}
    means = _mean_inputs(task, list(wide), torch.stack([_members(task, *stratum) for stratum in strata]))
    found = {}
    for name in wide:
        rows = _rows(means[name], kind) if name in means else None
        if rows is None:
            logger.warning("Inputs of %s do not tell the %s apart: its edits may use any input.", name, kind)
            continue
        columns = (rows != 0).any(0).nonzero().squeeze(1)
        found[name] = Directions(rows[:, columns].float().contiguous(), columns, wide[name])
    return found


def _strata(task: Task, by_label: bool) -> list[tuple[str, int | None]]:
    """Group, and label or None, of each row."""
    groups = task.samples.groups
    names = task.objective.compared_groups(task.samples.group_names)
    if not names or (unknown := [name for name in names if name not in groups]):
        raise ValueError(
            f"objective: expected compared_groups() to name some of {', '.join(groups)}; "
            f"got {', '.join(unknown) if names else 'none'}"
        )
    if not by_label:
        return [(name, None) for name in names]
    labels = task.samples.labels
    return [(name, label) for name in names for label in labels[groups[name]].unique().tolist()]


def _members(task: Task, group: str, label: int | None) -> Tensor:
    """Which samples belong to a row, bool [S] on the host."""
    mask = task.samples.groups[group]
    return mask if label is None else mask & (task.samples.labels == label)


@torch.no_grad()
def _mean_inputs(task: Task, names: Sequence[str], masks: Tensor) -> dict[str, Tensor]:
    """Per target the mean input of each row's samples, float64 [K, I]; without targets that have none."""
    editable = task.editable
    sums: dict[str, Tensor] = {}
    weights = torch.empty(0)  # 1 where a sample belongs to a row, float64 [K, s], of the batch under way

    def add(name: str, module: Target, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        rows = _as_rows(module, (*arguments, *keywords.values())[0], weights.shape[1])
        if rows is not None:
            sums[name] = sums.get(name, 0) + weights @ rows.double()

    # What a subclass makes of its input before it multiplies cannot be seen from here.
    plain = [name for name in names if is_plain(editable.targets[name])]
    handles = [
        editable.targets[name].register_forward_pre_hook(partial(add, name), with_kwargs=True)
        for name in plain
    ]
    try:
        with calling_modules():
            start = 0
            for inputs in task.samples.batches():
                part = masks[:, start : start + len(inputs)]
                start += len(inputs)
                wanted = part.any(0)
                if bool(wanted.any()):
                    weights = part[:, wanted].to(editable.device, torch.float64)
                    editable.model(editable.as_input(rows_of(inputs, wanted)))
    finally:
        for handle in handles:
            handle.remove()
    counts = masks.sum(1).to(editable.device, torch.float64)[:, None]
    return {name: total / counts for name, total in sums.items()}


def _as_rows(module: nn.Module, inputs: Tensor, samples: int) -> Tensor | None:
    """A target's inputs as one row per sample [s, I], the mean over positions where there are several; None
    where they cannot be told apart."""
    if isinstance(module, nn.Conv2d):
        return _mean_patch(module, inputs) if module.groups == 1 and len(inputs) == samples else None
    if inputs.numel() % (samples * inputs.shape[-1]):
        return None
    return inputs.reshape(samples, -1, inputs.shape[-1]).mean(1)


def _mean_patch(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """What the kernel sees on average, [s, C * kh * kw]: the mean of each of its entries' own view."""
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    images = F.pad(images, conv._reversed_padding_repeated_twice, mode)  # knows "same" and the modes
    spans = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    ends = [size - span for size, span in zip(images.shape[2:], spans, strict=True)]
    views = [
        images[:, :, y : y + ends[0] : conv.stride[0], x : x + ends[1] : conv.stride[1]].mean((2, 3))
        for y in range(0, spans[0] + 1, conv.dilation[0])
        for x in range(0, spans[1] + 1, conv.dilation[1])
    ]
    return torch.stack(views, dim=2).flatten(1)


def _rows(means: Tensor, kind: str) -> Tensor | None:
    """Contrasts of the means, of the sizes that the kind wants; None where the means are the same."""
    contrasts = means - means.mean(0)
    least = SAME * means.norm()
    if not bool(contrasts.norm() > least):
        return None
    if kind == "groups":
        sized: Tensor = contrasts / contrasts.square().sum(1).mean().sqrt()
        return sized
    # (C Cᵀ)^(-1/2) C, the pseudoinverse's root where C lacks rank. Of all rows that span what C spans with
    # equal weights those nearest to C, hence no sign or rotation is left to chance.
    eigenvalues, vectors = torch.linalg.eigh(contrasts @ contrasts.T)
    kept = eigenvalues > torch.maximum(NEGLIGIBLE**2 * eigenvalues[-1], least**2)
    vectors = vectors[:, kept]
    equal: Tensor = (vectors * eigenvalues[kept].rsqrt()) @ vectors.T @ contrasts
    return equal
