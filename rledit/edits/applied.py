"""An edit in a model in memory: which modules its targets are, what they held before, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ..storage.fingerprint import fingerprint
from .keys import search
from .weights import target_weights, usable_weights, write_weights


@dataclass(frozen=True)
class Applied:
    """What one model held before an edit and holds since.

    Attributes:
        modules: target -> its name in this model.
        originals: target -> its weight before.
        before, after: fingerprints of the targets' weights.
    """

    modules: dict[str, str]
    originals: dict[str, Tensor]
    before: str
    after: str

    def is_undone(self, weights: Mapping[str, Tensor]) -> bool:
        """Whether the original bits have come back by other means."""
        now = fingerprint(weights)
        return now == self.before and now != self.after

    def take_back(self, weights: Mapping[str, Tensor], force: bool) -> None:
        """Write the original bits.

        Args:
            weights: weights of the targets in the model, now.
            force: even though they are not what the edit left.

        Raises:
            RuntimeError: they were changed since (unless ``force``).
        """
        now = fingerprint(weights)
        if not force and now != self.after:
            raise RuntimeError(
                f"the weights of {list(self.modules)} were changed since apply_: expected {self.after}, "
                f"found {now}; revert later edits first, or restore the original bits with force=True"
            )
        write_weights(weights, self.originals)


def write(modules: dict[str, str], weights: Mapping[str, Tensor], edited: Mapping[str, Tensor]) -> Applied:
    """Write the edited weights into a model's own, all or none.

    Args:
        modules: target -> its name in the model.
        weights: target -> the model's own weight.
        edited: target -> what it becomes.
    """
    before = fingerprint(weights)
    originals = write_weights(weights, edited)
    return Applied(modules, originals, before, fingerprint(weights))


def find_modules(model: nn.Module, sizes: Mapping[str, tuple[int, int]], learned_for: str) -> dict[str, str]:
    """Target -> the name of its module: its own, unless another holds the weights of an absent one.

    Args:
        sizes: target -> (O, I).
        learned_for: the fingerprint of the weights that the edit was learned for.
    """
    present = dict(model.named_modules(remove_duplicate=False))
    known = {name: name for name in sizes if name in present}
    if len(known) < len(sizes):
        weights = usable_weights(model) | (target_weights(model, list(known)) if known else {})
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        found = search(sizes, shapes, learned_for, weights.__getitem__, known)
        if found is not None:
            return found
    return {name: name for name in sizes}


def weights_of(model: nn.Module, modules: Mapping[str, str]) -> dict[str, Tensor]:
    """Target -> its weight in a model."""
    weights = target_weights(model, list(modules.values()))
    return {target: weights[name] for target, name in modules.items()}
