"""Run folders: what a run leaves behind, so that it can be resumed, read and compared."""

from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .folder import RunBusyError, RunFolder
from .history import History
from .plots import write_figures
from .report import write_report
from .result import RunResult
from .training import train

__all__ = [
    "CheckpointError",
    "History",
    "RunBusyError",
    "RunFolder",
    "RunResult",
    "load_checkpoint",
    "save_checkpoint",
    "train",
    "write_figures",
    "write_report",
]
