"""A run's record is there when all it vouches for is, and says what has come of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from editing_tasks import SHORT, make_ppo
from torch import Tensor, nn

import rledit
from rledit.experiments import RunFolder
from rledit.experiments import record as record_module
from rledit.experiments.bounds import loss_bound, upper_bound
from rledit.experiments.config import EditingConfig
from rledit.experiments.console import Console, PlainConsole
from rledit.experiments.plots import Drawing
from rledit.experiments.record import Population, facts, file_hash, read_record, statements
from rledit.experiments.report import Finished, Page
from rledit.experiments.run import Baseline, Options, Prepared, Recipe, carry_out
from rledit.experiments.verification import config_of, differences, verify
from rledit.recipes.unlearning import UnlearningConfig
from rledit.storage import fingerprint, write_tensors

CONFIG = EditingConfig(candidates=32, num_envs=16, rank=2, ppo=SHORT)
QUIET = PlainConsole(quiet=True)

pytestmark = pytest.mark.usefixtures("one_thread")


class Small(Recipe):
    """A run of a moment; ``fault`` fails at a step."""

    kind = "small"

    def __init__(self, fault: str = "", error: BaseException | None = None) -> None:
        self.config = CONFIG
        self._fault, self._error = fault, error or ValueError("by the way")

    def _at(self, step: str) -> None:
        if step == self._fault:
            raise self._error

    def prepare(self, folder: RunFolder, console: Console) -> Prepared:
        ppo = make_ppo()
        task = ppo.env.task
        self.samples = task.validation
        model = task.editable.model
        write_tensors(folder.model, model.state_dict())
        return Prepared(self.config, model, task, ppo, "a small network", 0.0)

    def evaluate(self, edited: nn.Module) -> dict[str, Any]:
        self._at("evaluate")
        return {"before": {}, "after": {}}

    def drawings(self, finished: Finished) -> list[Drawing]:
        return []

    def page(self, finished: Finished) -> Page:
        return Page("A small run")

    def baselines(self, console: Console) -> Mapping[str, Baseline]:
        def make() -> dict[str, Any]:
            self._at("baseline")
            return {"test": {"accuracy": 0.25}}

        return {"retrain": make}

    def populations(self) -> Mapping[str, Population]:
        self._at("populations")
        inputs = torch.cat(list(self.samples.batches()))
        predict = lambda model: model(inputs).argmax(1)  # noqa: E731
        return {"test": Population.of(self.samples, predict, {"forget": "accuracy", "retain": "loss"})}


def run(path: Path, recipe: Recipe, **options: Any) -> tuple[str, ...]:
    return carry_out(recipe, path, Options(console=QUIET, **options)).missing


def fits(folder: Path) -> bool:
    """Whether the record's files are those of the folder."""
    files = read_record(folder / "record.json")["files"]
    assert set(files) >= {"config.json", "edit.safetensors", "metrics.json", "history.csv", "report.html"}
    return all(file_hash(folder / name) == known for name, known in files.items())


def test_a_run_ends_with_a_record_of_its_files(tmp_path: Path) -> None:
    assert run(tmp_path / "run", Small()) == ()
    assert fits(tmp_path / "run")
    record = read_record(tmp_path / "run" / "record.json")
    assert record["kind"] == "small"
    assert record["seed"] == 0
    assert record["rledit"]["version"] == rledit.__version__
    assert record["machine"]["torch_threads"] == 1
    assert record["search"]["candidates"] == 32
    assert record["search"]["stopped"] == ""
    edit = rledit.Edit.load(tmp_path / "run" / "edit.safetensors")
    assert record["edit"]["learned_for"] == edit.fingerprint


def test_the_retrained_network_is_recorded(tmp_path: Path) -> None:
    """Audits compare with it, so nobody must be able to put another in its place."""
    run(tmp_path / "run", Small())
    (tmp_path / "run" / "retrained.safetensors").write_bytes(b"weights")
    run(tmp_path / "run", Small(), resume=True)
    assert "retrained.safetensors" in read_record(tmp_path / "run" / "record.json")["files"]
    assert fits(tmp_path / "run")


