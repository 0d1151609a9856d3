"""A whole unlearning run on a known data set: what ``rledit unlearn`` does.

``config``     what is asked
``data``       the splits, and accuracies on the test split
``run``        pretraining, editing, evaluation and the report, in a run folder
``report``     how the figures of audits are shown
``record``     the splits as the run's record states them
``audit_run``  audits of a finished run; ``audited_report``, its report with them
"""

from ...experiments.config import make_trainer
from ...worlds import WORLDS
from .config import DEFAULTS, UnlearningConfig
from .data import UnlearningData, evaluate
from .run import make_task, retrain_baseline, run

__all__ = [
    "DEFAULTS",
    "WORLDS",
    "UnlearningConfig",
    "UnlearningData",
    "evaluate",
    "make_task",
    "make_trainer",
    "retrain_baseline",
    "run",
]
