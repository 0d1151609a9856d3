"""Directions: the part of a target's input space in which an agent's right factors lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..samples import Samples
from ..task import Task

Kind = Literal["all", "strata", "groups"]
DIRECTIONS: tuple[Kind, ...] = get_args(Kind)

BATCH = 256
NEGLIGIBLE = 1e-8
"""Of the largest eigenvalue: what is below is rounding, or the same contrast once more."""

SAME = 1e-6
"""Of the means' norm: means that differ by less are the same."""


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
        """Coefficients float32 [N, R, K] as right factors [N, R, I]."""
        right = coefficients.new_zeros(*coefficients.shape[:2], self.inputs)
        right[:, :, self.columns] = coefficients @ self.rows
        return right


def find_directions(task: Task, kind: str) -> dict[str, Directions]:
    """The directions of every target, from what the unedited model feeds it on the reward split.

    "strata": a row for each label within each group that the objective compares; "groups": a row for each of
    these groups. A row is the mean input of its samples less the mean of all rows, so an edit acts on that
    by which these samples differ, and leaves inputs alone that are none of theirs. Differences of means are
    what N. Belrose et al., "LEACE" (arXiv:2306.03819), find sufficient to take a concept from a linear
    classifier; null-space editing (J. Fang et al., "AlphaEdit", arXiv:2410.02355) keeps to what an edit may
    touch in a like manner.

    Rows of strata are made orthonormal, symmetrically (P.-O. Löwdin, J. Chem. Phys. 18, 1950), so that what
    differs between labels does not drown what differs between groups. Rows of groups keep their sizes, in
    units of their root mean square: groups that hardly differ are hardly edited.

    Returns:
        by target; without those that have no more inputs than there would be rows, and empty for "all".

    Raises:
        ValueError: for another kind, where the means do not differ, or for a target that the model never
            calls.
    """
    if kind not in DIRECTIONS:
        raise ValueError(f"directions: expected one of {', '.join(DIRECTIONS)}; got {kind!r}")
    if kind == "all":
        return {}
    masks = _strata(task, by_label=kind == "strata")
    found = {}
    for name, means in _mean_inputs(task, masks).items():
        if len(means) >= means.shape[1]:
            continue  # they span about everything, in more numbers
        contrasts = means - means.mean(0)
        if not bool(contrasts.norm() > SAME * means.norm()):
            raise ValueError(
                f"directions: expected {kind} whose mean inputs of {name!r} differ, but those of the "
                f"{len(masks)} there are do not; expected 'all'"
            )
        if kind == "strata":
            rows = _orthonormal(contrasts)
        else:
            rows = contrasts / contrasts.square().sum(1).mean().sqrt()
        columns = (contrasts != 0).any(0).nonzero().squeeze(1)
        found[name] = Directions(rows[:, columns].float().contiguous(), columns, contrasts.shape[1])
    return found


def _strata(task: Task, by_label: bool) -> Tensor:
    """Bool [M, S] on the host: the samples of each row."""
    samples = task.samples
    compared: Callable[[tuple[str, ...]], Sequence[str]] | None
    compared = getattr(task.objective, "compared_groups", None)
    names = samples.group_names if compared is None else compared(samples.group_names)
    masks = [samples.groups[name] for name in names]
    if by_label:
        masks = [mask & (samples.labels == label) for mask in masks for label in samples.labels.unique()]
    return torch.stack([mask for mask in masks if bool(mask.any())])


@torch.no_grad()
def _mean_inputs(task: Task, masks: Tensor) -> dict[str, Tensor]:
    """Per target the mean input of each row's samples, float64 [M, I]."""
    editable = task.editable
    sums: dict[str, Tensor] = {}
    weights = torch.empty(0)  # 1 where a sample belongs to a row, [M, s], of the batch under way

    def add(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        part = (weights @ _as_rows(module, arguments[0])).double()
        sums[name] = sums[name] + part if name in sums else part

    handles = [
        target.register_forward_pre_hook(partial(add, name)) for name, target in editable.targets.items()
    ]
    try:
        start = 0
        for inputs in _batches(task.samples):
            part = masks[:, start : start + len(inputs)]
            start += len(inputs)
            wanted = part.any(0)
            if bool(wanted.any()):
                weights = part[:, wanted].to(editable.device, editable.dtype)
                editable.model(editable.as_input(inputs[wanted.to(inputs.device)]))
    finally:
        for handle in handles:
            handle.remove()
    if unseen := [name for name in editable.targets if name not in sums]:
        raise ValueError(
            f"directions: the model never calls {unseen[0]!r}, which has no inputs; expected 'all'"
        )
    counts = masks.sum(1).to(editable.device, torch.float64)[:, None]
    return {name: sums[name] / counts for name in editable.targets}


def _batches(samples: Samples) -> Iterator[Tensor]:
    """Of BATCH inputs at most, whatever a data loader gives."""
    for inputs in samples.batches(BATCH):
        yield from inputs.split(BATCH)


def _as_rows(module: nn.Module, inputs: Tensor) -> Tensor:
    """A target's inputs as one row per sample [s, I], the mean over positions where there are several."""
    if isinstance(module, nn.Conv2d):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padded = F.pad(inputs, module._reversed_padding_repeated_twice, mode)  # knows "same" and the modes
        patches = F.unfold(padded, module.kernel_size, module.dilation, 0, module.stride)
        return patches.mean(2).view(len(inputs), module.groups, -1).mean(1)
    rows: Tensor = inputs.flatten(1, -2).mean(1) if inputs.dim() > 2 else inputs
    return rows


def _orthonormal(contrasts: Tensor) -> Tensor:
    """(C Cᵀ)^(-1/2) C: of all orthonormal rows of the same span those nearest to C, hence no sign or rotation
    is left to chance. Where C lacks rank this is the pseudoinverse's root."""
    eigenvalues, vectors = torch.linalg.eigh(contrasts @ contrasts.T)
    kept = eigenvalues > NEGLIGIBLE * eigenvalues[-1]
    vectors = vectors[:, kept]
    rows: Tensor = (vectors * eigenvalues[kept].rsqrt()) @ vectors.T @ contrasts
    return rows
