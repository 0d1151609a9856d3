"""Audits of a run folder of ``rledit unlearn``, after the run: what ``rledit audit`` does."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from ...audits import Audit
from ...audits.unlearning import AGAINST_RETRAINED, AUDITS, THOROUGH, limits
from ...edits import Edit
from ...experiments.console import Console, say, standard_console
from ...experiments.run import finite
from ...storage.files import write_json
from ...zoo import models
from ...zoo.data import load
from .audited_report import METRICS, rewrite_report
from .config import UnlearningConfig
from .data import UnlearningData, evaluate
from .run import load_weights

RETRAINED = "retrained.safetensors"
AUDITED = "audits.json"


def audit_run(
    run: str | Path,
    *,
    thorough: bool = False,
    retrained: str | Path | None = None,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the audits on the unedited, the edited and the retrained network of a run, and keep the figures.

    Args:
        run: the folder, with model.safetensors and edit.safetensors.
        thorough: run all of :data:`rledit.audits.unlearning.THOROUGH` instead of those of a run's report.
        retrained: safetensors file of the network trained without the forgotten classes; by default the run's
            own, if it has one. Without it agreement is not measured.
        data_root: folder with the data set; else RLEDIT_DATA, else the cache.
        out: JSON file for the figures; by default audits.json in the run folder, whose report is then written
            anew with these audits. With a file of one's own the folder stays as it is.
        console: for progress; by default standard error.

    Returns:
        What the file holds: {"edit": its description, "thorough": ..., "models": {"unedited" | "edited" |
        "retrained": figures, with "intervals" at 95%}, "seconds": {model: ...}, "limits": text}.

    Raises:
        ValueError: for a folder that is not a finished run of ``rledit unlearn``, or weights that do not fit.
        OSError: see :func:`rledit.zoo.data.load`; also for files that cannot be read or written.
    """
    console = console or standard_console()
    folder = Path(run)
    config = _config(folder)
    networks = _networks(folder, config, retrained)
    edit = Edit.load(folder / "edit.safetensors")
    networks = {"unedited": networks["unedited"], "edited": _edited(networks["unedited"], edit)} | networks
    data = UnlearningData(load(config.dataset, data_root), config.seed)
    data.check(config.forget)
    audits = _audits(thorough, "retrained" in networks)
    asked = data.audit_data(
        config.forget,
        layers=tuple(edit.targets),
        unedited=networks["unedited"],
        retrained=networks.get("retrained"),
        whole=thorough,
    ).remembering()
    figures: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for name, network in networks.items():
        say(console, f"Auditing the {name} network")
        started = time.perf_counter()
        figures[name] = finite(evaluate(network, data, config.forget, audits, asked))
        seconds[name] = time.perf_counter() - started
    audited = {
        "edit": repr(edit),
        "thorough": thorough,
        "models": figures,
        "seconds": seconds,
        "limits": limits(audits),
    }
    write_json(folder / AUDITED if out is None else out, audited)
    if out is None and (folder / METRICS).is_file():  # else there is no report yet
        rewrite_report(
            folder,
            figures,
            audits,
            edit=edit,
            unedited=networks["unedited"],
            classes=data.classes,
            measured=AUDITED,
        )
    return audited


def _audits(thorough: bool, with_retrained: bool) -> tuple[Audit, ...]:
    audits = THOROUGH if thorough else (*AUDITS, *AGAINST_RETRAINED)
    return audits if with_retrained else tuple(audit for audit in audits if audit not in AGAINST_RETRAINED)


def _config(folder: Path) -> UnlearningConfig:
    """The part of the run's config that audits need."""
    if not folder.is_dir():
        raise ValueError(f"run: expected a run folder of rledit unlearn, {folder} is not a folder")
    try:
        asked = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        known = isinstance(asked, dict) and "rledit_version" in asked
    except (OSError, ValueError):
        known = False
    if not known:
        raise ValueError(
            f"run: expected a run folder of rledit unlearn, {folder} has no config.json that rledit wrote"
        )
    if "forget" not in asked:
        raise ValueError(f"run: expected a run of rledit unlearn, {folder} holds one that forgets nothing")
    for name in ("model.safetensors", "edit.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(
                f"run: {folder} has no {name} yet; rledit unlearn with --resume goes on with the run"
            )
    try:
        return UnlearningConfig(
            dataset=asked["dataset"],
            forget=tuple(asked["forget"]),
            layer=tuple(asked.get("layer", ())),
            model=asked.get("model", ""),
            seed=asked.get("seed", 0),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"run: {folder / 'config.json'} is not as rledit wrote it: {error}") from error


def _networks(folder: Path, config: UnlearningConfig, retrained: str | Path | None) -> dict[str, nn.Module]:
    """The unedited network, and the retrained one if there is one."""

    def loaded(path: Path) -> nn.Module:
        return load_weights(models.build(config.model_name), path)

    networks = {"unedited": loaded(folder / "model.safetensors")}
    if retrained is not None:
        path = Path(retrained)
        if not path.is_file():
            raise ValueError(f"retrained: expected a safetensors file, {path} is not one")
        try:
            networks["retrained"] = loaded(path)
        except ValueError as error:
            raise ValueError(f"retrained: {str(error).removeprefix('weights: ')}") from error
    elif (folder / RETRAINED).is_file():
        networks["retrained"] = loaded(folder / RETRAINED)
    return networks


def _edited(unedited: nn.Module, edit: Edit) -> nn.Module:
    copy = deepcopy(unedited)
    edit.apply_(copy)
    return copy
