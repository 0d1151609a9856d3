"""What every audit is, and what it reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from ..samples import Samples


@dataclass(frozen=True)
class AuditData:
    """What audits read, with the same groups in both sets.

    Attributes:
        train: samples that the model was trained on, those to forget included.
        test: samples that it has never seen.
        classes: C of the model's logits.
    """

    train: Samples
    test: Samples
    classes: int


class Audit(Protocol):
    """A question put to a model after an edit, and to the models that the edit is compared with.

    Its module also enters into :data:`rledit.objectives.METRIC_DISPLAYS` how its figures are shown. Tables
    and reports show all figures that there are: beside its module, an audit needs an entry in a list such as
    :data:`rledit.audits.unlearning.AUDITS`, and nothing else.
    """

    @property
    def note(self) -> str:
        """What its figures say and what to compare them with, in sentences for the report."""
        ...

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        """Figures by key, NaN for one that these samples do not allow.

        The model is left as it was, its mode included.

        Raises:
            ValueError: if the model or the samples do not allow this audit.
        """
        ...


def run_audits(audits: Iterable[Audit], model: nn.Module, data: AuditData) -> dict[str, float]:
    """The figures of all audits by key, in the order of the audits.

    Raises:
        ValueError: if an audit is not possible, or two have a figure of the same key.
    """
    figures: dict[str, float] = {}
    for audit in audits:
        found = audit(model, data)
        if both := sorted(figures.keys() & found.keys()):
            raise ValueError(f"audits: expected one figure of each key, got several of {', '.join(both)}")
        figures |= found
    return figures
