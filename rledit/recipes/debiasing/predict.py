"""Scores of new texts by the classifier of a finished run, unedited and edited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...edits import Edit
from ...experiments.verification import config_of
from .classifier import load
from .config import DebiasConfig
from .evaluation import margins_of
from .own import OWN


@dataclass(frozen=True, eq=False)
class Prediction:
    """Probabilities of toxic, float32 [S] each.

    Attributes:
        before: of the unedited classifier.
        after: of the edited one.
    """

    before: Tensor
    after: Tensor

    @property
    def labels(self) -> Tensor:
        """int64 [S]: 1 for what the edited classifier calls toxic."""
        return (self.after > 0.5).long()


def predict(run: Path, texts: Sequence[str]) -> Prediction:
    """Score texts. Nothing is written, and none of the run's own data is needed; the folder of an encoder or
    a transformer is.

    Args:
        run: a finished run folder of ``rledit debias``.
        texts: S strings.

    Raises:
        FileNotFoundError: there is no such run, or it is not finished.
        ValueError: it is a run of another kind, of a classifier that no file holds, its files do not fit
            together, or the classifier gives NaN.
    """
    config = _config(run)
    classifier, _ = load(config, None, run / "model.safetensors")
    edited = deepcopy(classifier.model)
    Edit.load(run / "edit.safetensors").apply_(edited)
    scores = []
    for which, model in (("unedited", classifier.model), ("edited", edited)):
        margins = margins_of(model, classifier.encode, texts)
        if bad := int(margins.isnan().sum()):
            raise ValueError(f"the {which} classifier gives NaN for {bad} of {len(texts)} texts")
        scores.append(torch.sigmoid(margins))
    return Prediction(*scores)


def _config(run: Path) -> DebiasConfig:
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run}: is no run folder of rledit, it has no config.json")
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error
    if not isinstance(asked, dict) or "forget" in asked:
        raise ValueError(f"{run}: expected a run of rledit debias, got one of another kind")
    if asked.get("model") == OWN:
        raise ValueError(
            f"{run}: its classifier was given from memory and no file says how it encodes; apply the edit to "
            "it, with rledit.Edit.load(...).apply_(model), and call it yourself"
        )
    for name in ("model.safetensors", "edit.safetensors", "metrics.json"):
        if not (run / name).is_file():
            raise FileNotFoundError(
                f"{run}: the run is not finished, it has no {name}; rledit debias --resume goes on with it"
            )
    asked.pop("rledit_version", None)
    return config_of(DebiasConfig, asked)
