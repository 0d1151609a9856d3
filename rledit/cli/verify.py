"""``rledit verify``: check a run by its record."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from ..experiments.console import PlainConsole, say, standard_console
from ..experiments.record import CERTIFIES, file_hash, statements
from ..experiments.run import Recipe
from ..experiments.verification import OpenRecipe, Verification, config_of, replay_folder
from ..experiments.verification import verify as check
from ..recipes.debiasing.config import DebiasConfig
from ..recipes.debiasing.run import DebiasRecipe
from ..recipes.unlearning.config import UnlearningConfig
from ..recipes.unlearning.run import UnlearningRecipe


def verify(
    run: tyro.conf.Positional[Path],
    replay: bool = False,
    out: Path | None = None,
    data_root: Path | None = None,
) -> None:
    """Check a run by its record: the record itself, files, candidates, weights, edit, data, counts, bounds.

    Ends with status 0 if everything is as recorded, 1 if something is not, 2 if nothing differs but
    something cannot be checked, such as a missing file. The hash of the record's file is printed: compare it
    with one that was published, since anyone who can write in the folder can write another record, with
    another hash of itself in it.

    Args:
        run: The folder of a run.
        replay: Repeat the whole run, too, and compare it bit for bit. The same bits can be expected on the
            same kind of machine with the same libraries.
        out: Keep the repeated run in this folder; by default it is made in a temporary one.
        data_root: Folder with the data; else the environment variable RLEDIT_DATA, else the user's cache
            folder.
    """
    console = Console()
    say(console, CERTIFIES)
    if out is not None and not replay:
        raise ValueError("out: expected --replay with it, since there is nothing to keep otherwise")
    opener = _opener(data_root)
    if replay:
        with replay_folder(out) as folder:
            checked = check(run, opener, folder, standard_console())
    else:
        checked = check(run, opener, None, PlainConsole(quiet=True))
    _tell(checked, run, console)
    if checked.status:
        sys.exit(checked.status)


def _opener(data_root: Path | None) -> OpenRecipe:
    def open_recipe(kind: str, config: Mapping[str, Any], model: Path | None) -> Recipe:
        if kind == "unlearning":
            asked = config_of(UnlearningConfig, config)
            if model is not None and asked.weights:
                asked = replace(asked, weights=str(model))  # the file that it began with may be gone
            return UnlearningRecipe(asked, data_root, with_weights=False, with_retrain=False, audits=())
        if kind == "debiasing":
            return DebiasRecipe(config_of(DebiasConfig, config), data_root)
        raise ValueError(f"this version of rledit does not know runs of the kind {kind!r}")

    return open_recipe


def _tell(checked: Verification, run: Path, console: Console) -> None:
    made = checked.record["rledit"].get("version")
    say(console, f"Record {file_hash(run / 'record.json')} of {run}, made by rledit {made}.")
    for line in checked.warnings:
        say(console, f"Note: {line}", "yellow")
    for line in checked.same:
        say(console, f"same       {line}")
    for line in checked.unchecked:
        say(console, f"unchecked  {line}", "yellow")
    for line in checked.differs:
        say(console, f"DIFFERS    {line}", "red")
    if checked.status == 0:
        for line in statements(checked.record):
            say(console, line)
        say(console, "Verified.", "green")
    elif checked.status == 1:
        say(console, "The run does not match its record.", "red")
    else:
        say(console, "Nothing differs, but not everything can be checked.", "yellow")
