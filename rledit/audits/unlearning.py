"""The audits of an edit that forgets, and what a report says of them.

To add one: write it in a module of its own (see :class:`~rledit.audits.Audit`), and put it into the list.
"""

from __future__ import annotations

from collections.abc import Iterable

from .base import Audit
from .linear_probe import LinearProbe

AUDITS: tuple[Audit, ...] = (LinearProbe(groups=("forget",)),)
"""Put to the model before and after the edit, and to the models that the edit is compared with."""

NOT_MEASURED = "Membership inference and the speed of relearning are not measured."
"""What no audit of the list asks."""


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
