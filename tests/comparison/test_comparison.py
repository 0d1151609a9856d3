"""Comparisons: cells that stay, workers that die, tasks that are wrong, and what the tables say."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import dying_jobs
import pytest
import torch
from programs import PREPARED

import rledit
from rledit.comparison import TaskSource, compare
from rledit.comparison.cells import Cell, Cells
from rledit.comparison.fronts import shown_range
from rledit.comparison.table import ahead_of, as_csv, as_markdown, summary
from rledit.comparison.workers import Done, carry_out
from rledit.experiments.folder import RunBusyError
from rledit.experiments.record import circumstances
from rledit.methods import METHODS as ALL_METHODS
from rledit.methods import Budget, MethodResult
from rledit.methods.base import Need
from rledit.storage.files import write_tensors
from rledit.zoo import models

pytestmark = pytest.mark.usefixtures("one_thread", "workers_at_hand")


@pytest.fixture(scope="module")
def workers_at_hand() -> Iterator[None]:
    """Workers are forked from a process that has imported torch, which would take longer than their jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rledit.comparison.workers.get_context", lambda _: PREPARED)
        yield


TASK = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
from blob_problems import make_problem
from rledit.audits import AuditData
from rledit.comparison import ComparisonTask

def make_task(seed):
    problem, test = make_problem(seed=seed)
    return ComparisonTask(problem, AuditData(problem.reward, test, problem.classes, ("0",), seed=seed))
