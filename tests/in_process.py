"""The command in this process: starting Python and torch takes longer than most of what tests ask of it."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from programs import Done

from rledit.cli import main


def rledit(*arguments: object) -> Done:
    """Run it to its end."""
    out, errors = io.StringIO(), io.StringIO()
    status = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setenv("COLUMNS", "400")  # messages stay on one line
        patch.setattr(sys, "argv", ["rledit", *map(str, arguments)])
        patch.setattr(logging.root, "handlers", [])
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Done(status, out.getvalue(), errors.getvalue())
