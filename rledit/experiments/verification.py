"""Checks a run by its record: compares what the files give with what was recorded."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import torch

from ..edits.edit import Edit
from .console import Console
from .history import read_history
from .record import (
    HASH,
    circumstances,
    content_hash,
    edit_facts,
    facts,
    file_hash,
    read_record,
    state_fingerprint,
)
from .run import Options, Recipe, carry_out

C = TypeVar("C")

OpenRecipe = Callable[[str, Mapping[str, Any], Path | None], Recipe]
"""The recipe of a kind of run, from its config, and from the file of the model to begin with in place of a
file that the config names. ValueError for an unknown kind or the config of another version, OSError where
there are no data."""

NAMED = ("config.json", "model.safetensors", "edit.safetensors", "metrics.json")
"""Files of which every record has the hash."""

REPEATED = ("weights", "edit", "data", "counts", "bounds", "search")
"""Sections of a record that must be the same in a repeated run."""


@dataclass
class Verification:
    """What came of checking a run.

    Attributes:
        record: the content of record.json.
        same: what was found as recorded.
        differs: what does not match, each with what was recorded and what was found.
        unchecked: what could not be checked, and why.
        warnings: what does not count against the record, such as another version.
    """

    record: Mapping[str, Any]
    same: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        """0: everything matches; 1: something does not; 2: nothing differs, something cannot be checked."""
        return 1 if self.differs else 2 if self.unchecked else 0

    def compare(self, name: str, recorded: Any, found: Any) -> None:
        """Note what differs, by its path; if nothing does, note the name as the same."""
        lines = list(differences(recorded, found, name))
        self.differs += lines
        if not lines:
            self.same.append(name)


def verify(run: Path, open_recipe: OpenRecipe, replay: Path | None, console: Console) -> Verification:
    """Check a run: the record and its files by their hashes; what was spent by the history; weights, edit,
    data, counts and bounds by making them again.

    Args:
        run: the folder.
        open_recipe: see :data:`OpenRecipe`.
        replay: an empty folder in which the whole run is repeated and compared bit for bit; None: it is not.
        console: for the progress of the repeated run.

    Raises:
        FileNotFoundError: there is no record, since there is no such run or it has not come to its end.
        ValueError, OSError: the record cannot be read.
    """
    checked = Verification(_record_of(run))
    _check_record(checked)
    _check_circumstances(checked)
    _check_files(checked, run)
    _check_search(checked, run)
    config = _config(checked, run)
    if config is None:
        return checked
    checked.compare("seed", checked.record.get("seed"), config.get("seed"))
    try:
        recipe = open_recipe(str(checked.record.get("kind")), config, None)
    except (OSError, ValueError, TypeError, ImportError) as error:
        checked.unchecked.append(f"weights, data and counts: {error}")
        return checked
    _check_facts(checked, run, recipe)
    if replay is not None:
        _replay(checked, run, config, open_recipe, replay, console)
    return checked


def _record_of(run: Path) -> dict[str, Any]:
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: there is no such run folder")
    path = run / "record.json"
    if path.exists():
        return read_record(path)
    if (run / "metrics.json").exists():
        raise FileNotFoundError(
            f"{run} has no record yet: the run has not come to its end, or was made by a version without "
            "records; --resume completes it"
        )
    if (run / "config.json").exists():
        raise FileNotFoundError(f"{run} has no record yet: the run was interrupted; --resume goes on with it")
    raise FileNotFoundError(f"{run} is not a run folder: it has neither record.json nor config.json")


def _check_record(checked: Verification) -> None:
    """Whether the record is as it was written, by its own hash."""
    recorded, found = checked.record.get(HASH), content_hash(checked.record)
    if recorded is None:
        checked.warnings.append(
            "the record has no hash of itself, as those of earlier versions: entries that nothing in the run "
            "repeats may have been changed"
        )
    else:
        checked.compare("record", recorded, found)


def _check_circumstances(checked: Verification) -> None:
    here = circumstances()
    for section, meaning in (
        ("rledit", "made by another rledit"),
        ("libraries", "made with other libraries"),
        ("machine", "made on another machine or with other threads"),
    ):
        if lines := list(differences(checked.record[section], here[section], section)):
            checked.warnings.append(f"{meaning}: {'; '.join(lines)}")


def _check_files(checked: Verification, run: Path) -> None:
    files = checked.record["files"]
    differing = [f"{name}: the record does not name this file" for name in NAMED if name not in files]
    for name, recorded in files.items():
        path = run / os.path.basename(name)  # whatever a record says, nothing outside the folder is read
        try:
            if file_hash(path) != recorded:
                differing.append(f"{name}: not the file that was recorded")
        except OSError as error:
            checked.unchecked.append(f"{name}: {error.strerror or error}")
    checked.differs += differing
    if not differing and not checked.unchecked:
        checked.same.append(f"{len(files)} files")


def _config(checked: Verification, run: Path) -> dict[str, Any] | None:
    try:
        config = _read(run / "config.json")
    except FileNotFoundError:
        return None  # named among the files
    except (OSError, ValueError) as error:
        checked.unchecked.append(f"weights, data and counts: config.json cannot be read: {error}")
        return None
    config.pop("rledit_version", None)
    return config


def _check_facts(checked: Verification, run: Path, recipe: Recipe) -> None:
    record = checked.record
    try:
        before = recipe.unedited(run / "model.safetensors")
        edit = Edit.load(run / "edit.safetensors")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        checked.unchecked.append(f"weights and counts: {error}")
        return
    after = deepcopy(before)
    try:
        edit.apply_(after)
    except (ValueError, TypeError) as error:
        weights = {"before": state_fingerprint(before)}
        checked.compare("weights", {"before": record["weights"].get("before")}, weights)
        checked.compare("edit", record["edit"], edit_facts(edit))
        checked.differs.append(f"the edit does not fit the model: {error}")
        return
    try:
        found = facts(edit, before, after, recipe.populations())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        checked.unchecked.append(f"weights, data and counts: {error}")
        return
    for section, value in found.items():
        checked.compare(section, record[section], value)
    _check_metrics(checked, run, found["counts"])


def _check_search(checked: Verification, run: Path) -> None:
    """What the record says of the search against metrics.json, and the candidates against the history."""
    search = checked.record.get("search")
    search = search if isinstance(search, Mapping) else {}
    try:
        metrics = _read(run / "metrics.json")
        asked = ("candidates", "origin", "stopped")
        checked.compare("search", {key: search.get(key) for key in asked}, {k: metrics.get(k) for k in asked})
        checked.compare("candidates of the history", search.get("candidates"), _candidates(run))
    except FileNotFoundError:
        pass  # named among the files
    except (OSError, ValueError, TypeError, KeyError) as error:
        checked.unchecked.append(f"candidates and origin: {error!r}")


def _candidates(run: Path) -> int:
    """Candidates scored up to the last update, and in trials before the first."""
    spent = read_history(run / "history.csv").column("candidates")
    trials = run / "layers.json"
    tried = json.loads(trials.read_text(encoding="utf-8")) if trials.exists() else []
    return int(spent[-1] if spent else 0) + sum(int(trial["candidates"]) for trial in tried)


def _read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("expected an object")
    return content


def _check_metrics(checked: Verification, run: Path, counts: Mapping[str, Any]) -> None:
    """Whether the accuracies that people read are those of the counts."""
    try:
        metrics = _read(run / "metrics.json")
        test = {when: dict(metrics["test"][when]) for when in ("before", "after")}
    except FileNotFoundError:
        return  # named among the files
    except (OSError, ValueError, TypeError, KeyError) as error:
        checked.unchecked.append(f"figures of metrics.json: {error!r}")
        return
    for group, row in counts.get("test", {}).items():
        for when, figures in test.items():
            counted = row[when] / row["count"]
            shown = figures.get(f"{group}_accuracy", _of_group(figures, group))
            if shown is None:
                checked.unchecked.append(f"metrics.json: {group}_accuracy {when} is not there")
            elif not _close(shown, counted):
                checked.differs.append(
                    f"metrics.json: {group}_accuracy {when} is {shown!r}, counted {row[when]:,} of "
                    f"{row['count']:,}"
                )


def _of_group(figures: Mapping[str, Any], group: str) -> Any:
    """A group's accuracy where it stands among other figures of each group; None where it does not."""
    try:
        return figures["per_group"][group]["accuracy"]
    except (KeyError, TypeError):
        return None


