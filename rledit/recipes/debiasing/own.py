"""A debiasing run on a classifier that the caller holds: its settings, and what is not as in the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...experiments.config import EditingConfig
from ...experiments.console import Console
from ...experiments.folder import RunFolder
from ...experiments.run import Prepared
from ...objectives import Debias
from ...storage.files import write_tensors
from ...worlds import DirectionKind
from .classifier import Classifier
from .config import DebiasConfig
from .data import DebiasData
from .evaluation import BATCH
from .rows import Rows
from .run import DebiasRecipe
from .two_logits import own_weights

OWN = "own"
"""The model's name in the config of such a run."""


@dataclass(frozen=True, kw_only=True)
class OwnConfig(DebiasConfig):
    """Settings of a run on a classifier of the caller's. ``layer`` names modules of that classifier, and the
    other options of data and models say nothing.

    Raises:
        ValueError: for a name that is unknown or a number that is out of range.
    """

    goal: Debias = field(default_factory=Debias)
    """The objective."""

    def __post_init__(self) -> None:
        EditingConfig.__post_init__(self)  # not DebiasConfig's: data and layers are the caller's
        if not self.layer or len(set(self.layer)) != len(self.layer):
            raise ValueError(
                f"targets: expected names of one module or of several different ones, got {list(self.layer)}"
            )

    @property
    def chosen_directions(self) -> DirectionKind:
        """With "auto": groups."""
        return "groups" if self.directions == "auto" else self.directions

    @property
    def chosen_least(self) -> int:
        return self.goal.least_group

    def objective(self) -> Debias:
        return self.goal

    def asked(self) -> dict[str, Any]:
        general = {part.name for part in fields(EditingConfig)}
        plain = replace(self, goal=Debias())  # whatever a caller's objective holds
        asked = {key: value for key, value in EditingConfig.asked(plain).items() if key in general}
        return asked | {"model": OWN, "layer": list(self.layer), "objective": repr(self.goal)}

    def resolved(self) -> dict[str, Any]:
        return self.asked() | {"directions": self.chosen_directions}


class OwnClassifier:
    """A model of the caller's with two logits, and rows that can be encoded."""

    def __init__(self, model: nn.Module, rows: Rows) -> None:
        """``model``: in eval mode, on the CPU."""
        self.model = model
        self.encode = rows.encode

    def save(self, path: Path, seconds: float) -> None:
        write_tensors(path, own_weights(self.model), {"pretrain_seconds": repr(seconds)})


class OwnRecipe(DebiasRecipe):
    """A run on a classifier of the caller's."""

    kind = "debiasing a classifier from memory"  # which no file can bring back, so it cannot be checked

    def __init__(self, config: OwnConfig, data: DebiasData, classifier: OwnClassifier) -> None:
        super().__init__(config, data=data)
        self._own: Classifier = classifier
        self._classifier = classifier

    def classifier(self, path: Path, console: Console) -> tuple[Classifier, float]:
        return self._own, 0.0

    def prepare(self, folder: RunFolder, console: Console) -> Prepared:
        prepared = super().prepare(folder, console)
        self._own.save(folder.model, 0.0)  # now that nothing in it can be refused any more
        return prepared

    @property
    def parts(self) -> tuple[Classifier, DebiasData]:
        """For whoever goes through the steps without a folder."""
        return self._own, self._data


@torch.no_grad()
def check_logits(model: nn.Module, rows: Rows, texts: Sequence[str], what: str) -> None:
    """Refuse a classifier that gives no numbers.

    Raises:
        ValueError: the logits of some of these texts are NaN or infinite, or not [S, C].
    """
    for start in range(0, len(texts), BATCH):
        logits = model(rows.encode(texts[start : start + BATCH]))
        bad = (~logits.reshape(len(logits), -1).isfinite().all(1)).nonzero().flatten()
        if len(bad):
            raise ValueError(
                f"model: expected finite logits, got NaN or infinity for {len(bad)} of {len(logits)} rows of "
                f"{what}, the first being row {start + int(bad[0])}"
            )
