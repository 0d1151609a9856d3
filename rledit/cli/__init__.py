"""The command ``rledit``: unlearn, debias, predict, audit, compare, apply, ledger, verify, demo.

The command itself and ``rledit apply`` need nothing but rledit's own dependencies; the others need the extra
``cli`` and say so. A command's module is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from ..experiments.console import PlainConsole, say, standard_console
from ..extras import require
from .plain import call, summary

COMMANDS = {
    "unlearn": "make a network forget a class, and leave a run folder with the edit and a report",
    "debias": "make a toxicity classifier fairer across identity groups, and leave a run folder, too",
    "predict": "score new texts with the classifier of a debiasing run, unedited and edited",
    "audit": "measure what an edit has left of a class, next to the unedited and the retrained network",
    "compare": "compare methods of unlearning by the same audits",
    "apply": "apply an edit to a model file",
    "ledger": "keep several edits of one model, and take any of them out again",
    "verify": "check a run by its record: hashes and counts, and with --replay every bit",
    "demo": "forget a digit with a small CNN, in both worlds, without a download",
}
"""What each command does."""

PLAIN = ("apply",)
"""Commands that need no extra packages."""

INTERRUPTED = {
    "unlearn": "--resume goes on with the run",
    "debias": "--resume goes on with the run",
    "demo": "the next one begins anew",
    "compare": "the same command goes on",
    "verify": "nothing was checked to its end",
}
"""What to do after an interrupted command that may have written something."""


def main() -> None:
    """Run the command line. User errors end with one line and status 2, Ctrl-C with 130."""
    _log()
    console = standard_console()
    command, arguments = _parse(sys.argv[1:])
    try:
        _run(command, arguments)
    except KeyboardInterrupt:
        say(console, f"rledit: interrupted; {INTERRUPTED.get(command, 'nothing was written')}")
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, ArithmeticError) as error:
        if os.environ.get("RLEDIT_DEBUG"):
            raise
        say(console, f"rledit: {error}", "red")
        sys.exit(2)


REPEATABLE = ("--budget",)
"""Options whose values may stand behind several of them."""


def _parse(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command and its own arguments; exits here for --help, --version and anything unknown."""
    from .. import __version__

    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {does}" for name, does in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="rledit",
        description="Edit pretrained neural networks by reinforcement learning.",
        epilog=f"commands:\n{lines}\n\nrledit COMMAND --help lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rledit {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS), help="one of those below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the command")
    if not arguments:
        parser.print_help()
        sys.exit(2)
    parsed = parser.parse_args(arguments)
    return parsed.command, parsed.options


def _run(command: str, arguments: list[str]) -> None:
    program = f"rledit {command}"
    if command not in PLAIN:
        for package in ("tyro", "rich"):
            require(package, "cli", program)
    function = getattr(importlib.import_module(f".{command}", __name__), command)
    if command in PLAIN:
        call(function, arguments, program)
        return
    import tyro

    tyro.cli(
        function,
        args=gathered(arguments, REPEATABLE),
        prog=program,
        description=summary(function),
        config=(tyro.conf.OmitArgPrefixes,),
    )


def gathered(arguments: Sequence[str], repeatable: Sequence[str]) -> list[str]:
    """With the values of options that may be repeated in one place: "--budget 1 --budget 2" as
    "--budget 1 2"."""
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    into = rest
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option in repeatable:
            into = values.setdefault(option, [])
            into.extend([value] if equals else [])
            continue
        if argument.startswith("--"):
            into = rest
        into.append(argument)
    return [*rest, *(part for option, found in values.items() for part in (option, *found))]


def _log() -> None:
    """Warnings on standard error, in rich's format where it is installed."""
    console = standard_console()
    handler: logging.Handler
    if isinstance(console, PlainConsole):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    else:
        from rich.logging import RichHandler

        handler = RichHandler(console=console, show_time=False, show_path=False)  # type: ignore[arg-type]
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
