"""The report of a run that has been audited since: written anew, with what was measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ...audits import Audit
from ...edits import Edit
from ...experiments.folder import locked
from ...experiments.history import read_history
from ...experiments.plots import draw_all
from ...experiments.record import record_again
from ...experiments.report import Finished, write_page
from ...experiments.run import reason_of
from ...experiments.verification import config_of
from ...targets import find_targets, matrices
from .config import UnlearningConfig
from .report import drawings, page, with_audits

logger = logging.getLogger("rledit")

REPORT, RECORD, METRICS = "report.html", "record.json", "metrics.json"


def rewrite_report(
    folder: Path,
    audited: Mapping[str, Any],
    audits: Iterable[Audit],
    *,
    edit: Edit,
    unedited: nn.Module,
    classes: Sequence[str],
    measured: str,
) -> bool:
    """Write report.html of a finished run with other audits than its own, and name it in the record again.

    Its figures are those of metrics.json, which stays as it is, with those that were measured later in their
    place. Whatever fails is logged: the audits themselves are kept.

    Args:
        folder: folder of the run.
        audited: see :func:`.report.with_audits`.
        audits: those that were run.
        edit: the run's.
        unedited: the network before it.
        classes: their names.
        measured: the file in the folder that holds the figures; it is recorded, too.

    Returns:
        Whether the report was written.
    """
    try:
        with locked(folder):
            try:
                _write(folder, audited, audits, edit, unedited, classes)
            finally:
                if (folder / RECORD).is_file():
                    names = [name for name in (REPORT, measured) if (folder / name).is_file()]
                    record_again(folder / RECORD, names)
    except Exception as error:
        logger.warning("The report of the run could not be written with these audits: %s", reason_of(error))
        return False
    return True


def _write(
    folder: Path,
    audited: Mapping[str, Any],
    audits: Iterable[Audit],
    edit: Edit,
    unedited: nn.Module,
    classes: Sequence[str],
) -> None:
    asked = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    asked.pop("rledit_version")
    config = config_of(UnlearningConfig, asked)
    known = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    metrics = with_audits(known, audited)
    weights = matrices(find_targets(unedited, edit.targets))
    finished = Finished(metrics, read_history(folder / "history.csv"), edit, weights)
    figures, _ = draw_all(drawings(finished, classes))
    said = "Measured after the run, by rledit audit."
    content = page(config, classes, audits, metrics, said)
    write_page(folder / REPORT, content, config.resolved(), finished, figures)
