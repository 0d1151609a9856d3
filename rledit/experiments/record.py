"""record.json: what a run was made of and what came of it, so that a stranger can check it.

It holds hashes of the weights before and after the edit, of the edit, of each split of the data, of the
configuration and all other files of the run, and of rledit's own code; versions, threads and seed; how many
samples of each group are right before and after; what follows from these counts for the population that the
test split was drawn from; and a hash of all of that. :mod:`~rledit.experiments.verification` checks it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import _native
from ..edits.edit import Edit
from ..samples import Samples
from ..storage.files import Json, write_json
from ..storage.fingerprint import fingerprint
from ..storage.plain import plain_json
from .bounds import CONFIDENCE, loss_bound, upper_bound

logger = logging.getLogger("rledit")

FORMAT = 1
CERTIFIES = (
    "This certifies behavior on a stated population, not the absence of influence: the figures say how often "
    "the model is right on samples like those of its test split, not that nothing of the forgotten samples "
    "is left in its weights."
)
HASH = "hash"
"""The entry with the record's hash of itself, see :func:`content_hash`."""

TEST = "test"
"""The split that bounds come from, since nothing was chosen on it."""

FILES = (
    "config.json",
    "model.safetensors",
    "edit.safetensors",
    "retrained.safetensors",
    "metrics.json",
    "history.csv",
    "layers.json",
    "report.html",
)
"""What is hashed, as far as the run has it."""

LIBRARIES = ("torch", "numpy", "safetensors", "gymnasium")

Bounded = Literal["accuracy", "loss"]


@dataclass(frozen=True, eq=False)
class Population:
    """A split of the data as a record states it.

    Attributes:
        size: samples S.
        fingerprint: fingerprint of inputs, labels and groups.
        labels: int64 [S].
        groups: name -> bool mask [S].
        predict: the classes that a model predicts, int64 [S], -1 for none; None where nothing is counted.
        bounds: group -> what is bounded: its "accuracy", which is to be low, or the "loss" of accuracy, which
            is to stay within a budget.
        not_bounded: metrics with a budget for which there is no exact bound.
    """

    size: int
    fingerprint: str
    labels: Tensor | None = None
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    predict: Callable[[nn.Module], Tensor] | None = None
    bounds: Mapping[str, Bounded] = field(default_factory=dict)
    not_bounded: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        samples: Samples,
        predict: Callable[[nn.Module], Tensor] | None = None,
        bounds: Mapping[str, Bounded] | None = None,
    ) -> Population:
        """A population with the fingerprint of these samples."""
        hashed = f"sha256:{samples.fingerprint()}"
        return cls(len(samples), hashed, samples.labels, samples.groups, predict, bounds or {})

    def counts(self, before: nn.Module, after: nn.Module) -> dict[str, Json] | None:
        """Counts by group: samples, and how many are right before, after, only before and only after."""
        if self.predict is None or self.labels is None:
            return None
        first, second = (self.predict(model).cpu() == self.labels for model in (before, after))
        return {
            name: {
                "count": int(mask.sum()),
                "before": int(first[mask].sum()),
                "after": int(second[mask].sum()),
                "lost": int((first & ~second)[mask].sum()),
                "gained": int((second & ~first)[mask].sum()),
            }
            for name, mask in self.groups.items()
        }


def facts(
    edit: Edit, before: nn.Module, after: nn.Module, populations: Mapping[str, Population]
) -> dict[str, dict[str, Any]]:
    """What can be found again from the files of a run: "weights", "edit", "data", "counts" and "bounds".

    Args:
        edit: the chosen one.
        before, after: the model without it and with it.
        populations: splits by name; that of the name "test" gives the bounds.
    """
    found = {name: population.counts(before, after) for name, population in populations.items()}
    counts = {name: groups for name, groups in found.items() if groups is not None}
    return {
        "weights": {"before": state_fingerprint(before), "after": state_fingerprint(after)},
        "edit": edit_facts(edit),
        "data": {
            name: {"samples": population.size, "fingerprint": population.fingerprint}
            for name, population in populations.items()
        },
        "counts": counts,
        "bounds": _bounds(populations[TEST], counts.get(TEST, {})) if TEST in populations else {},
    }


def edit_facts(edit: Edit) -> dict[str, Any]:
    """An edit without its metrics."""
    sides = {f"{name}.{side}": f for name, p in edit.factors.items() for side, f in zip("lr", p, strict=True)}
    return {
        "factors": fingerprint(sides),
        "rule": edit.world,
        "scale": edit.scale,
        "learned_for": edit.fingerprint,
    }


def state_fingerprint(model: nn.Module) -> str:
    """Fingerprint of all parameters and buffers in the model's state dict."""
    state = model.state_dict()
    return fingerprint({name: value for name, value in state.items() if isinstance(value, Tensor)})


def _bounds(population: Population, counts: Mapping[str, Any]) -> dict[str, Any]:
    bounds: dict[str, Any] = {"confidence": CONFIDENCE, "split": TEST, "groups": {}}
    for group, what in population.bounds.items():
        if group not in counts:
            continue
        row = counts[group]
        if what == "accuracy":
            most = upper_bound(row["after"], row["count"])
        else:
            most = loss_bound(row["lost"], row["gained"], row["count"])
        bounds["groups"][group] = {"of": what, "at_most": most}
    bounds["not_bounded"] = list(population.not_bounded)
    return bounds


