"""``rledit verify`` finds whatever has been changed in a run folder, and says what it cannot check."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import rledit
from safetensors.torch import load_file, save_file
from striped_images import dataset

from rledit.edits import Edit
from rledit.experiments import record as record_module
from rledit.experiments.record import CERTIFIES
from rledit.recipes import unlearning
from rledit.recipes.unlearning.run import UnlearningRecipe
from rledit.zoo.data import Dataset
from rledit.zoo.models import MnistCNN


def verify(*arguments: object) -> tuple[int, str]:
    """Status and everything that was said."""
    done = rledit("verify", *arguments)
    return done.returncode, done.said


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_record(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """And give it a hash that fits, as whoever means to deceive would."""

    def forge(content: dict[str, Any]) -> None:
        change(content)
        content["hash"] = record_module.content_hash(content)

    change_json(run / "record.json", forge)


def test_an_untouched_run_is_verified(run: Path) -> None:
    status, said = verify(run)
    assert status == 0, said
    assert said.splitlines()[0] == CERTIFIES
    assert "not the absence of influence" in said.splitlines()[0]
    assert "Verified." in said
    assert "forget accuracy: " in said
    assert "of 20, at most " in said
    assert "loss of retain accuracy: " in said
    assert record_module.file_hash(run / "record.json") in said
    assert "DIFFERS" not in said


def test_the_counts_are_those_of_the_edited_model(run: Path) -> None:
    model = MnistCNN().eval()
    model.load_state_dict(load_file(run / "model.safetensors"))
    test = dataset().test
    inputs = unlearning.UnlearningData(dataset(), 0).inputs(test)
    before = model(inputs).argmax(1) == test.labels
    Edit.load(run / "edit.safetensors").apply_(model)
    after = model(inputs).argmax(1) == test.labels
    counts = json.loads((run / "record.json").read_text())["counts"]
    assert set(counts) == {"validation", "test"}
    for group, mask in {"forget": test.labels == 1, "retain": test.labels != 1}.items():
        assert counts["test"][group] == {
            "count": int(mask.sum()),
            "before": int(before[mask].sum()),
            "after": int(after[mask].sum()),
            "lost": int((before & ~after)[mask].sum()),
            "gained": int((after & ~before)[mask].sum()),
        }


def test_replay_repeats_every_bit(run: Path, tmp_path: Path) -> None:
    status, said = verify(run, "--replay", "--out", tmp_path / "again")
    assert status == 0, said
    assert "replay: edit" in said
    assert (tmp_path / "again" / "edit.safetensors").read_bytes() == (run / "edit.safetensors").read_bytes()
    one, two = (json.loads((path / "record.json").read_text()) for path in (run, tmp_path / "again"))
    for section in ("weights", "edit", "data", "counts", "bounds", "search"):
        assert one[section] == two[section]


def test_replay_finds_an_edit_that_did_not_come_from_the_run(run: Path, run_config: dict[str, Any]) -> None:
    """Whoever changes an edit may write a record that fits it, but no run that leads to it."""
    edit = Edit.load(run / "edit.safetensors")
    edit.factors["fc1"][0][0, 0] += 1
    edit.save(run / "edit.safetensors")
    model = MnistCNN().eval()
    model.load_state_dict(load_file(run / "model.safetensors"))
    edited = MnistCNN().eval()
    edited.load_state_dict(model.state_dict())
    Edit.load(run / "edit.safetensors").apply_(edited)
    recipe = UnlearningRecipe(unlearning.UnlearningConfig(**run_config))
    forged = record_module.facts(edit, model, edited, recipe.populations())
    counts = forged["counts"]["test"]

    def forge_metrics(metrics: dict[str, Any]) -> None:
        for group, row in counts.items():
            metrics["test"]["after"][f"{group}_accuracy"] = row["after"] / row["count"]

    def forge(content: dict[str, Any]) -> None:
        content.update(forged)
        for name in content["files"]:
            content["files"][name] = record_module.file_hash(run / name)

    change_json(run / "metrics.json", forge_metrics)
    change_record(run, forge)
    assert verify(run)[0] == 0
    status, said = verify(run, "--replay")
    assert status == 1
    assert "DIFFERS    replay: edit.factors: recorded sha256:" in said


def tampered_edit(run: Path) -> None:
    edit = Edit.load(run / "edit.safetensors")
    edit.factors["fc1"][0][0, 0] += 1
    edit.save(run / "edit.safetensors")


def tampered_model(run: Path) -> None:
    state = load_file(run / "model.safetensors")
    state["fc1.weight"][0, 0] += 1
    save_file(state, run / "model.safetensors")


def tampered_bias(run: Path) -> None:
    """Weights that no edit looks at."""
    state = load_file(run / "model.safetensors")
    state["fc2.bias"][0] += 1
    save_file(state, run / "model.safetensors")


def better_metrics(run: Path) -> None:
    change_json(run / "metrics.json", lambda it: it["test"]["after"].update(retain_accuracy=0.9999))


def better_counts(run: Path) -> None:
    change_json(run / "record.json", lambda it: it["counts"]["test"]["retain"].update(after=40))


def better_bounds(run: Path) -> None:
    change_json(run / "record.json", lambda it: it["bounds"]["groups"]["forget"].update(at_most=0.001))


def another_seed(run: Path) -> None:
    change_json(run / "record.json", lambda it: it.update(seed=7))


def fewer_files(run: Path) -> None:
    change_json(run / "record.json", lambda it: it["files"].pop("metrics.json"))


def fewer_candidates(run: Path) -> None:
    change_json(run / "record.json", lambda it: it["search"].update(candidates=16))


def another_machine(run: Path) -> None:
    """Of which nothing else in the folder knows."""
    change_json(run / "record.json", lambda it: it["machine"].update(system="Plan 9"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (tampered_edit, ["edit.safetensors: not the file", "edit.factors: recorded", "weights.after: rec"]),
        (tampered_model, ["model.safetensors: not", "weights.before: recorded", "does not fit the model"]),
        (tampered_bias, ["model.safetensors: not the file", "weights.before: recorded"]),
        (better_metrics, ["metrics.json: not the file", "retain_accuracy after is 0.9999, counted"]),
        (better_counts, ["counts.test.retain.after: recorded 40, found"]),
        (better_bounds, ["bounds.groups.forget.at_most: recorded 0.001, found"]),
        (another_seed, ["seed: recorded 7, found 0"]),
        (fewer_candidates, ["record: recorded sha256:", "search.candidates: recorded 16, found 48"]),
        (another_machine, ["record: recorded sha256:"]),
        (fewer_files, ["metrics.json: the record does not name this file"]),
    ],
)
def test_what_was_changed_is_named(run: Path, tamper: Callable[[Path], None], named: list[str]) -> None:
    tamper(run)
    status, said = verify(run)
    assert status == 1, said
    assert said.splitlines()[0] == CERTIFIES
    lines = [line for line in said.splitlines() if line.startswith("DIFFERS")]
    for text in named:
        assert any(text in line for line in lines), said
    assert "does not match its record" in said
    assert "Verified" not in said


def test_figures_that_were_changed_with_their_hash(run: Path) -> None:
    better_metrics(run)
    known = record_module.file_hash(run / "metrics.json")
    change_record(run, lambda it: it["files"].update({"metrics.json": known}))
    status, said = verify(run)
    assert status == 1
    assert "retain_accuracy after is 0.9999, counted" in said


def test_candidates_are_those_of_the_history(run: Path) -> None:
    """Also where every hash was made to fit."""
    change_json(run / "metrics.json", lambda it: it.update(candidates=16))
    known = record_module.file_hash(run / "metrics.json")
    change_record(run, lambda it: it["files"].update({"metrics.json": known}))
    change_record(run, lambda it: it["search"].update(candidates=16))
    status, said = verify(run)
    assert status == 1
    assert "DIFFERS    candidates of the history: recorded 16, found 48" in said
    lines = [line for line in said.splitlines() if line.startswith("DIFFERS")]
    assert len(lines) == 1


def test_candidates_of_trials_are_counted_too(run: Path) -> None:
    (run / "layers.json").write_text(json.dumps([{"candidates": 10}, {"candidates": 6}]))
    status, said = verify(run)
    assert status == 1
    assert "candidates of the history: recorded 48, found 64" in said


def test_a_history_that_cannot_be_read(run: Path) -> None:
    (run / "history.csv").write_text("update,reward\n1,2\n")
    status, said = verify(run)
    assert status == 1  # nor is it the file that was recorded
    assert "unchecked  candidates and origin: " in said
    assert "expected one of ['update', 'reward'], got 'candidates'" in said


def test_a_record_without_a_hash_of_itself_is_of_an_earlier_version(run: Path) -> None:
    change_json(run / "record.json", lambda it: it.pop("hash"))
    status, said = verify(run)
    assert status == 0, said
    assert "Note: the record has no hash of itself" in said


def test_what_stands_twice_in_a_record_is_refused(run: Path) -> None:
    """Programs read the last of the two, people the first."""
    path = run / "record.json"
    path.write_text(path.read_text().replace('"search": {', '"search": {"candidates": 1,'))
    status, said = verify(run)
    assert status == 2
    assert "a key occurs twice in it" in said


def test_another_data_set(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["rledit.recipes.unlearning.run"], "load", lambda *_: dataset(5))
    status, said = verify(run)
    assert status == 1
    for split in ("train", "reward", "validation", "test"):
        assert f"data.{split}.fingerprint: recorded" in said


def test_another_version_is_said(run: Path) -> None:
    change_record(run, lambda it: it["rledit"].update(version="0.1.7"))
    change_record(run, lambda it: it["machine"].update(torch_threads=64))
    status, said = verify(run)
    assert status == 0
    assert "Note: made by another rledit: rledit.version: recorded 0.1.7, found" in said
    assert "Note: made on another machine or with other threads: machine.torch_threads" in said


@pytest.mark.parametrize(
    "name", ["edit.safetensors", "model.safetensors", "metrics.json", "config.json", "history.csv"]
)
def test_a_missing_file_cannot_be_checked(run: Path, name: str) -> None:
    (run / name).unlink()
    status, said = verify(run)
    assert status == 2, said
    assert f"unchecked  {name}: No such file" in said
    assert "Verified" not in said


def no_data(*_: object) -> Dataset:
    raise FileNotFoundError("mnist5k is not in /nowhere")


def test_without_the_data(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["rledit.recipes.unlearning.run"], "load", no_data)
    status, said = verify(run)
    assert status == 2
    assert "mnist5k is not in /nowhere" in said
    tampered_model(run)
    assert verify(run)[0] == 1


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (["config.json", "metrics.json"], "no record yet: the run has not come to its end"),
        (["config.json"], "no record yet: the run was interrupted"),
        ([], "is not a run folder"),
    ],
)
def test_a_run_without_a_record(run: Path, left: list[str], message: str) -> None:
    for path in run.iterdir():
        if path.is_file() and path.name not in left:
            path.unlink()
    status, said = verify(run)
    assert status == 2
    assert message in said
    assert said.splitlines()[0] == CERTIFIES
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a record of rledit: it is not JSON"),
        ("[]", "is not a record of rledit: expected an object"),
        ('{"format": 1, "files": []}', "is not a record of rledit: expected an object"),
    ],
)
def test_a_record_that_is_none(run: Path, text: str, message: str) -> None:
    (run / "record.json").write_text(text)
    status, said = verify(run)
    assert status == 2
    assert message in said
    assert "Traceback" not in said


def test_a_record_of_the_future(run: Path) -> None:
    change_json(run / "record.json", lambda it: it.update(format=2))
    status, said = verify(run)
    assert status == 2
    assert "expected a record of format 1, got 2" in said


def test_a_config_of_another_version(run: Path) -> None:
    change_json(run / "config.json", lambda it: it.update(new_option=1))
    known = record_module.file_hash(run / "config.json")
    change_record(run, lambda it: it["files"].update({"config.json": known}))
    status, said = verify(run)
    assert status == 2
    assert "config.json is of another version of rledit: it has, or lacks, new_option" in said


def test_a_record_does_not_lead_outside_its_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    change_record(run, lambda it: it["files"].update({"../secret": "sha256:0"}))
    status, said = verify(run)
    assert status == 2
    assert "unchecked  ../secret: No such file" in said


def test_a_stopped_run_is_not_repeated(run: Path) -> None:
    change_json(run / "metrics.json", lambda it: it.update(stopped="interrupted"))
    known = record_module.file_hash(run / "metrics.json")
    change_record(run, lambda it: it["files"].update({"metrics.json": known}))
    change_record(run, lambda it: it["search"].update(stopped="interrupted"))
    status, said = verify(run, "--replay")
    assert status == 2
    assert "replay: the run was stopped before its end (interrupted)" in said


def test_out_needs_replay(run: Path, tmp_path: Path) -> None:
    status, said = verify(run, "--out", tmp_path / "again")
    assert status == 2
    assert "--replay" in said


def test_there_is_no_such_run(tmp_path: Path) -> None:
    status, said = verify(tmp_path / "none")
    assert status == 2
    assert "there is no such run folder" in said


def test_a_replay_of_a_record_without_its_search_differs(run: Path) -> None:
    change_record(run, lambda it: it.update(search=None))
    status, said = verify(run, "--replay")
    assert status == 1
    assert "replay: search: recorded nothing" in said