@pytest.mark.parametrize("fault", ["evaluate", "baseline"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_there_is_no_record_of_files_that_were_written_since(
    tmp_path: Path, fault: str, error: BaseException
) -> None:
    """Resuming rewrites metrics.json: until the end, the old record would not fit."""
    run(tmp_path / "run", Small())
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with contextlib.suppress(KeyboardInterrupt, MemoryError):
        run(tmp_path / "run", Small(fault, error), resume=True)
    path = tmp_path / "run" / "record.json"
    assert not path.exists() or fits(tmp_path / "run")
    assert path.exists() == (fault == "baseline")
    run(tmp_path / "run", Small(), resume=True)
    assert fits(tmp_path / "run")


def test_a_record_that_fails_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = run(tmp_path / "run", Small("populations"))
    assert missing == ("record.json: by the way",)
    assert "record could not be written" in caplog.text
    assert (tmp_path / "run" / "edit.safetensors").exists()
    assert not (tmp_path / "run" / "record.json").exists()
    assert run(tmp_path / "run", Small(), resume=True) == ()
    assert fits(tmp_path / "run")


def test_overwriting_takes_the_record_away(tmp_path: Path) -> None:
    run(tmp_path / "run", Small())
    RunFolder(tmp_path / "run", asdict(CONFIG), overwrite=True).close()
    assert not (tmp_path / "run" / "record.json").exists()


def known_model() -> tuple[nn.Module, nn.Module, rledit.Edit, rledit.Samples]:
    """Before, always right; after, the first output is never the largest again."""
    before = nn.Sequential(nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        before[0].weight.copy_(torch.eye(3))
    inputs = torch.eye(3).repeat(40, 1)
    labels = torch.arange(120) % 3
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    factors = {"0": (torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[-2.0, 0.0, 0.0]]))}
    edit = rledit.Edit(factors, "shift", 1.0, fingerprint({"0": before[0].weight}))
    after = nn.Sequential(nn.Linear(3, 3, bias=False))
    after.load_state_dict(before.state_dict())
    edit.apply_(after)
    return before.eval(), after.eval(), edit, samples


def test_counts_and_bounds_of_a_known_edit() -> None:
    before, after, edit, samples = known_model()

    def predict(model: nn.Module) -> Tensor:
        return model(torch.cat(list(samples.batches()))).argmax(1)

    test = Population.of(samples, predict, {"forget": "accuracy", "retain": "loss"})
    found = facts(edit, before, after, {"train": Population(7, "sha256:x"), "test": test})
    assert found["counts"] == {
        "test": {
            "forget": {"count": 40, "before": 40, "after": 0, "lost": 40, "gained": 0},
            "retain": {"count": 80, "before": 80, "after": 80, "lost": 0, "gained": 0},
        }
    }
    assert found["data"]["train"] == {"samples": 7, "fingerprint": "sha256:x"}
    assert found["data"]["test"] == {"samples": 120, "fingerprint": f"sha256:{samples.fingerprint()}"}
    bounds = found["bounds"]["groups"]
    assert bounds["forget"] == {"of": "accuracy", "at_most": upper_bound(0, 40)}
    assert bounds["retain"] == {"of": "loss", "at_most": loss_bound(0, 0, 80)}
    assert found["weights"]["before"] == fingerprint(before.state_dict())
    assert found["weights"]["after"] == fingerprint(after.state_dict())
    assert statements(found) == [
        "forget accuracy: 0 of 40, at most 7.22% at 95%",
        "loss of retain accuracy: 0 of 80 lost, 0 gained, at most 4.51% at 95%",
    ]


def test_a_group_that_the_test_split_lacks_has_no_bound() -> None:
    before, after, edit, samples = known_model()
    only = rledit.Samples(samples.head(120), samples.labels, {"retain": samples.groups["retain"]})
    test = Population.of(only, lambda model: model(only.head(120)).argmax(1), {"forget": "accuracy"})
    assert facts(edit, before, after, {"test": test})["bounds"]["groups"] == {}


def test_the_code_is_what_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rledit" / "experiments").mkdir(parents=True)
    own = tmp_path / "rledit" / "experiments" / "record.py"
    hashes = []
    monkeypatch.setattr(record_module, "__file__", str(own))
    for text in ("a = 1\n", "a = 2\n", "a = 1\n"):
        own.write_text(text)
        record_module._own_code.cache_clear()
        hashes.append(record_module._own_code())
    record_module._own_code.cache_clear()
    assert hashes[0] == hashes[2]
    assert hashes[0]["code"] != hashes[1]["code"]
    assert hashes[0]["compiled"] == hashes[1]["compiled"]


def test_a_recipe_that_cannot_read_its_model_is_said(tmp_path: Path) -> None:
    run(tmp_path / "run", Small())
    checked = verify(tmp_path / "run", lambda kind, config, model: Small(), None, QUIET)
    assert checked.status == 2
    assert any("cannot be checked" in line for line in checked.unchecked)


def test_a_config_comes_back_from_its_json() -> None:
    config = UnlearningConfig(dataset="mnist5k", forget=(3, 7), layer=("fc1", "fc2"), ppo=SHORT, seed=4)
    written = json.loads(json.dumps(asdict(config)))
    assert config_of(UnlearningConfig, written) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"new": 1}, "it has, or lacks, new"),
        ({"ppo": 3}, "ppo: expected an object, got 3"),
        ({"ppo": {"speed": 1}}, "it has, or lacks, speed"),
        ({"rank": 0}, "rank: expected at least 1"),
        ({"rank": "4"}, "config.json: "),
    ],
)
def test_a_config_that_is_none(change: dict[str, Any], message: str) -> None:
    written = json.loads(json.dumps(asdict(UnlearningConfig(dataset="mnist5k", forget=(3,)))))
    with pytest.raises(ValueError, match=message):
        config_of(UnlearningConfig, written | change)
    del written["forget"]
    with pytest.raises(ValueError, match="it has, or lacks, forget"):
        config_of(UnlearningConfig, written)


def test_differences() -> None:
    one = {"a": {"b": 1, "c": [1, 2]}, "d": True, "e": "sha256:" + 64 * "0"}
    assert list(differences(one, one, "x")) == []
    two = {"a": {"b": 2, "c": [1, 3]}, "d": 1, "e": "sha256:" + 64 * "1", "f": 0.5}
    assert list(differences(one, two, "x")) == [
        "x.a.b: recorded 1, found 2",
        "x.a.c: recorded [1, 2], found [1, 3]",
        "x.d: recorded true, found 1",
        "x.e: recorded sha256:000000000000..., found sha256:111111111111...",
        "x.f: recorded nothing, found 0.5",
    ]
