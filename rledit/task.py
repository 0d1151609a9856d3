"""Task: a model, what may be edited in it, the samples it is judged on, and the objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from .objectives import Objective, as_objective
from .readouts import Readout
from .samples import Samples
from .scoring import EditableModel, Scorer
from .scoring.scorer import BackendName, Precision
from .tally import Tally

SHOWN_TARGETS = 6


Split: TypeAlias = Literal["reward", "validation"]


class Task:
    """What to edit, and what for.

    The task keeps a private copy of the model, in eval mode: the caller's model is never changed, and later
    changes to it do not reach the task. Half-precision weights are computed with in float32. Forward hooks
    that only watch (they return nothing and change nothing) are not part of the copy; hooks that act are,
    with copies of the variables that they hold. torch's modes around the call (no_grad, inference_mode,
    autocast, a default dtype or device) make no difference.

    Memory: one copy of the model, in its own precision but for targets and the layers of a fused tail, which
    are float32. While candidates are scored, the fused op keeps unedited layers behind the first packed once
    more, and a model that runs whole has one candidate's edited weights.

    Args:
        model: any ``nn.Module``, called as the samples' inputs say. Its output is logits [S, C], or holds
            them: an object or a mapping with ``logits``, or a tuple that begins with them. One logit z per
            sample, [S] or [S, 1], is seen as [0, z]. A logit may be -inf, for a class that the model rules
            out.
        targets: names of the modules whose weights may be edited: ``nn.Linear``, ``nn.Conv2d``, or any other
            whose weight has two or more dimensions. Patterns (``"*.down_proj"``) and the ends of names
            (``"down_proj"``) stand for all modules that they fit. Other classes than these two, and
            subclasses with a forward of their own, are run by it, candidate by candidate.
        samples: the split that the reward is counted on.
        objective: from a tally to a value per candidate; larger is better.
        validation: the split that picks the edit; by default the reward's.
        readout: how the model's output becomes logits where that is another way (:mod:`rledit.readouts`).

    Raises:
        TypeError: for a target without a weight of two or more dimensions, an objective that is not a
            function, or inputs in another dtype than the model's.
        ValueError: for an unknown target (the candidates are listed), a target that cannot have an effect or
            whose weight is used elsewhere, labels beyond the logits, a group that the objective needs and the
            samples lack, weights that are not finite, inputs that the model fails on, a forward that is not
            deterministic, or logits of a sample that depend on the rest of its batch.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[str],
        samples: Samples,
        objective: Objective | Callable[[Tally], Any],
        validation: Samples | None = None,
        *,
        readout: Readout | None = None,
    ) -> None:
        self.samples = samples
        self.validation = samples if validation is None else validation
        for name, split in (("samples", self.samples), ("validation", self.validation)):
            if not isinstance(split, Samples):
                raise TypeError(f"{name}: expected rledit.Samples, got {type(split).__name__}")
        self.objective = as_objective(objective)
        self.editable = EditableModel(model, targets, self.samples, self.validation, readout=readout)
        self._check_samples("samples", self.samples)
        self._check_samples("validation", self.validation)

    def _check_samples(self, name: str, samples: Samples) -> None:
        if int(samples.labels.max()) >= self.classes:
            raise ValueError(
                f"{name}: expected labels in 0..{self.classes - 1}, the model's classes; "
                f"got {int(samples.labels.max())}"
            )
        self.objective.check(samples)

    def __repr__(self) -> str:
        targets = [
            f"{name} {outputs}x{inputs} (rank up to {min(outputs, inputs)})"
            for name, (outputs, inputs) in ((n, w.shape) for n, w in self.editable.weights().items())
        ]
        if len(targets) > SHOWN_TARGETS:
            targets[SHOWN_TARGETS:] = [f"and {len(targets) - SHOWN_TARGETS} more"]
        validation = "the same" if self.validation is self.samples else repr(self.validation)
        lines = (
            f"Task(model={type(self.editable.model).__name__}, classes={self.classes}, "
            f"way={self.editable.way}",
            f"  targets={', '.join(targets)}",
            f"  samples={self.samples!r}",
            f"  validation={validation}",
            f"  objective={self.objective!r})",
        )
        return "\n".join(lines)

    @property
    def classes(self) -> int:
        """C of the model's logits."""
        return self.editable.classes

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the target weights of the model as it was given."""
        return self.editable.fingerprint

    @property
    def casts(self) -> dict[str, str]:
        """Fingerprints of the same weights in other precisions, see :func:`rledit.storage.fingerprints`."""
        return self.editable.casts

    def weights(self) -> dict[str, Tensor]:
        """The unedited weights of the targets as matrices [O, I]; copies, which are the caller's."""
        return {name: weight.clone() for name, weight in self.editable.weights().items()}

    def scorer(
        self,
        backend: BackendName = "auto",
        precision: Precision = "float32",
        split: Split = "reward",
    ) -> Scorer:
        """A scorer of the ``reward`` or the ``validation`` split.

        Args:
            backend: see :func:`rledit.ops.backend`.
            precision: "float32", or "bfloat16" for operands rounded to bfloat16.
        """
        if split not in ("reward", "validation"):
            raise ValueError(f"split: expected 'reward' or 'validation', got {split!r}")
        samples = self.samples if split == "reward" else self.validation
        return Scorer(self.editable, samples, self.objective, backend, precision)
