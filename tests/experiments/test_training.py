"""Whatever ends a training, resuming it gives the edit of a run that nothing has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from editing_tasks import make_ppo, same_edit
from pairwise import pairwise

import rledit
from rledit.experiments import RunFolder
from rledit.experiments.console import PlainConsole
from rledit.experiments.training import train

BATCH = 16
UPDATES = 6
QUIET = PlainConsole(quiet=True)


pytestmark = pytest.mark.usefixtures("one_thread")


def run(
    path: Path, ppo: rledit.PPO, updates: int = UPDATES, every: float = 0.0, **folder: Any
) -> rledit.Result:
    config = {"candidates": BATCH * updates}
    with RunFolder(path, config, extendable=["candidates"], **folder) as opened:
        return train(ppo, opened, BATCH * updates, console=QUIET, checkpoint_seconds=every)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> rledit.Result:
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("whole") / "run", make_ppo())


def on_call(count: int, action: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the action after its call of this number."""
    calls = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        value = function(*arguments, **named)
        if calls == count:
            action()
        return value

    return wrapped


def press(times: int) -> Callable[[], None]:
    def action() -> None:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    action.__name__ = f"pressed {times}"
    return action


def interrupt() -> None:
    """As where the signal does not come through the handler of `train`."""
    raise KeyboardInterrupt


@pairwise(call=[4, 10, 11], action=[press(1), press(2), interrupt], every=[0.0, 1000.0])
def test_an_interrupted_update_is_repeated(
    whole: rledit.Result, tmp_path: Path, action: Callable[[], None], call: int, every: float
) -> None:
    ppo = make_ppo()
    ppo.optimizer.step = on_call(call, action, ppo.optimizer.step)  # type: ignore[method-assign]
    try:
        part = run(tmp_path / "run", ppo, every=every)
    except KeyboardInterrupt:
        assert call == 4 or every  # before the first update has ended there is no edit
    else:
        assert part.stopped == "interrupted"
        assert part.candidates < BATCH * UPDATES
    done = run(tmp_path / "run", make_ppo(), resume=True)
    assert done.stopped == ""
    assert same_edit(whole.edit, done.edit)


def test_ctrl_c_while_a_checkpoint_is_written(
    whole: rledit.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", on_call(12, interrupt, os.fsync))
    run(tmp_path / "run", make_ppo())
    monkeypatch.undo()
    assert same_edit(whole.edit, run(tmp_path / "run", make_ppo(), resume=True).edit)


def test_nothing_after_training_costs_the_training(
    whole: rledit.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ppo = make_ppo()

    def fail() -> rledit.Result:
        raise RuntimeError("the choice of the edit fails")

    monkeypatch.setattr(ppo, "result", fail)
    with pytest.raises(RuntimeError, match="choice of the edit"):
        run(tmp_path / "run", ppo, every=1000.0)
    again = make_ppo()
    monkeypatch.setattr(again, "update", fail)  # nothing is left to train
    assert same_edit(whole.edit, run(tmp_path / "run", again, resume=True).edit)


def test_a_finished_run_can_be_extended(whole: rledit.Result, tmp_path: Path) -> None:
    short = run(tmp_path / "run", make_ppo(), updates=2)
    assert short.candidates == 2 * BATCH
    for updates in (3, UPDATES):
        longer = run(tmp_path / "run", make_ppo(), updates=updates, resume=True)
    assert longer.candidates == UPDATES * BATCH
    assert same_edit(whole.edit, longer.edit)
    assert [row["reward_mean"] for row in longer.history] == [row["reward_mean"] for row in whole.history]
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + UPDATES
