"""What every audit is, and what it reads."""

from __future__ import annotations

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
    """A question put to a model after an edit, and to the models that the edit is compared with."""

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        """Figures by key; how they are shown is in :mod:`rledit.objectives.metric_names`.

        The model is left as it was, its mode included.

        Raises:
            ValueError: if the model or the samples do not allow this audit.
        """
        ...
