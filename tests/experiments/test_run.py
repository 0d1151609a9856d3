"""Whatever goes wrong after training, the edit is there, and resuming completes the run."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from editing_tasks import SHORT, make_ppo, same_edit
from torch import nn

import rledit
from rledit.experiments import RunFolder, RunResult
from rledit.experiments.config import EditingConfig
from rledit.experiments.console import Console, PlainConsole
from rledit.experiments.plots import Drawing, Plot, curves
from rledit.experiments.report import Finished, Page
from rledit.experiments.run import Baseline, Options, Prepared, Recipe, carry_out

CONFIG = EditingConfig(candidates=64, num_envs=16, rank=2, ppo=SHORT)
QUIET = PlainConsole(quiet=True)


def nothing() -> None:
    pass


class Small(Recipe):
    """A run of a second, with a place to go wrong at each of its steps."""

    def __init__(self, config: EditingConfig = CONFIG, **faults: Callable[[], object]) -> None:
        self.config = config
        self._faults = faults
        self.trained = 0

    def _at(self, step: str) -> object:
        return self._faults.get(step, nothing)()

    def prepare(self, folder: RunFolder, console: Console) -> Prepared:
        self._at("prepare")
        ppo = make_ppo()
        update = ppo.update

        def counted() -> dict[str, float]:
            self.trained += 1
            return update()

        ppo.update = counted  # type: ignore[method-assign]
        return Prepared(self.config, ppo.env.task.editable.model, ppo.env.task, ppo, "a small network", 0.5)

    def evaluate(self, edited: nn.Module) -> dict[str, Any]:
        figures = {"accuracy": self._at("evaluate") or 0.5, "per_group": {"a": float("nan")}}
        return {"before": {"accuracy": 1.0}, "after": figures}

    def drawings(self, finished: Finished) -> list[Drawing]:
        def faulty() -> Plot | None:
            self._at("draw")
            return None

        def good() -> Plot:  # drawing takes longer than all the rest
            return Plot("learning_reward", "reward over candidates", b"<svg/>", b"\x89PNG")

        real = curves(finished.history, "reward") if "real_figures" in self._faults else []
        return [Drawing("the faulty one", faulty), Drawing("the good one", good), *real]

    def page(self, finished: Finished) -> Page:
        self._at("page")
        return Page("A small run")

    def baselines(self, console: Console) -> Mapping[str, Baseline]:
        return {"retrain": lambda: {"test": {"accuracy": self._at("baseline") or 0.25}}}


def run(path: Path, recipe: Recipe, **options: Any) -> RunResult:
    return carry_out(recipe, path, Options(console=QUIET, **options))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("whole") / "run", Small())


def fail(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def full(path: str | Path) -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", str(path))


def completes(path: Path, whole: RunResult) -> None:
    recipe = Small()
    done = run(path, recipe, resume=True)
    assert recipe.trained == 0
    assert done.missing == ()
    assert same_edit(done.edit, whole.edit)
    assert done.test.after == whole.test.after
    for name in ("edit.safetensors", "metrics.json", "report.html", "plots/learning_reward.png"):
        assert (path / name).stat().st_size > 0
    assert json.loads((path / "metrics.json").read_text())["baselines"] == whole.baselines


def test_a_whole_run(whole: RunResult) -> None:
    assert whole.missing == ()
    assert whole.candidates == 64
    assert whole.test.after["accuracy"] == 0.5
    assert whole.test.after["per_group"] == {"a": None}  # JSON knows no NaN
    assert whole.validation.before.keys() == whole.validation.after.keys()
    assert whole.baselines == {"retrain": {"test": {"accuracy": 0.25}}}
    assert whole.seconds["pretrain"] == 0.5
    assert json.loads((whole.folder / "metrics.json").read_text()) == whole.metrics
    saved = rledit.Edit.load(whole.folder / "edit.safetensors")
    assert same_edit(saved, whole.edit)
    assert saved.metrics["test"] == whole.metrics["test"]
    assert str(whole.folder) in repr(whole)
    assert len(repr(whole)) < 400


def test_a_run_that_cannot_begin_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    def missing() -> None:
        raise ImportError("a package is missing")

    with pytest.raises(ImportError, match="a package is missing"):
        carry_out(Small(prepare=missing), tmp_path / "run", Options(console=QUIET))
    other = Small(EditingConfig(candidates=32, num_envs=16, rank=2, ppo=SHORT))
    assert carry_out(other, tmp_path / "run", Options(console=QUIET)).candidates == 64 - 32


def test_a_result_can_still_be_read_as_the_metrics(whole: RunResult) -> None:
    with pytest.warns(DeprecationWarning, match="attributes"):
        assert whole["test"]["before"]["accuracy"] == 1.0
    assert set(whole) == set(whole.metrics)
    with pytest.warns(DeprecationWarning, match="attributes"):
        assert dict(whole) == whole.metrics
    with pytest.warns(DeprecationWarning, match="attributes"):
        assert whole.get("nothing") is None


@pytest.mark.parametrize("step", ["evaluate", "draw", "page", "baseline"])
def test_ctrl_c_after_training(whole: RunResult, tmp_path: Path, step: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Small(**{step: fail(KeyboardInterrupt())}))
    assert same_edit(rledit.Edit.load(tmp_path / "run" / "edit.safetensors"), whole.edit)
    completes(tmp_path / "run", whole)


def test_ctrl_c_says_where_the_edit_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Small(evaluate=fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        carry_out(recipe, tmp_path / "run", Options(console=PlainConsole()))
    errors = capsys.readouterr().err
    assert str(tmp_path / "run" / "edit.safetensors") in errors
    assert "--resume" in errors


@pytest.mark.parametrize("error", [ValueError("no group"), MemoryError(), full("x")], ids=repr)
def test_an_evaluation_that_fails_leaves_the_edit(
    whole: RunResult, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    with pytest.raises(type(error)):
        run(tmp_path / "run", Small(evaluate=fail(error)))
    edit = rledit.Edit.load(tmp_path / "run" / "edit.safetensors")
    assert same_edit(edit, whole.edit)
    assert edit.metrics["validation"] == whole.metrics["validation"]
    assert "edit.safetensors" in caplog.text
    completes(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("step", "named"), [("draw", "the faulty one"), ("page", "report.html"), ("baseline", "retrain")]
)
def test_what_fails_beside_the_edit_is_named(
    whole: RunResult, tmp_path: Path, caplog: pytest.LogCaptureFixture, step: str, named: str
) -> None:
    result = run(tmp_path / "run", Small(**{step: fail(ZeroDivisionError("by the way"))}))
    assert all(named in lacking and "by the way" in lacking for lacking in result.missing)
    assert result.missing
    assert "by the way" in caplog.text
    assert result.test.after == whole.test.after
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"] == whole.metrics["test"]
    assert (tmp_path / "run" / "report.html").exists() == (step != "page")
    assert (tmp_path / "run" / "plots" / "learning_reward.png").exists()
    completes(tmp_path / "run", whole)


@pytest.mark.parametrize("name", ["report.html", "learning_reward.png"])
def test_a_disk_that_is_full_at_the_end(
    whole: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refusing(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(path: Path, data: object) -> None:
            if Path(path).name == name:
                raise full(path)
            write(path, data)

        return wrapped

    from rledit.experiments import plots, report

    monkeypatch.setattr(report, "write_text", refusing(report.write_text))
    monkeypatch.setattr(plots, "write_bytes", refusing(plots.write_bytes))
    result = run(tmp_path / "run", Small())
    assert result.missing
    assert all("No space left" in lacking for lacking in result.missing)
    monkeypatch.undo()
    completes(tmp_path / "run", whole)


def test_without_matplotlib_there_is_a_report_without_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with caplog.at_level(logging.WARNING):
        result = run(tmp_path / "run", Small(real_figures=nothing))
    assert 'pip install "rledit[cli]"' in caplog.text
    assert len(result.missing) == 1
    assert "A small run" in (tmp_path / "run" / "report.html").read_text()


def test_a_finished_run_is_extended(whole: RunResult, tmp_path: Path) -> None:
    longer = EditingConfig(candidates=112, num_envs=16, rank=2, ppo=SHORT)
    once = run(tmp_path / "once", Small(longer))
    run(tmp_path / "twice", Small())
    recipe = Small(longer)
    twice = run(tmp_path / "twice", recipe, resume=True)
    assert recipe.trained == 3
    assert same_edit(once.edit, twice.edit)
    assert twice.candidates == 112
    one, two = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("once", "twice"))
    assert one == two
    edits = [(tmp_path / name / "edit.safetensors").read_bytes() for name in ("once", "twice")]
    assert edits[0] == edits[1]
    with pytest.raises(ValueError, match="candidates: the folder has 112, asked for 64"):
        run(tmp_path / "twice", Small(), resume=True)


def test_an_extended_run_never_shows_the_figures_of_the_shorter_one(tmp_path: Path) -> None:
    run(tmp_path / "run", Small())
    longer = EditingConfig(candidates=112, num_envs=16, rank=2, ppo=SHORT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Small(longer, evaluate=fail(KeyboardInterrupt())), resume=True)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["candidates"] == 112
    assert "test" not in metrics
    assert metrics["baselines"]
    assert not (tmp_path / "run" / "report.html").exists()
