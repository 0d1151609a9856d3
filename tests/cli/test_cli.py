"""The command line as a user meets it: whole runs, wrong input, interruptions."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import few_digits
import in_process
import pytest
import torch
from programs import Done, Program
from safetensors.torch import load_file, save_file

from rledit import Edit
from rledit.recipes.unlearning.data import evaluate
from rledit.zoo.data import Dataset
from rledit.zoo.models import MnistCNN, normalize
from rledit.zoo.training import HYPERPARAMETERS, per_class_accuracy, train_classifier

RLEDIT = """
from few_digits import in_place
from rledit.cli import main
with in_place():
    main()
"""
SMALL = ["--candidates", "1280", "--num-envs", "64", "--no-retrain"]


def rledit(*arguments: object, whole: bool = False) -> Done:
    """Run the command to its end, in this process: starting Python and torch takes longer than most runs, and
    so do figures and audits, which only a whole one has."""
    with pytest.MonkeyPatch.context() as patch, few_digits.in_place():
        if not whole:
            patch.setattr("rledit.experiments.run.draw_all", lambda drawings: ([], []))
            patch.setattr(
                sys.modules["rledit.recipes.unlearning.run"],
                "evaluate",
                lambda model, data, forget, audits, asked: evaluate(model, data, forget, (), asked),
            )
        return in_process.rledit(*arguments)


@pytest.fixture(scope="session")
def mnist5k() -> Dataset:
    return few_digits.few_digits()


@pytest.fixture(scope="module")
def weights(mnist5k: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNN that knows its digits, in a safetensors file."""
    torch.manual_seed(0)
    model = MnistCNN()
    fewer = asdict(replace(HYPERPARAMETERS["mnist5k"], epochs=4))
    train_classifier(model, normalize("mnist5k", mnist5k.train.images), mnist5k.train.labels, seed=0, **fewer)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(model.state_dict(), path)
    return path


def unlearn(out: Path, weights: Path, *more: object) -> list[object]:
    return [
        "unlearn",
        "--dataset",
        "mnist5k",
        "--forget",
        "7",
        "--out",
        out,
        "--weights",
        weights,
        *SMALL,
        *more,
    ]


@pytest.fixture(scope="module")
def run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = rledit(*unlearn(out, weights))
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_a_run_leaves_everything(weights: Path, tmp_path: Path) -> None:
    run = tmp_path / "r"
    done = rledit(*unlearn(run, weights), whole=True)
    assert done.returncode == 0, done.stderr
    assert "forget accuracy" in done.stdout
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "edit.safetensors", "history.csv", "report.html", "metrics.json",
        "checkpoint.safetensors", "plots",
    }  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    for when in ("before", "after"):
        assert set(metrics["test"][when]) >= {
            "forget_accuracy", "retain_accuracy", "per_class_accuracy", "forget_probe_accuracy",
            "relearn_steps", "membership_auc", "intervals",
        }  # fmt: skip
    assert set(metrics["seconds"]) >= {"pretrain", "edit", "score", "policy"}
    assert metrics["candidates"] == 1280
    assert metrics["test"]["after"]["forget_accuracy"] < metrics["test"]["before"]["forget_accuracy"]
    assert len(list(csv.reader((run / "history.csv").open()))) == 1 + 1280 // 64
    report = (run / "report.html").read_text()
    assert "http://" not in report
    assert "https://" not in report
    assert "<script" not in report


def test_the_table_is_what_the_saved_edit_does(run: Path, mnist5k: Dataset) -> None:
    model = MnistCNN()
    model.load_state_dict(load_file(run / "model.safetensors"))
    Edit.load(run / "edit.safetensors").apply_(model)
    inputs = normalize("mnist5k", mnist5k.test.images)
    recall = per_class_accuracy(model, inputs, mnist5k.test.labels, 10)
    after = json.loads((run / "metrics.json").read_text())["test"]["after"]
    assert after["per_class_accuracy"] == recall.tolist()
    assert after["forget_accuracy"] == pytest.approx(float(recall[7]))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_edit(run: Path, weights: Path, tmp_path: Path) -> None:
    assert rledit(*unlearn(tmp_path / "again", weights)).returncode == 0
    assert (tmp_path / "again" / "edit.safetensors").read_bytes() == (run / "edit.safetensors").read_bytes()
    assert rledit(*unlearn(tmp_path / "other", weights, "--seed", "1")).returncode == 0
    assert (tmp_path / "other" / "edit.safetensors").read_bytes() != (run / "edit.safetensors").read_bytes()


