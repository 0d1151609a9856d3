"""The command ``rledit``: unlearn, debias, apply, demo."""

from __future__ import annotations

import logging
import os
import sys

import tyro
from rich.console import Console
from rich.logging import RichHandler
from tyro.extras import SubcommandApp

from .apply import apply
from .debias import debias
from .demo import demo
from .unlearn import unlearn

app = SubcommandApp()
for command in (unlearn, debias, apply, demo):
    app.command(command)


def main() -> None:
    """Run the command line. Errors of the user's end with one line and status 2, Ctrl-C with 130."""
    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_time=False, show_path=False)],
    )
    try:
        app.cli(prog="rledit", description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
    except KeyboardInterrupt:
        console.print("rledit: interrupted; --resume goes on from the last checkpoint")
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError) as error:
        if os.environ.get("RLEDIT_DEBUG"):
            raise
        console.print(f"rledit: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
