"""Options that every command with a run folder has, in addition to its config."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..experiments.training import CHECKPOINT_SECONDS


@dataclass(frozen=True)
class RunFlags:
    """Where a run goes and how it is carried out. None of it changes the edit."""

    out: Path
    """The run folder. It must be new or empty, unless --resume or --overwrite is given."""
    data_root: Path | None = None
    """Folder with the data; else the environment variable RLEDIT_DATA, else the user's cache folder."""
    resume: bool = False
    """Go on with the run in the folder. With more --candidates a finished run is extended."""
    overwrite: bool = False
    """Delete the run in the folder and start anew."""
    tensorboard: bool = False
    """Also write TensorBoard events."""
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    """Seconds between checkpoints, which is what a killed run loses at most."""

    def arguments(self) -> dict[str, Any]:
        """The flags as arguments of the recipes' run functions."""
        return asdict(self)