def statements(record: Mapping[str, Any]) -> list[str]:
    """The bounds in words: "forget accuracy: 0 of 1,028, at most 0.29% at 95%"."""
    bounds = record["bounds"]
    lines = []
    for group, bound in bounds.get("groups", {}).items():
        row = record["counts"][bounds["split"]][group]
        said = f"at most {bound['at_most']:.2%} at {bounds['confidence']:.0%}"
        if bound["of"] == "accuracy":
            lines.append(f"{group} accuracy: {row['after']:,} of {row['count']:,}, {said}")
        else:
            lost = f"{row['lost']:,} of {row['count']:,} lost, {row['gained']:,} gained"
            lines.append(f"loss of {group} accuracy: {lost}, {said}")
    if bounds.get("not_bounded"):
        lines.append(f"without an exact bound: {', '.join(bounds['not_bounded'])}")
    return lines


def circumstances() -> dict[str, dict[str, Json]]:
    """What a run's last bits may depend on: rledit, libraries, and the machine."""
    return {
        "rledit": own_version(),
        "libraries": {"python": platform.python_version(), **_versions()},
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "instruction_set": _native.active_isa(),
            "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
            "native_threads": _native.num_threads(),
            "torch_threads": torch.get_num_threads(),
        },
    }


def own_version() -> dict[str, Json]:
    """Which rledit this is: its "version", and hashes of its "code" and of its "compiled" parts."""
    from .. import __version__  # here, because rledit/__init__.py may import this package

    return {"version": __version__, **_own_code()}


def _versions() -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # there without metadata
            found[name] = None
    return found


@cache
def _own_code() -> dict[str, str]:
    """Hashes of the package's Python files and templates, and of its compiled parts."""
    root = Path(__file__).resolve().parents[1]
    files: dict[str, dict[str, str]] = {"code": {}, "compiled": {}}
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(folder, name)
            kind = {".py": "code", ".j2": "code", ".so": "compiled", ".pyd": "compiled"}.get(path.suffix)
            if kind:
                files[kind][path.relative_to(root).as_posix()] = file_hash(path)
    return {kind: _hash(json.dumps(found, sort_keys=True).encode()) for kind, found in files.items()}


def file_hash(path: Path) -> str:
    """`"sha256:"` and 64 hexadecimal digits, of the bytes of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def content_hash(record: Mapping[str, Any]) -> str:
    """Hash of a record as its file gives it back, without the entry "hash": SHA-256 of its JSON with sorted
    keys, without spaces, in ASCII. It detects an entry that was changed or lost by accident; whoever means
    to deceive can recompute it."""
    content = {key: value for key, value in record.items() if key != HASH}
    return _hash(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _hash(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Recorder:
    """Writes the record of a run: what is known is counted once, its files are hashed at every time.

    Args:
        path: path of record.json; the other files of the run are next to it.
        kind: kind of the run, which tells :mod:`rledit.cli.verify` what can repeat it.
        config: what it was asked to do.
        known: gives :func:`facts`, and what is known of the search.
    """

    def __init__(
        self, path: Path, kind: str, config: Mapping[str, Any], known: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._path, self._kind, self._seed = path, kind, config["seed"]
        self._known = cache(known)

    def write(self) -> list[str]:
        """Returns what is missing, and why: the run has its edit and its metrics anyway."""
        there = [self._path.with_name(name) for name in FILES]
        try:
            content: dict[str, Any] = {
                "certifies": CERTIFIES,
                "format": FORMAT,
                "kind": self._kind,
                "seed": self._seed,
                **self._known(),
                **circumstances(),
                "files": {file.name: file_hash(file) for file in there if file.is_file()},
            }
            content[HASH] = content_hash(plain_json(content, "record"))  # type: ignore[arg-type]
            write_json(self._path, content)
        except Exception as error:
            reason = f"{error}" if isinstance(error, (OSError, ValueError)) else f"{error!r}"
            logger.error("The record could not be written; edit and metrics are saved: %s", reason)
            return [f"record.json: {reason}"]
        return []


def record_again(path: Path, names: Iterable[str]) -> None:
    """Name files in a record as they are now, where they were written after the run.

    The record's hash of itself is made anew only if it fitted before: what was changed otherwise stays found.

    Raises:
        OSError, ValueError: see :func:`read_record`; WriteError where the disk refuses.
    """
    record = read_record(path)
    sound = record.get(HASH) == content_hash(record)
    record["files"] |= {name: file_hash(path.with_name(name)) for name in names}
    if sound:
        record[HASH] = content_hash(record)
    write_json(path, record)


def read_record(path: Path) -> dict[str, Any]:
    """The content of record.json.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not a record, or one of another format, or says something twice.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except ValueError as error:
        raise ValueError(f"{path} is not a record of rledit: it is not JSON ({error})") from error
    sections = ("rledit", "libraries", "machine", "files", "weights", "edit", "data", "counts", "bounds")
    if not isinstance(record, dict) or not all(isinstance(record.get(key), dict) for key in sections):
        raise ValueError(f"{path} is not a record of rledit: expected an object with {', '.join(sections)}")
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a record of format {FORMAT}, got {record.get('format')!r}")
    return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without duplicate keys, which people and programs would read differently."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in it")
    return found
