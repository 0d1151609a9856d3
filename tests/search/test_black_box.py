"""What all black-box searches do: learn, repeat, resume, keep to their budget, refuse what does not fit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from editing_tasks import make_task, same_edit

import rledit
from rledit.search import BlackBoxSearch
from rledit.search.black_box import centered_ranks
from rledit.worlds import World

pytestmark = pytest.mark.usefixtures("one_thread")

TIMES = ("seconds_score", "seconds_policy", "candidates_per_second")

Make = Callable[..., BlackBoxSearch]

SEARCHES: dict[str, Make] = {
    "es": rledit.ES,
    "es-sgd": lambda env, seed=0: rledit.ES(env, seed, optimizer="sgd", learning_rate=1.0),
    "es-low-rank": lambda env, seed=0: rledit.ES(env, seed, low_rank=1),
    "sep-cma": rledit.SepCMAES,
    "cma": rledit.CMAES,
    "tpe": lambda env, seed=0: rledit.TPE(env, seed, startup=16, memory=24),
    "random": rledit.RandomSearch,
    "hill-climbing": rledit.HillClimbing,
}
LONGER = [name for name in SEARCHES if name != "tpe"]
TOGETHER = [name for name in LONGER if name != "hill-climbing"]
NEEDS = {"sep-cma": "cmaes", "cma": "cmaes", "tpe": "optuna"}


def make(name: str, kind: type[World] = rledit.ShiftWorld, seed: int = 0, **kwargs: Any) -> BlackBoxSearch:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return SEARCHES[name](kind(make_task(), **{"num_envs": 16, "rank": 2, **kwargs}), seed)


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


# ------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("kind", [rledit.MaskWorld, rledit.ShiftWorld])
@pytest.mark.parametrize("name", LONGER)
def test_finds_an_edit(name: str, kind: type[World]) -> None:
    search = make(name, kind, num_envs=64)
    result = search.train(64 * 40)
    after = result.edit.metrics["validation"]["after"]  # type: ignore[index, call-overload]
    assert after["value"] >= 0.7  # type: ignore[index, call-overload]
    if name != "random":  # it learns: the mean of all candidates has come along
        assert result.history[-1]["reward_mean"] > result.history[0]["reward_mean"] + 0.4
    assert result.candidates == 64 * 40
    assert result.stopped == ""


def test_tpe_in_threads_leaves_warnings_and_logging_alone() -> None:
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity(), list(warnings.filters)
    searches = [make("tpe", seed=seed) for seed in range(6)]  # not in threads: torch's seed is everybody's
    with ThreadPoolExecutor(3) as executor:
        list(executor.map(lambda search: search.train(32), searches))
    assert (optuna.logging.get_verbosity(), list(warnings.filters)) == before


def test_tpe_finds_an_ablation() -> None:
    result = make("tpe").train(16 * 8)
    after = result.edit.metrics["validation"]["after"]  # type: ignore[index, call-overload]
    assert after["value"] >= 0.5  # type: ignore[index, call-overload]
    left, _ = result.edit.factors["0"]
    assert not left[:, 1].any(), "only the first rank is used"


@pytest.mark.parametrize("name", LONGER)
def test_longer_episodes(name: str) -> None:
    search = make(name, episode_length=2)
    result = search.train(16 * 2 * 3)
    assert result.candidates == 16 * 2 * 3
    elite = search.elites.actions[:1]
    assert elite.shape == (1, 2, search.engine.layout.size)
    gained = search.engine.replay(elite, "reward").outcome.values - search.engine.initial_value
    assert float(gained[0]) == pytest.approx(float(search.elites.returns[0]))


@pytest.mark.parametrize("envs", [4, 5, 7])
@pytest.mark.parametrize("name", SEARCHES)
def test_any_number_of_candidates(name: str, envs: int) -> None:
    result = make(name, num_envs=envs).train(3 * envs - 1)
    assert result.candidates == 3 * envs
    assert [row["candidates"] for row in result.history] == [envs, 2 * envs, 3 * envs]


# --------------------------------------------------------------------------------- seeds and states


@pytest.mark.parametrize("name", SEARCHES)
def test_a_seed_repeats_and_resumes(name: str) -> None:
    budget = 16 * 5
    search = make(name)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    whole = SEARCHES[name](search.env).train(budget)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    search.train(16 * 2)
    tensors, state = search.state()
    tensors = {key: value.clone() for key, value in tensors.items()}
    state = json.loads(json.dumps(state, allow_nan=False))
    another = make(name, seed=1)
    another.train(16 * 2)
    assert not torch.equal(another.elites.actions, search.elites.actions)
    search.update()  # lost
    other = make(name)
    other.update()
    other.load_state(tensors, state)
    for again in (make(name).train(budget), other.train(budget)):
        assert same_edit(again.edit, whole.edit)
        assert again.origin == whole.origin
        assert without_times(again.history) == without_times(whole.history)
    with pytest.raises(ValueError, match="seed: 0, here 1"):
        make(name, seed=1).load_state(tensors, state)


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("moment", ["learned", pytest.param("scoring", marks=pytest.mark.slow)])
def test_ctrl_c_amid_an_update_takes_it_back(name: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = 16 * 4
    whole = make(name).train(budget)
    search = make(name)
    search.update()
    tell = search.tell

    def interrupt(*args: Any) -> Any:
        if moment == "learned":
            tell(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "tell" if moment == "learned" else "_score", interrupt)
        assert search.train(budget).stopped == "interrupted"
    assert len(search.history) == 1
    resumed = make(name)
    resumed.load_state(*search.state())
    for each in (search, resumed):
        assert same_edit(each.train(budget).edit, whole.edit)


@pytest.mark.parametrize("name", SEARCHES)
def test_the_callers_modes_change_nothing(name: str) -> None:
    plain = make(name)
    plain.train(16 * 2)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            other = SEARCHES[name](plain.env)
            other.update()
    finally:
        torch.set_default_dtype(torch.float32)
    other.update()
    assert torch.equal(other.elites.actions, plain.elites.actions)


@pytest.mark.parametrize("name", SEARCHES)
def test_what_a_state_holds_does_not_change(name: str) -> None:
    search = make(name)
    search.update()
    tensors, state = search.state()
    copies = {key: value.clone() for key, value in tensors.items()}
    text = json.dumps(state)
    search.update()
    assert all(torch.equal(tensors[key], copies[key]) for key in copies)
    assert json.dumps(state) == text


@pytest.mark.parametrize("name", SEARCHES)
def test_a_state_of_other_settings_is_refused(name: str) -> None:
    search = make(name)
    search.update()
    tensors, state = search.state()
    stranger = rledit.ES(rledit.ShiftWorld(make_task(), num_envs=16, rank=2), sigma=0.123)
    with pytest.raises(ValueError, match="does not belong to this search"):
        stranger.load_state(tensors, state)
    for key in [key for key in tensors if key.startswith("learned.")]:
        fresh = make(name)
        with pytest.raises(ValueError, match="does not belong to this search"):
            fresh.load_state({**tensors, key: torch.zeros(3, 3, 3)}, state)
        fresh.update()  # as it was


# ------------------------------------------------------------------------------------ several tasks


@pytest.mark.parametrize("name", TOGETHER)
def test_one_vector_for_two_tasks(name: str) -> None:
    """The second task's objective is a thousand times as large, and still does not drown the first."""

    def loud(tally: rledit.Tally) -> torch.Tensor:
        return 1000 * (tally.accuracy("retain") - tally.accuracy("forget"))

    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    worlds = [rledit.ShiftWorld(make_task(each), num_envs=32, rank=2) for each in (rledit.Unlearning(), loud)]
    result = SEARCHES[name](worlds).train(2 * 32 * 20)
    assert result.candidates == 2 * 32 * 20
    for selection in result.selections:
        validation: Any = selection.edit.metrics["validation"]
        assert validation["after"]["value"] > validation["before"]["value"]


