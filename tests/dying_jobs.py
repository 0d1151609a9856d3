"""Jobs for worker processes, which import them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def run(job: tuple[str, str]) -> str:
    """By name: "fine" works, "error" fails, "once" dies unless a file shows that it has died before, "always"
    dies, "long" says who runs it and takes a minute."""
    name, folder = job
    if name.startswith("long"):
        Path(folder, f"{name}.{os.getpid()}").touch()
        time.sleep(60)
    if name.startswith("error"):
        raise ValueError(f"no {name}")
    died = Path(folder) / name
    if name == "always" or (name == "once" and not died.exists()):
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{name} done"
