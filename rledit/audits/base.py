"""What every audit is, and what it reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor, nn

from ..samples import Samples
from .readings import Reading, read

FORGET, RETAIN = "forget", "retain"


@dataclass(frozen=True)
class AuditData:
    """What audits read, with the same groups in both sets.

    Attributes:
        train: samples that the model was trained on, those to forget included; probes learn from them.
        test: samples that it has never seen.
        classes: C of the model's logits.
        layers: names of the modules that were edited, in every model that is audited.
        trained: all that the model was trained on, where ``train`` is only a part of it.
        unedited: the model before the edit.
        retrained: a model trained like it, but without what is to be forgotten.
        seed: for whatever audits draw at random.
    """

    train: Samples
    test: Samples
    classes: int
    layers: tuple[str, ...] = ()
    trained: Samples | None = None
    unedited: nn.Module | None = None
    retrained: nn.Module | None = None
    seed: int = 0
    _kept: dict[tuple[int, int], tuple[nn.Module, Samples, Reading]] | None = field(
        default=None, repr=False, compare=False
    )

    def remembering(self) -> AuditData:
        """A copy whose :meth:`read` runs each model only once per set: models must stay as they are."""
        return self if self._kept is not None else replace(self, _kept={})

    def read(self, model: nn.Module, samples: Samples, batch_size: int = 250) -> Reading:
        """Outputs of the model and its edited layers, and what its head reads, for ``train`` or ``test``."""
        if self._kept is None:
            return read(model, samples, self.layers, batch_size=batch_size)
        key = (id(model), id(samples))  # both are kept in the value, so no id is reused
        if key not in self._kept:
            found = read(model, samples, self.layers, batch_size=batch_size)
            self._kept[key] = (model, samples, found)
        return self._kept[key][2]

    def group(self, name: str) -> Tensor:
        """Mask of a group among the test samples, bool [S]; all false where there is none."""
        return self.test.groups.get(name, self.test.labels < 0)


class Audit(Protocol):
    """A test of a model after an edit, and of the models that the edit is compared with.

    Its module also enters into :data:`rledit.objectives.METRIC_DISPLAYS` how its figures are shown. Tables
    and reports show all figures that there are: apart from its module, an audit needs only an entry in a list
    such as :data:`rledit.audits.unlearning.AUDITS`.
    """

    @property
    def note(self) -> str:
        """What its figures say and what to compare them with, in sentences for the report."""
        ...

    def __call__(self, model: nn.Module, data: AuditData) -> dict[str, float]:
        """Figures by key, NaN for one that these samples do not allow.

        A figure that is an :class:`~rledit.audits.Estimate` brings its 95% interval. The model is left as it
        was, its mode included.

        Raises:
            ValueError: if the model or the samples do not allow this audit.
        """
        ...


def run_audits(audits: Iterable[Audit], model: nn.Module, data: AuditData) -> dict[str, float]:
    """The figures of all audits by key, in the order of the audits.

    Audits share what the model says of the samples, so it must not be changed meanwhile. Audit the models
    that it is compared with as well: a figure says little without those of the unedited and a retrained one::

        from rledit.audits import AuditData, run_audits
        from rledit.audits.unlearning import AUDITS

        data = AuditData(train, test, classes=10, layers=("fc1",), unedited=before, retrained=retrained)
        for model in (before, after, retrained):
            print(run_audits(AUDITS, model, data))

    Raises:
        ValueError: if an audit is not possible, or two have a figure of the same key.
    """
    data = data.remembering()
    figures: dict[str, float] = {}
    for audit in audits:
        found = audit(model, data)
        if both := sorted(figures.keys() & found.keys()):
            raise ValueError(f"audits: expected one figure of each key, got several of {', '.join(both)}")
        figures |= found
    return figures


def intervals(figures: dict[str, float]) -> dict[str, list[float]]:
    """The 95% intervals of those figures that have one, by key."""
    found = {key: getattr(figure, "interval", None) for key, figure in figures.items()}
    return {key: interval for key, interval in found.items() if interval is not None}
