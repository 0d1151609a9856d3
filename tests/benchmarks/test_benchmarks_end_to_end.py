"""The end-to-end benchmark compares like with like: same rewards, observations, settings and clock."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

import rledit
from rledit.recipes.unlearning import WORLDS, UnlearningConfig
from rledit.worlds import SingleMaskWorld, SingleShiftWorld
from rledit.zoo.models import MnistCNN

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the benchmarks; rledit, imported above, stays the installed one
try:
    from benchmarks.end_to_end import ours
    from benchmarks.end_to_end.goal import Goal, Outcome, Stopwatch
    from benchmarks.end_to_end.plain import Editing, PlainEnv, Split
    from benchmarks.end_to_end.profile import (
        Overhead,
        attribute,
        measure_overhead,
        profile,
        visible_operators,
    )
    from benchmarks.end_to_end.report import make_note, make_rows, make_table
finally:
    if str(ROOT) in sys.path:
        sys.path.remove(str(ROOT))

FORGET = 7
CONFIG = UnlearningConfig("mnist", (FORGET,), num_envs=16)
OVERHEAD = Overhead(python=2e-3, native=1e-3)


class TinyData:
    """As :class:`rledit.recipes.unlearning.data.UnlearningData`, of noise."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        parts = [
            SimpleNamespace(
                images=torch.randn(size, 1, 28, 28, generator=generator), labels=torch.arange(size) % 10
            )
            for size in (120, 90)
        ]
        self.reward, self.validation = parts

    def inputs(self, part: Any) -> Tensor:
        images: Tensor = part.images
        return images

    def samples(self, part: Any, forget: tuple[int, ...]) -> rledit.Samples:
        return rledit.Samples(part.images, part.labels, rledit.forget_groups(part.labels, forget))


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """So that small products do not wait for a second core that is busy elsewhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> TinyData:
    return TinyData()


@pytest.fixture(scope="module")
def model() -> MnistCNN:
    torch.manual_seed(0)
    return MnistCNN().eval()


def make_editing(model: MnistCNN, data: TinyData, world: str) -> Editing:
    splits = [Split(model, part.images, part.labels, FORGET) for part in (data.reward, data.validation)]
    return Editing(model, world, *splits)


def some_actions(editing: Editing, count: int) -> np.ndarray[Any, Any]:
    actions = np.random.default_rng(0).normal(0, 2, (count, editing.size)).astype(np.float32)
    assert (np.abs(actions) > editing.bound).any()
    return actions


# -------------------------------------------------------------------------------------- environments


@pytest.mark.parametrize("world", WORLDS)
def test_plain_env_is_rledits_world(model: MnistCNN, data: TinyData, world: str) -> None:
    editing = make_editing(model, data, world)
    task = rledit.Task(model, ["fc1"], data.samples(data.reward, (FORGET,)), rledit.Unlearning())
    single = {"mask": SingleMaskWorld, "shift": SingleShiftWorld}[world](task)
    env = PlainEnv(editing)
    assert env.action_space == single.action_space
    rewards = []
    for action in some_actions(editing, 24):
        ours_first, _ = single.reset()
        first, _ = env.reset()
        np.testing.assert_allclose(first, ours_first, rtol=1e-6)
        ours_next, ours_reward, *ours_over, _ = single.step(action)
        then, reward, *over, _ = env.step(action)
        np.testing.assert_allclose(then, ours_next, rtol=1e-4, atol=1e-4)
        assert reward == pytest.approx(ours_reward, abs=1e-12)
        assert over == ours_over == [True, False]
        rewards.append(reward)
    assert len(set(rewards)) > 5
    single.close()


def test_plain_env_keeps_gymnasiums_rules(model: MnistCNN, data: TinyData) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Its advice for any unbounded observation, actions beyond [-1, 1], and environments without a spec.
        for advice in ("A Box observation", "we recommend using a symmetric", "alternative render modes"):
            warnings.filterwarnings("ignore", message=f".*{advice}")
        check_env(PlainEnv(make_editing(model, data, "mask")))


@pytest.mark.parametrize("world", WORLDS)
def test_batched_env_gives_the_plain_rewards(model: MnistCNN, data: TinyData, world: str) -> None:
    pytest.importorskip("stable_baselines3")
    from benchmarks.end_to_end.batched import BatchedVecEnv

    editing = make_editing(model, data, world)
    actions = some_actions(editing, 11)  # not a multiple of the chunk
    environment = BatchedVecEnv(editing, len(actions))
    assert (environment.reset() == editing.observation).all()
    observations, rewards, dones, _ = environment.step(actions)
    env = PlainEnv(editing)
    expected = [env.step(action)[1] for action in actions]
    np.testing.assert_allclose(rewards, expected, atol=1e-6)
    assert (observations == editing.observation).all()
    assert dones.all()


# ------------------------------------------------------------------------------------------ the runs


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("our_means", [False, True])
def test_opponent_has_our_settings(model: MnistCNN, data: TinyData, batched: bool, our_means: bool) -> None:
    pytest.importorskip("stable_baselines3")
    from benchmarks.end_to_end.sb3 import Opponent, edit, make_agent, make_environment

    opponent = Opponent(batched, our_means)
    editing = make_editing(model, data, "mask")
    environment = make_environment(opponent, editing, CONFIG.num_envs)
    agent = make_agent(opponent, environment, editing, CONFIG.ppo, seed=0)
    task = rledit.Task(model, ["fc1"], data.samples(data.reward, (FORGET,)), rledit.Unlearning())
    trainer = rledit.PPO(rledit.MaskWorld(task, num_envs=CONFIG.num_envs))
    assert sum(p.numel() for p in agent.policy.parameters()) == sum(
        p.numel() for p in trainer.agent.parameters()
    )
    assert agent.batch_size == CONFIG.num_envs // CONFIG.ppo.num_minibatches
    torch.testing.assert_close(agent.policy.log_std, trainer.agent.policy.log_std)
    bias, right = agent.policy.action_net.bias, trainer.env.layout.right_mask()
    spread = CONFIG.ppo.initial_right if our_means else 0.0
    assert float(bias[right].detach().std()) == pytest.approx(spread, rel=0.2)
    assert not bias[~right].any()
    trainer.env.close()

    outcome = edit(opponent, CONFIG, model, data, Goal(limit_updates=3))
    assert not outcome.reached
    assert (outcome.updates, outcome.candidates) == (3, 3 * CONFIG.num_envs)
    assert 0 < outcome.check_seconds < outcome.seconds


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("inline", [False, True])
def test_ours_stops_at_the_goal(model: MnistCNN, data: TinyData, world: str, inline: bool) -> None:
    config = replace(CONFIG, world=world)
    outcome = ours.edit(config, model, data, Goal(limit_updates=2), inline=inline)
    assert not outcome.reached
    assert (outcome.updates, outcome.candidates) == (2, 2 * config.num_envs)
    easy = ours.edit(config, model, data, Goal(forget=1.0, retain=0.0), inline=inline)
    assert easy.reached
    assert easy.updates == 1


def test_check_is_of_the_same_two_actions(model: MnistCNN, data: TinyData) -> None:
    """rledit's scorer and the opponent's code agree on the validation split."""
    from rledit.ppo.trainer import mean_actions
    from rledit.recipes.unlearning.run import make_task, make_trainer

    task = make_task(CONFIG, model, data)
    trainer = make_trainer(CONFIG, task)
    trainer.update()
    editing = make_editing(model, data, "mask")
    with torch.no_grad():
        actions = [mean_actions(trainer.engine, trainer.agent)[0, 0], trainer.elites.actions[0, 0]]
    expected = [editing.accuracies(editing.edited(action.numpy()), editing.validation) for action in actions]
    assert ours.accuracies(trainer, task.scorer(split="validation")) == expected
    trainer.env.close()


def test_stopwatch() -> None:
    watch = Stopwatch(Goal(limit_seconds=60.0), Outcome("someone", "mask", 0, 0.0))
    began = time.perf_counter()
    assert not watch.check([(0.9, 0.99), (0.004, 0.9)], began, 8)
    assert (watch.outcome.origin, watch.outcome.retain) == ("best candidate", 0.9)
    # the one that meets the goal, though the other has the larger objective
    assert watch.check([(0.005, 0.985), (0.006, 1.0)], began, 8)
    assert (watch.outcome.origin, watch.outcome.reached) == ("policy mean", True)
    assert (watch.outcome.updates, watch.outcome.candidates) == (2, 16)
    late = Stopwatch(Goal(limit_seconds=0.0), Outcome("someone", "mask", 0, 0.0))
    assert late.check([(1.0, 1.0), (1.0, 1.0)], began, 8)
    assert not late.outcome.reached


def test_opponent_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.end_to_end import __main__ as command

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install stable-baselines3"):
        command.main()


def test_the_faster_run_counts() -> None:
    from benchmarks.end_to_end.__main__ import _faster

    limits = []
    seconds = iter([5.0, 3.0, 4.0, 2.0])

    def edit(goal: Goal) -> Outcome:
        limits.append(goal.limit_seconds)
        took = next(seconds)
        over = took >= goal.limit_seconds
        return Outcome("someone", "mask", 0, 0.0, not over, min(took, goal.limit_seconds))

    threads = torch.get_num_threads()
    best = None
    for _ in range(4):
        best = _faster(edit, [1, 2], Goal(limit_seconds=9.0), best)
    assert limits == [9.0, 5.0, 3.0, 3.0]
    assert (best.reached, best.seconds) == (True, 2.0)
    assert best.threads in (1, 2)
    assert torch.get_num_threads() == threads


def test_rows() -> None:
    def run(contestant: str, seed: int, seconds: float, reached: bool = True) -> Outcome:
        return Outcome(contestant, "mask", seed, 1.0, reached, seconds, updates=4)

    outcomes = [run("rledit", 0, 1.0), run("rledit", 1, 2.0), run("it", 0, 3.0), run("it", 1, 10.0, False)]
    mine, theirs = make_rows(outcomes)
    assert mine["ratio"] == mine["ratio_seed_0"] == 1.0
    assert (theirs["ratio_seed_0"], theirs["ratio"]) == (3.0, 4.0)
    assert theirs["ratio_with_setup"] == pytest.approx((4 / 2 + 11 / 3) / 2)
    assert theirs["reached"] == 1
    assert [column.header for column in make_table([mine, theirs]).columns][:2] == ["world", "contestant"]
    assert "Not in every run reached within 900 s: mask, it" in make_note(
        [theirs], "it", Goal(), {}, [1, 2], 3
    )


# ------------------------------------------------------------------------------------------- profile


def called(code: Any, count: int, seconds: float, *calls: Any) -> SimpleNamespace:
    return SimpleNamespace(code=code, callcount=count, inlinetime=seconds, calls=calls or None)


def test_attribution() -> None:
    def loop() -> None: ...

    def helper() -> None: ...

    def operator() -> None: ...

    loop_, helper_, operator_ = (f.__code__ for f in (loop, helper, operator))
    entries = [
        called(
            loop_,
            1,
            1.0,
            called(helper_, 10, 0.0),
            called("<built-in method mm>", 20, 0.0),
            called(operator_, 4, 0.0),
        ),
        called(helper_, 10, 0.5, called("<built-in method mm>", 5, 0.0)),
        called("<built-in method mm>", 25, 3.0),
        called(operator_, 4, 0.25),
    ]
    found = attribute(entries, OVERHEAD, frozenset({operator_}))
    # half of the Python price per call of it and per call that it makes, the native price per builtin
    loop_cost = 1e-3 * (1 + 10 + 4) + 1e-3 * 20
    helper_cost = 1e-3 * 10 + 1e-3 * 5
    assert [f.seconds for f in found.functions] == pytest.approx([1.0 - loop_cost, 0.5 - helper_cost])
    assert found.python() == pytest.approx(1.5 - loop_cost - helper_cost)
    assert found.python("other") == pytest.approx(found.python())
    assert found.python("rledit", "torch") == 0
    assert found.native == pytest.approx(3.25)
    assert found.overhead == pytest.approx(loop_cost + helper_cost)


def test_profile_tells_python_from_native() -> None:
    matrix = torch.randn(300, 300)

    def python() -> int:
        total = 0
        for i in range(300_000):
            total += i * i
        return total

    def native() -> None:
        time.sleep(0.05)
        for _ in range(20):
            matrix @ matrix

    def both() -> None:
        python()
        native()

    overhead = measure_overhead(20_000)
    assert overhead.python > 0
    assert overhead.native >= 0
    found = profile(both, overhead)
    names = [f.name.rsplit(".", 1)[-1] for f in found.functions]
    assert names[0] == "python"
    # nothing of the operator is charged to the function that uses it
    assert found.functions[names.index("native")].seconds < 0.2 * found.python()
    assert found.native > 0.05


def test_operators_come_back() -> None:
    before = torch.Tensor.__sub__
    a, b = torch.arange(3.0), torch.ones(3)
    with visible_operators() as codes:
        assert torch.Tensor.__sub__.__code__ in codes
        inside = (a - b, 2 * a, a[1], float(a[2]), bool((a > -b).all()), -a, 1 - a)
    assert torch.Tensor.__sub__ is before
    outside = (a - b, 2 * a, a[1], float(a[2]), bool((a > -b).all()), -a, 1 - a)
    for x, y in zip(inside, outside, strict=True):
        assert torch.equal(torch.as_tensor(x), torch.as_tensor(y))