@pytest.mark.parametrize("name", ["hill-climbing", "tpe"])
def test_searches_that_compare_values_take_one_task(name: str) -> None:
    worlds = [rledit.ShiftWorld(make_task(), num_envs=8, rank=2) for _ in range(2)]
    with pytest.raises(ValueError, match="env: expected one world"):
        SEARCHES[name](worlds)


def test_worlds_that_do_not_fit_together() -> None:
    task = make_task()
    with pytest.raises(ValueError, match="same size of actions"):
        rledit.ES([rledit.ShiftWorld(task, num_envs=8, rank=rank) for rank in (1, 2)])
    with pytest.raises(ValueError, match="same size of num_envs"):
        rledit.ES([rledit.ShiftWorld(task, num_envs=envs, rank=2) for envs in (8, 9)])


# --------------------------------------------------------------------------------------- bad settings


@pytest.mark.parametrize("name", ["ES", "SepCMAES", "CMAES", "HillClimbing"])
@pytest.mark.parametrize("setting", ["sigma", "initial_right"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1", True])
def test_sizes_must_be_positive(name: str, setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{setting}: expected a positive number"):
        getattr(rledit, name)(rledit.ShiftWorld(make_task(), num_envs=8, rank=2), **{setting: value})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ES", {"learning_rate": 0.0}, "learning_rate: expected a positive number"),
        ("ES", {"momentum": 1.0}, "momentum: expected a number from 0 to below 1"),
        ("ES", {"optimizer": "lion"}, "optimizer: expected one of adam, sgd"),
        ("ES", {"low_rank": 2}, r"low_rank: expected 0, or 1\.\.1"),
        ("ES", {"low_rank": -1}, "low_rank: expected an integer of at least 0"),
        ("ES", {"elites": 0}, "elites: expected an integer of at least 1"),
        ("RandomSearch", {"scales": ()}, "scales: expected one positive number or several"),
        ("RandomSearch", {"scales": (1.0, -1.0)}, "scales: expected a positive number"),
        ("HillClimbing", {"sigma": 11}, "sigma: expected 0.0001 to 10"),
        ("TPE", {"startup": 0}, "startup: expected an integer of at least 1"),
        ("TPE", {"memory": 1}, "memory: expected an integer of at least 2"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(rledit, name)(rledit.ShiftWorld(make_task(), num_envs=8, rank=2), **settings)


@pytest.mark.parametrize(("name", "least"), [("es", 2), ("sep-cma", 4), ("cma", 4)])
def test_too_few_candidates(name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"needs at least {least} candidates at a time, got 1"):
        make(name, num_envs=1)


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, NEEDS[name], None)
    env = rledit.ShiftWorld(make_task(), num_envs=8, rank=2)
    with pytest.raises(ImportError, match=r'pip install "rledit\[search\]"'):
        SEARCHES[name](env)


def test_a_search_that_runs_away_ends() -> None:
    search = make("es")
    search.train(16)
    search.center.fill_(float("nan"))  # type: ignore[attr-defined]
    result = search.train(16 * 3)
    assert "blew up" in result.stopped
    assert result.candidates == 16


# ---------------------------------------------------------------------------------------------- ranks


def test_equal_values_share_their_rank() -> None:
    ranks = centered_ranks(torch.tensor([5.0, 1.0, 5.0, 3.0, 5.0], dtype=torch.float64))
    assert ranks.tolist() == [0.25, -0.5, 0.25, -0.25, 0.25]
    assert centered_ranks(torch.full((4,), 2.0)).tolist() == [0.0] * 4
    assert centered_ranks(torch.tensor([7.0])).tolist() == [0.0]
