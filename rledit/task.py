"""Task: a model, what may be edited in it, the samples it is judged on, and the objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from .objectives import Objective, as_objective
from .samples import Samples
from .scoring import EditableModel, Scorer
from .tally import Tally


class Task:
    """What to edit, and what for.

    The task keeps a private copy of the model, in eval mode: the caller's model is never changed, and later
    changes to it do not reach the task. Weights in half precision are scored in float32.

    Args:
        model: any ``nn.Module`` from one input tensor [S, ...] to logits [S, C].
        targets: names of the ``nn.Linear`` and ``nn.Conv2d`` modules whose weights may be edited.
        samples: the split that the reward is counted on.
        objective: from a tally to a value per candidate; larger is better.
        validation: the split that picks the edit; by default the reward's.

    Raises:
        TypeError: for a target that is neither Linear nor Conv2d, an objective that is no function, or
            inputs in another dtype than the model's.
        ValueError: for an unknown target (the candidates are listed), labels beyond the logits, a group that
            the objective needs and the samples lack, weights that are not finite, inputs that the
            model fails on, or a model whose logits cannot be reproduced: samples that depend on
            each other, a forward that is not deterministic, a target's weight that is used elsewhere.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[str],
        samples: Samples,
        objective: Objective | Callable[[Tally], Any],
        validation: Samples | None = None,
    ) -> None:
        self.samples = samples
        self.validation = samples if validation is None else validation
        for name, split in (("samples", self.samples), ("validation", self.validation)):
            if not isinstance(split, Samples):
                raise TypeError(f"{name}: expected rledit.Samples, got {type(split).__name__}")
        self.objective = as_objective(objective)
        self.editable = EditableModel(model, targets, samples)
        self._check_samples("samples", self.samples)
        self._check_samples("validation", self.validation)

    def _check_samples(self, name: str, samples: Samples) -> None:
        if int(samples.labels.max()) >= self.classes:
            raise ValueError(
                f"{name}: expected labels in 0..{self.classes - 1}, the model's classes; "
                f"got {int(samples.labels.max())}"
            )
        self.objective.check(samples)

    @property
    def classes(self) -> int:
        """C of the model's logits."""
        return self.editable.classes

    @property
    def fingerprint(self) -> str:
        """Of the target weights of the model as it was given."""
        return self.editable.fingerprint

    def weights(self) -> dict[str, Tensor]:
        """The unedited weights of the targets as matrices [O, I]."""
        return self.editable.weights()

    def scorer(self, backend: str = "auto", precision: str = "float32", split: str = "reward") -> Scorer:
        """A scorer of the ``reward`` or the ``validation`` split.

        Args:
            backend: "auto", "native", "triton", "cuda" or "reference"; see :func:`rledit.ops.backend`.
            precision: "float32", or "bfloat16" for operands rounded to bfloat16.
        """
        if split not in ("reward", "validation"):
            raise ValueError(f"split: expected 'reward' or 'validation', got {split!r}")
        samples = self.samples if split == "reward" else self.validation
        return Scorer(self.editable, samples, self.objective, backend, precision)
