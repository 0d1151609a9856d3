"""Run folders: what a run leaves behind, so that it can be resumed, read and compared."""

from rledit.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from rledit.runs.folder import RunBusyError, RunFolder
from rledit.runs.history import History
from rledit.runs.plots import write_figures
from rledit.runs.report import write_report

__all__ = [
    "CheckpointError",
    "History",
    "RunBusyError",
    "RunFolder",
    "load_checkpoint",
    "save_checkpoint",
    "write_figures",
    "write_report",
]