"""
METHODS = ["logit_mask", "finetune_last", "rledit_shift"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TaskSource:
    path = tmp_path_factory.mktemp("task") / "blobs.py"
    path.write_text(TASK)
    return TaskSource(str(path))


def run(source: TaskSource, out: Path, methods: list[str] = METHODS, **more: Any) -> list[dict[str, Any]]:
    return compare([source], methods, out=out, **{"seeds": [0, 1], "budget": Budget(256), **more})


@pytest.fixture(scope="module")
def compared(source: TaskSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("comparison") / "out"
    run(source, out, command="rledit compare --what 'ever'")
    return out


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "table.csv").open()))


def test_methods_may_be_given_a_part_of_the_training_images(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    write_tensors(weights, models.build("mnist_cnn").state_dict())
    source = TaskSource("mnist5k", (7,), weights=str(weights))
    some = replace(source, train_samples=400)
    assert source.describe() != some.describe()
    whole = source.make(0, tmp_path).problem.train
    problem = some.make(0, tmp_path).problem
    assert problem.train.labels.bincount().tolist() == [40] * 10
    assert torch.equal(problem.train.labels, whole.labels[:400])
    assert torch.equal(problem.reward.labels, source.make(0, tmp_path).problem.reward.labels)
    with pytest.raises(ValueError, match="train_samples: expected at most 3200"):
        replace(source, train_samples=5000).make(0, tmp_path)


@pytest.mark.slow
def test_a_table_has_every_cell(compared: Path) -> None:
    rows = rows_of(compared)
    cells = {(row["method"], int(row["seed"])) for row in rows}
    assert cells == {(name, seed) for name in ("unedited", "retrain", *METHODS) for seed in (0, 1)}
    assert list(rows[0])[:3] == ["task", "method", "seed"]
    assert {"forget_accuracy", "retain_accuracy", "probe_recall", "membership_auc", "relearn_steps"} <= set(
        rows[0]
    )
    assert {"seconds", "evaluations", "needs_gradients", "forget_agreement_rate"} <= set(rows[0])
    by_method = {row["method"]: row for row in rows}
    assert float(by_method["logit_mask"]["forget_accuracy"]) == 0
    assert by_method["logit_mask"]["probe_recall"] == by_method["unedited"]["probe_recall"]
    assert 256 < int(by_method["rledit_shift"]["evaluations"]) < 300  # some on the validation split
    assert by_method["rledit_shift"]["needs_gradients"] == "0"
    assert by_method["finetune_last"]["needs_gradients"] == "1"
    text = (compared / "table.md").read_text()
    assert "rledit compare --what 'ever'" in text
    assert "- Ahead of rledit, shift: " in text
    assert (compared / "fronts.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_second_call_measures_what_is_missing_only(source: TaskSource, compared: Path) -> None:
    cells = compared / "cells"
    before = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    lost, damaged = sorted(path for path in cells.iterdir() if "logit_mask" in path.name)
    lost.unlink()
    damaged.write_text("{")
    run(source, compared, ["logit_mask", "finetune_last"])
    after = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {lost.name, damaged.name}
    assert json.loads(damaged.read_text())["forget_accuracy"] == 0
    run(source, compared)  # all rows again in the table, for the other tests


def test_what_fails_is_told_and_the_rest_goes_on(
    source: TaskSource, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "odd.py"
    path.write_text(TASK + "    task.problem\n".replace("    task.problem\n", ""))
    path.write_text(
        TASK.replace("return Comp", "import dataclasses\n    problem = dataclasses.replace(problem, "
                     "build=None, training=None)\n    return Comp")
    )  # fmt: skip
    rows = run(TaskSource(str(path)), tmp_path / "out", ["logit_mask"], seeds=[0])
    assert {row["method"] for row in rows} == {"unedited", "logit_mask"}
    assert "retrain" in caplog.text
    assert "expected a problem with build and training" in caplog.text


@pytest.mark.slow
def test_what_was_measured_without_a_retrained_network_is_measured_again_with_it(
    source: TaskSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> MethodResult:
        raise OSError("no memory left")

    cells = tmp_path / "out" / "cells"

    def measured() -> dict[str, int]:
        run(source, tmp_path / "out", ["logit_mask"], seeds=[0])
        return {path.name.split("--")[1]: path.stat().st_mtime_ns for path in cells.iterdir()}

    with monkeypatch.context() as patched:
        patched.setitem(ALL_METHODS, "retrain", replace(ALL_METHODS["retrain"], run=fails))
        without = measured()
        assert set(without) == {"unedited", "logit_mask"}
        assert measured() == without  # it fails again: nothing new is to be found out
    later = measured()
    assert set(later) == {"unedited", "retrain", "logit_mask"}
    assert all(later[name] > time for name, time in without.items())
    assert all(row["forget_agreement_rate"] for row in rows_of(tmp_path / "out"))
    assert measured() == later


def test_a_folder_of_another_comparison_is_refused(source: TaskSource, compared: Path) -> None:
    before = sorted(path.name for path in compared.rglob("*"))
    with pytest.raises(ValueError, match=r"budget is .* there and .* here"):
        run(source, compared, budget=Budget(512))
    assert sorted(path.name for path in compared.rglob("*")) == before


def test_a_folder_of_something_else_is_refused(source: TaskSource, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"holds no comparison of rledit \(it has thesis.tex\)"):
        run(source, tmp_path)


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with Cells(tmp_path / "out", {"a": 1}), pytest.raises(RunBusyError, match="another process"):
        Cells(tmp_path / "out", {"a": 1})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methods": ["magic"]}, "methods: expected some of .*; got 'magic'"),
        ({"seeds": []}, "seeds: expected"),
        ({"seeds": [0, 0]}, "seeds: expected different"),
        ({"audits": "none"}, "audits: expected one of standard, thorough"),
        ({"workers": 0}, "workers: expected at least 1"),
    ],
)
def test_wrong_arguments_leave_nothing(
    source: TaskSource, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(source, tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\n", "to define make_task"),
        ("def make_task(): pass\n", "to take the seed"),
        ("def make_task(seed): return 3\n", "to return a rledit.comparison.ComparisonTask, got int"),
    ],
)
def test_a_task_file_must_define_a_task(
    tmp_path: Path, code: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine.py").write_text(code)
    assert run(TaskSource(str(tmp_path / "mine.py")), tmp_path / "out", ["logit_mask"], seeds=[0]) == []
    assert message in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "imagenet"}, "task: expected one of mnist"),
        ({"name": "mnist"}, "forget: expected one class of mnist"),
        ({"name": "mnist", "forget": (7,), "epochs": -1}, "epochs: expected at least 0"),
        ({"name": "mnist", "forget": (7,), "train_samples": -1}, "train_samples: expected at least 0"),
    ],
)
def test_sources_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSource(**arguments)


def test_weights_count_by_their_content_and_are_never_made(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="weights: there is no file"):
        TaskSource("mnist5k", (7,), weights=str(path))
    described = []
    for content in (b"one", b"two"):
        path.write_bytes(content)
        described.append(TaskSource("mnist5k", (7,), weights=str(path)).describe())
    path.rename(tmp_path / "moved")
    described.append(TaskSource("mnist5k", (7,), weights=str(tmp_path / "moved")).describe())
    assert described[0] != described[1] == described[2]


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_job_only(tmp_path: Path) -> None:
    ended: list[Done[tuple[str, str]]] = []

    def on_done(done: Done[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        ended.append(done)
        if done.job[0] == "fine 1":
            yield ("fine 3", str(tmp_path))

    names = ["fine 1", "once", "error 1", "always", "fine 2"]
    carry_out(dying_jobs.run, [(name, str(tmp_path)) for name in names], 2, on_done)
    said = {done.job[0]: done.result or done.error for done in ended}
    assert said == {
        "fine 1": "fine 1 done",
        "once": "once done",
        "error 1": "no error 1",
        "always": "its process died 2 times, perhaps for lack of memory",
        "fine 2": "fine 2 done",
        "fine 3": "fine 3 done",
    }


def row(method: str, seed: int, forget: float, retain: float, probe: float) -> dict[str, Any]:
    figures = {"forget_accuracy": forget, "retain_accuracy": retain, "forget_probe_accuracy": probe}
    return {"task": "t", "method": method, "seed": seed, "seconds": 1.0, **figures}


def test_ahead_means_worse_in_nothing_and_better_beyond_two_deviations() -> None:
    rows = [
        *(row("rledit_shift", seed, 0.0, 0.98, 0.95 + 0.001 * seed) for seed in range(3)),
        *(row("scrub", seed, 0.0, 0.98, 0.90) for seed in range(3)),
        *(row("ssd", seed, 0.0, 0.97, 0.90) for seed in range(3)),
        *(row("retrain", seed, 0.0, 0.99, 0.90) for seed in range(3)),
    ]
    assert ahead_of(rows, "rledit_shift") == ["scrub"]
    assert ahead_of(rows, "scrub") == []
    noisy = [
        *rows[:3],
        *(row("scrub", seed, 0.0, 0.98, [0.97, 0.97, 0.90][seed]) for seed in range(3)),
    ]
    assert ahead_of(noisy, "rledit_shift") == []
    assert "- Ahead of rledit, shift: SCRUB." in as_markdown(rows)
    assert summary(rows[:3], "forget_probe_accuracy")[1] == pytest.approx(0.001)
    unknown = [{**rows[0], "forget_probe_accuracy": None}, *rows[3:6]]
    assert ahead_of(unknown, "rledit_shift") == []


def test_the_table_says_all_that_methods_need() -> None:
    names = ["logit_mask", "retrain", "bad_teacher"]
    rows = [row(name, 0, 0.0, 0.98, 0.9) for name in names]
    lines = as_markdown(rows).split("## What each method needs")[1].strip().splitlines()
    head, _, *body = ([entry.strip() for entry in line.strip("|").split("|")] for line in lines)
    assert set(head[2:]) == set(get_args(Need))
    shown = {line[0]: {need for need, mark in zip(head, line, strict=True) if mark == "x"} for line in body}
    assert shown == {
        "logit mask": {"forget classes"},
        "retraining": {"gradients", "retain data", "training"},
        "bad teacher": {"gradients", "forget data", "retain data", "architecture"},
    }
    table = {line["method"]: line for line in csv.DictReader(as_csv(rows).splitlines())}
    marked = {
        name: {key for key in line if key[:6] == "needs_" and line[key] == "1"}
        for name, line in table.items()
    }
    assert marked["logit_mask"] == {"needs_forget_classes"}
    assert "needs_architecture" in marked["bad_teacher"]


def test_one_seed_is_no_evidence() -> None:
    rows = [row("rledit_shift", 0, 0.5, 0.5, 0.95), row("scrub", 0, 0.0, 0.98, 0.90)]
    assert ahead_of(rows, "rledit_shift") == []
    assert "From one seed" in as_markdown(rows)


@pytest.mark.slow
def test_cells_name_the_version_that_measured_them(source: TaskSource, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out, ["logit_mask"], seeds=[0])
    kept = json.loads((out / "cells" / "blobs--logit_mask--0.json").read_text())
    assert kept["rledit_version"] == rledit.__version__
    assert kept["rledit_code"] == circumstances()["rledit"]["code"]
    assert {row["rledit_code"] for row in rows_of(out)} == {kept["rledit_code"]}
    assert "differing versions" not in (out / "table.md").read_text()
    for name, changed in (
        ("unedited", {"rledit_version": "0.0.1", "rledit_code": "sha256:abcdef0123"}),
        ("retrain", {}),  # a cell from before versions were named
    ):
        path = out / "cells" / f"blobs--{name}--0.json"
        row = json.loads(path.read_text())
        row = {key: value for key, value in row.items() if not key.startswith("rledit_")}
        path.write_text(json.dumps(row | changed))
    assert len(run(source, out, ["logit_mask"], seeds=[0])) == 3  # none is refused
    text = (out / "table.md").read_text()
    (line,) = [line for line in text.splitlines() if "differing versions" in line]
    assert "0.0.1 (code abcdef01" in line
    assert "one that is not named 1" in line
    assert f"{rledit.__version__} (code {kept['rledit_code'][7:15]}" in line
    assert "of 3 cells" in line


def test_names_of_cells_are_names_of_files() -> None:
    assert Cell("a/b c", "x:y", 3).file == "a_b_c--x_y--3.json"


# Spawned by multiprocessing itself, from a program that has a file of its own.
@pytest.mark.slow
def test_workers_end_when_who_has_started_them_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path.append({str(Path(dying_jobs.__file__).parent)!r})\n"
        "import dying_jobs\n"
        "from rledit.comparison.workers import carry_out\n"
        "if __name__ == '__main__':\n"
        f"    jobs = [('long 1', {str(tmp_path)!r}), ('long 2', {str(tmp_path)!r})]\n"
        "    carry_out(dying_jobs.run, jobs, 2, lambda done: ())\n"
    )
    parent = subprocess.Popen([sys.executable, str(program)])
    deadline = time.monotonic() + 60
    while len(found := list(tmp_path.glob("long*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(path.suffix[1:]) for path in found]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(runs, workers))


def runs(process: int) -> bool:
    """Whether it does; one that has ended may still be waiting for its parent's parent to take note."""
    state = Path(f"/proc/{process}/stat")
    if not state.parent.parent.is_dir():
        pytest.skip("needs /proc")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("values", "window"),
    [
        ([99.4, 99.2, 98.8, 93.0, 99.0, 32.9], (93.0, 99.4)),  # one is far from all others
        ([0.0, 0.0, 0.1, 4.5, 95.6], (0.0, 4.5)),
        ([50.0, 60.0, 70.0, 80.0], (50.0, 80.0)),
        ([99.0, 99.0], (98.95, 99.05)),
    ],
)
def test_figures_show_what_is_near_the_others(values: list[float], window: tuple[float, float]) -> None:
    assert shown_range(values) == pytest.approx(window)
