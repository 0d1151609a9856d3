"""What every objective is, and the values that it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..ops.counts import TALLY_PARTS
from ..ops.probe import Classifier
from ..samples import Samples
from ..storage.files import Json
from ..tally import Tally
from .identity import identity_of
from .soft import SoftTally


class Objective(ABC):
    """What a task edits for: from the counts of N candidates to one value each, larger is better.

    An objective sees counts and never samples, so it costs next to nothing. Only :meth:`__call__` must be
    written; everything else has a default::

        class Careful(rledit.Objective):
            needs = frozenset({"correct", "loss"})

            def __call__(self, tally):
                return tally.mean_loss("forget")

            def admissible(self, tally):
                return tally.accuracy("retain") >= 0.95

    Attributes:
        needs: the parts of the tally that the objective reads, some of :data:`rledit.ops.TALLY_PARTS`.
            Nothing else is counted, except ``correct``, which always is.
        classifier: what ``recalled`` is counted by, "ridge" or "logistic"; see :class:`rledit.ops.Probe`.
    """

    needs: frozenset[str] = frozenset({"correct"})
    classifier: Classifier = "ridge"

    @abstractmethod
    def __call__(self, tally: Tally) -> Tensor:
        """The value of each candidate, finite numbers [N]."""

    def check(self, samples: Samples) -> None:  # noqa: B027 - most objectives have nothing to check
        """Raise ValueError if the objective cannot be computed on these samples, for lack of a group say.

        Called for every split when a task is made.
        """

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        """Named figures for people to read, each float64 [N]; by default the accuracy of every group.

        How they are shown: :mod:`rledit.objectives.metric_names`.
        """
        if "correct" not in self.needs:
            return {}
        return {f"{group}_accuracy": tally.accuracy(group) for group in tally.groups}

    def admissible(self, tally: Tally) -> Tensor | None:
        """Which candidates keep the objective's constraint, bool [N]; None where there is no constraint.

        The edit that is returned keeps it on the validation split, if any does.
        """
        return None

    def soft(self, tally: SoftTally) -> Tensor | None:
        """A differentiable stand-in for the values, floating [N], larger is better; None where there is none.

        :class:`rledit.GradientSearch` goes up its slope. What it finds is judged by the counts, as always. A
        subclass with a ``__call__`` of its own needs a ``soft`` of its own, too.
        """
        return None

    @property
    def constrained(self) -> bool:
        """Whether there is a constraint: by default, whether :meth:`admissible` is overridden."""
        return type(self).admissible is not Objective.admissible

    def confirmation(self, samples: Samples, unedited: Tensor) -> Callable[[Tensor], bool] | None:
        """How an edit that is about to be returned is judged once more, sample by sample; None where counts
        have said all there is to say, as by default.

        Asked on the validation split, for one candidate after the other, the best first, until one passes.
        An edit that changes nothing is not asked about.

        Args:
            samples: the split.
            unedited: logits [S, C] of the unedited model.

        Returns:
            from the logits [S, C] of an edited model to whether it may be returned.
        """
        return None

    @property
    def confirms(self) -> bool:
        """Whether there is such a judge: by default, whether :meth:`confirmation` is overridden."""
        return type(self).confirmation is not Objective.confirmation

    @property
    def unedited_admissible(self) -> bool:
        """Whether the unedited model keeps the constraint by its very definition, and any edit that is small
        enough does, as with a budget for what may be lost. Not so with a level that has to be reached."""
        return True

    def relative_to(self, unedited: Tally) -> Objective:
        """The objective that compares with the unedited model, whose tally on one split is given.

        Scorers call it if :attr:`needs_unedited`, each for its split; by default nothing is compared.
        """
        return self

    @property
    def needs_unedited(self) -> bool:
        """Whether values depend on the unedited model: by default, whether :meth:`relative_to` is
        overridden."""
        return type(self).relative_to is not Objective.relative_to

    def compared_groups(self, groups: tuple[str, ...]) -> tuple[str, ...]:
        """The groups of the samples between which directions are sought; by default all."""
        return groups

    def identity(self) -> dict[str, Json]:
        """What must be equal for a checkpoint of one search to fit another.

        By default the class, its settings and, of a class that is not rledit's own, its code. Settings are
        the fields of a dataclass, except those with ``compare=False``, or the attributes of any other object
        whose names do not begin with an underscore. Override it where attributes change during a search.
        """
        return identity_of(self)

    def _called(self) -> str:
        return type(self).__name__


def name_of(objective: Objective) -> str:
    """What error messages call an objective: its class, or the name of a plain function."""
    return objective._called()


def check_needs(needs: object, argument: str = "needs") -> frozenset[str]:
    """The parts of a tally as a set.

    Raises:
        TypeError: for anything but a collection of names.
        ValueError: for an unknown part.
    """
    known = f"expected some of {', '.join(TALLY_PARTS)}"
    if isinstance(needs, str) or not isinstance(needs, Iterable):
        raise TypeError(f"{argument}: {known}, in a set or a list; got {needs!r}")
    parts = list(needs)
    if unknown := [part for part in parts if part not in TALLY_PARTS]:
        raise ValueError(f"{argument}: {known}; got {', '.join(map(str, unknown))}")
    return frozenset(parts)


def values_of(objective: Objective, tally: Tally) -> Tensor:
    """The objective's values, float64 [N] on the tally's device. Does not wait for a GPU.

    Raises:
        TypeError: if it gives anything but real numbers.
        ValueError: if it does not give one value per candidate.
    """
    return as_values(objective(tally), tally, name_of(objective))


def as_values(given: object, tally: Tally, name: str) -> Tensor:
    """What an objective has given, see :func:`values_of`."""
    try:
        values = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"objective: expected {name} to give a tensor of {tally.candidates} values, one per candidate; "
            f"got {type(given).__name__}"
        ) from error
    if values.is_complex():
        raise TypeError(f"objective: expected {name} to give real numbers, got {values.dtype}")
    if values.shape != (tally.candidates,):
        raise ValueError(
            f"objective: expected {name} to give one value per candidate, shape [{tally.candidates}], "
            f"got {list(values.shape)}"
        )
    return values.detach().to(tally.device, torch.float64)


def admissible_of(objective: Objective, tally: Tally) -> Tensor | None:
    """Which candidates keep the objective's constraint, bool [N] on the tally's device; None without one.

    Raises:
        TypeError: if the objective gives anything but truth values.
        ValueError: if it does not give one per candidate.
    """
    kept = objective.admissible(tally)
    if kept is None:
        return None
    if not isinstance(kept, Tensor) or kept.dtype != torch.bool:
        got = str(kept.dtype) if isinstance(kept, Tensor) else type(kept).__name__
        raise TypeError(f"objective: expected admissible() of {name_of(objective)} to give bool, got {got}")
    if kept.shape != (tally.candidates,):
        raise ValueError(
            f"objective: expected admissible() of {name_of(objective)} to give one value per candidate, "
            f"shape [{tally.candidates}], got {list(kept.shape)}"
        )
    return kept.to(tally.device)


def check_finite(values: Tensor, objective: Objective) -> Tensor:
    """The objective's values [N], if all are finite; else ValueError. Waits for a GPU."""
    finite = values.isfinite()
    if not bool(finite.all()):
        worst = int((~finite).nonzero()[0, 0])
        raise ValueError(
            f"objective: expected {name_of(objective)} to give finite values, got {float(values[worst])} "
            f"for candidate {worst}"
        )
    return values
