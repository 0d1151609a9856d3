"""The audits of an edit that forgets, and what a report says about them.

To add one: write it in a module of its own (see :class:`~rledit.audits.Audit`), and put it into a list.
"""

from __future__ import annotations

from collections.abc import Iterable

from .agreement import Agreement
from .base import Audit
from .calibration import Calibration
from .class_mean import ClassMean
from .few_shot import FewShot
from .leakage import Leakage
from .linear_probe import LinearProbe
from .membership import Membership
from .mlp_probe import MLPProbe
from .pruning import Pruning
from .relearning import Relearning
from .retained_classes import RetainedClasses
from .rounding import Rounding

AUDITS: tuple[Audit, ...] = (
    LinearProbe(groups=("forget",)),
    ClassMean(groups=("forget",)),
    FewShot(),
    Relearning(draws=1, judged=200),
    Membership(),
    Leakage(),
    RetainedClasses(),
    Calibration(),
)
"""Run on the model before and after the edit, and on the models that the edit is compared with: those that
take a few seconds at most."""

AGAINST_RETRAINED: tuple[Audit, ...] = (Agreement(),)
"""Run on the model before and after the edit, once there is a retrained network to compare it with."""

THOROUGH: tuple[Audit, ...] = (
    LinearProbe(layers=True),
    ClassMean(layers=True),
    MLPProbe(),
    FewShot(),
    Relearning(),
    Membership(whole=True),
    Leakage(),
    Agreement(),
    RetainedClasses(),
    Calibration(),
    Rounding(),
    Pruning(),
)
"""All that need no further models: what ``rledit audit --thorough`` runs."""

HEADLINE = (
    "forget_accuracy",
    "retain_accuracy",
    "forget_probe_accuracy",
    "forget_1_shot_accuracy",
    "relearn_steps",
    "membership_auc",
)
"""The figures of :data:`AUDITS` in the first table, after the accuracies."""

NOT_MEASURED = "Attacks by shadow models, which take many trained networks, are not made."
"""What no audit of the lists measures."""


def limits(audits: Iterable[Audit] = AUDITS) -> str:
    """What the figures of a report do not show."""
    return " ".join(
        [
            "A forget accuracy near zero shows the output no longer names the class; it does not show that "
            "the features no longer carry it. Suppressing one logit is enough for it.",
            *(audit.note for audit in audits),
            NOT_MEASURED,
            "All numbers here are of one run on one test split.",
        ]
    )