def wait_for_rows(program: Program, path: Path, rows: int) -> None:
    deadline = time.monotonic() + 120
    while program.runs() and time.monotonic() < deadline:
        if path.exists() and path.read_text().count("\n") > rows:
            return
        time.sleep(0.002)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_edit(run: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    arguments = unlearn(out, weights, "--checkpoint-seconds", "0.02")
    killed = 0
    for rows in (1, 12):  # before and after a checkpoint, with the history ahead of it
        more = ["--resume"] if out.exists() else []
        program = Program(RLEDIT, *arguments, *more)
        wait_for_rows(program, out / "history.csv", rows)
        program.send_signal(signal.SIGKILL)
        killed += program.wait().returncode == -signal.SIGKILL
    assert killed == 2
    assert not (out / "edit.safetensors").exists()
    done = rledit(*unlearn(out, weights, "--resume"))
    assert done.returncode == 0, done.stderr
    assert (out / "edit.safetensors").read_bytes() == (run / "edit.safetensors").read_bytes()
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [int(row["update"]) for row in rows] == list(range(1, 21))


@pytest.mark.slow
def test_ctrl_c_leaves_a_usable_folder_that_can_be_resumed(run: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    program = Program(RLEDIT, *unlearn(out, weights))
    wait_for_rows(program, out / "history.csv", 3)
    program.send_signal(signal.SIGINT)
    stopped = program.wait()
    assert stopped.returncode == 130, stopped.stderr
    assert "--resume" in stopped.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["stopped"] == "interrupted"
    assert 0 < metrics["candidates"] < 1280
    Edit.load(out / "edit.safetensors")
    assert (out / "report.html").exists()
    done = rledit(*unlearn(out, weights, "--resume"))
    assert done.returncode == 0, done.stderr
    assert (out / "edit.safetensors").read_bytes() == (run / "edit.safetensors").read_bytes()


@pytest.mark.slow
def test_tensorboard_mirror(weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert rledit(*unlearn(tmp_path / "r", weights, "--tensorboard")).returncode == 0
    assert list((tmp_path / "r" / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_several_layers_steps_and_the_other_world(weights: Path, tmp_path: Path) -> None:
    more = ["--world", "shift", "--layer", "fc1", "fc2", "--episode-length", "2", "--rank", "2"]
    done = rledit(*unlearn(tmp_path / "r", weights, *more))
    assert done.returncode == 0, done.stderr
    edit = Edit.load(tmp_path / "r" / "edit.safetensors")
    assert set(edit.targets) == {"fc1", "fc2"}
    assert edit.steps == 2
    assert edit.world == "shift"


def test_apply_writes_the_edited_model(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited.safetensors"
    arguments = [
        "apply",
        "--edit",
        run / "edit.safetensors",
        "--model",
        run / "model.safetensors",
        "--out",
        out,
    ]
    done = rledit(*arguments)
    assert done.returncode == 0, done.stderr
    model = MnistCNN()
    model.load_state_dict(load_file(run / "model.safetensors"))
    Edit.load(run / "edit.safetensors").apply_(model)
    for name, tensor in load_file(out).items():
        assert torch.equal(tensor, model.state_dict()[name]), name

    refused = rledit(*arguments)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    other = [
        "apply",
        "--edit",
        run / "edit.safetensors",
        "--model",
        out,
        "--out",
        tmp_path / "twice.safetensors",
    ]
    refused = rledit(*other)
    assert refused.returncode == 2
    assert "other weights" in refused.stderr
    assert rledit(*other, "--force").returncode == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--forget", "12"], "classes 0..9"),
        (["--forget"], "forget: expected one class"),
        (["--layer", "fc9"], "this model has"),
        (["--layer", "fc1", "fc1"], "expected each name once"),
        (["--rank", "0"], "rank"),
        (["--rank", "33"], "1..32"),
        (["--candidates", "0"], "candidates"),
        (["--num-envs", "0"], "num_envs"),
        (["--episode-length", "0"], "episode_length"),
        (["--learning-rate", "0"], "learning_rate"),
        (["--model", "resnet20", "--layer", "linear"], "does not fit the model"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_wrong_input_is_one_line(weights: Path, tmp_path: Path, changed: list[str], message: str) -> None:
    done = rledit(*unlearn(tmp_path / "r", weights, *changed))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_existing_folder_is_refused_unless_told(run: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    shutil.copytree(run, out)
    before = (out / "edit.safetensors").read_bytes()
    refused = rledit(*unlearn(out, weights))
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    assert "--overwrite" in refused.stderr
    differing = rledit(*unlearn(out, weights, "--resume", "--seed", "3"))
    assert differing.returncode == 2
    assert "seed" in differing.stderr
    assert (out / "edit.safetensors").read_bytes() == before
    assert rledit(*unlearn(out, weights, "--overwrite", "--seed", "3")).returncode == 0
    assert (out / "edit.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    "wrong", [["--layer", "nope"], ["--rank", "99"], ["--weights", "nowhere"], ["--num-envs", "0"]]
)
def test_overwrite_with_wrong_settings_loses_nothing(
    run: Path, weights: Path, tmp_path: Path, wrong: list[str]
) -> None:
    out = tmp_path / "r"
    shutil.copytree(run, out)
    assert rledit(*unlearn(out, weights, "--overwrite", *wrong)).returncode == 2
    for path in run.rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert (out / path.relative_to(run)).read_bytes() == path.read_bytes(), path


def test_resuming_a_finished_run_changes_nothing(run: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    shutil.copytree(run, out)
    assert rledit(*unlearn(out, weights, "--resume")).returncode == 0
    assert (out / "edit.safetensors").read_bytes() == (run / "edit.safetensors").read_bytes()


def test_a_corrupt_checkpoint_is_named(run: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    shutil.copytree(run, out)
    whole = (out / "checkpoint.safetensors").read_bytes()
    (out / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    done = rledit(*unlearn(out, weights, "--resume"))
    assert done.returncode == 2
    assert "checkpoint.safetensors" in done.stderr
    assert (out / "edit.safetensors").read_bytes() == (run / "edit.safetensors").read_bytes()


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(
    run: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    limit = 2**20  # the checkpoint needs seven times as much
    arguments = unlearn(out, weights, "--checkpoint-seconds", "0")
    done = Program(RLEDIT, *arguments, largest_file=limit).wait()
    assert done.returncode == 2, done.stderr
    assert "checkpoint.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert rledit(*unlearn(out, weights, "--resume")).returncode == 0
    assert (out / "edit.safetensors").read_bytes() == (run / "edit.safetensors").read_bytes()


def test_missing_data_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy that refuses every connection stands for a machine without a network.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    root, out = tmp_path / "none", tmp_path / "r"
    done = rledit("unlearn", "--dataset", "mnist", "--forget", "7", "--data-root", root, "--out", out)
    assert done.returncode == 2
    assert str(root) in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_cifar_resnet_with_given_weights(shared_data: Path, tmp_path: Path) -> None:
    """A little of CIFAR-10: the data set's layout is the whole one's."""
    small = tmp_path / "data" / "cifar-10-batches-bin"
    small.mkdir(parents=True)
    for source in (shared_data / "cifar-10-batches-bin").glob("*.bin"):
        with source.open("rb") as records:
            (small / source.name).write_bytes(records.read(100 * 3073))
    weights = shared_data / "models" / "cifar10_resnet20.safetensors"
    budget = ["--candidates", "8", "--num-envs", "4", "--no-retrain"]
    data = ["--dataset", "cifar10", "--data-root", tmp_path / "data", "--weights", weights]
    done = rledit("unlearn", *data, "--forget", "8", "--out", tmp_path / "r", *budget)
    assert done.returncode == 0, done.stderr
    before = json.loads((tmp_path / "r" / "metrics.json").read_text())["test"]["before"]
    assert before["retain_accuracy"] > 0.8