def _close(shown: Any, counted: float) -> bool:
    return isinstance(shown, (int, float)) and abs(shown - counted) < 1e-9


def _replay(
    checked: Verification,
    run: Path,
    config: Mapping[str, Any],
    open_recipe: OpenRecipe,
    folder: Path,
    console: Console,
) -> None:
    record = checked.record
    search = record.get("search")
    if stopped := search.get("stopped") if isinstance(search, Mapping) else None:
        checked.unchecked.append(f"replay: the run was stopped before its end ({stopped})")
        return
    threads = record["machine"].get("torch_threads")
    try:
        recipe = open_recipe(str(record.get("kind")), config, run / "model.safetensors")
        with _torch_threads(threads) if isinstance(threads, int) and threads > 0 else nullcontext():
            carry_out(recipe, folder, Options(console=console))
        repeated = read_record(folder / "record.json")
    except Exception as error:
        checked.unchecked.append(f"replay: {type(error).__name__}: {error}")
        return
    for section in REPEATED:
        checked.compare(f"replay: {section}", record.get(section), repeated.get(section))


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def replay_folder(keep: Path | None) -> Iterator[Path]:
    """A folder for a repeated run: the given one, or a temporary one that is removed afterwards."""
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="rledit-replay-") as name:
        yield Path(name) / "run"


def differences(recorded: Any, found: Any, name: str) -> Iterator[str]:
    """Every leaf of two JSON values that differs, by its path, with both values."""
    if isinstance(recorded, Mapping) and isinstance(found, Mapping):
        for key in sorted({*recorded, *found}, key=str):
            yield from differences(recorded.get(key), found.get(key), f"{name}.{key}")
    elif recorded != found or isinstance(recorded, bool) is not isinstance(found, bool):
        yield f"{name}: recorded {_short(recorded)}, found {_short(found)}"


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text[:19] + "..." if text.startswith("sha256:") else text[:100]


def config_of(cls: type[C], values: Mapping[str, Any]) -> C:
    """A config from what config.json holds of it.

    Raises:
        ValueError: settings that this version does not have, or lacks; or wrong ones.
    """
    assert is_dataclass(cls)
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}
    required = [n for n, it in known.items() if it.default is MISSING and it.default_factory is MISSING]
    if wrong := sorted({*values} - {*known}) + sorted({*required} - {*values}):
        raise ValueError(f"config.json is of another version of rledit: it has, or lacks, {', '.join(wrong)}")
    made: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ValueError(f"config.json: {name}: expected an object, got {value!r}")
            value = config_of(hints[name], value)
        elif get_origin(hints[name]) is tuple and isinstance(value, list):
            value = tuple(value)
        made[name] = value
    try:
        config: C = cls(**made)
    except TypeError as error:
        raise ValueError(f"config.json: {error}") from error
    return config
