"""Worlds on a GPU: a step only starts kernels, can be captured in a CUDA graph, and runs on a stream of its
own. Without a GPU, with stand-ins for its device, its graphs and its streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from editing_tasks import SHORT, make_ppo, make_task
from gpu_backends import DEVICE, gpu_backend
from no_waiting import META, Graph, Kernel, RecordedKernel, graphs_on_the_cpu, idle_cuda, no_waiting, on_meta
from pairwise import pairwise
from torch import Tensor

import rledit
from rledit.engine import actions, workers
from rledit.engine.episodes import Episodes, Outcome
from rledit.objectives import Debias
from rledit.scoring.ways import TailWay
from rledit.worlds import World

KERNELS = ("apply_lowrank", "population_linear", "score_tail", "tally_logits")
WORLDS = [rledit.MaskWorld, rledit.ShiftWorld]


@pytest.fixture(autouse=True)
def _triton() -> None:
    gpu_backend("triton")  # or skips


def accuracies(tally: rledit.Tally) -> Tensor:
    return tally.accuracy("retain") - tally.accuracy("forget")


def debiasing_task() -> rledit.Task:
    torch.manual_seed(0)
    inputs = torch.randn(120, 6)
    labels = torch.arange(120) % 2
    bias = torch.arange(120) < 80
    groups = {"utility": ~bias, "bias": bias, **{str(k): bias & (torch.arange(120) % 4 >= k) for k in (1, 2)}}
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    return rledit.Task(model, ["0"], rledit.Samples(inputs, labels, groups), Debias())


TASKS = {
    "unlearning": make_task,
    "a function": lambda: make_task(objective=rledit.Function(accuracies, needs=["correct", "loss"])),
    "debiasing": debiasing_task,
    "through a suffix": lambda: make_task(conv=True),
}


def world_of(task: rledit.Task, kind: type[World] = rledit.ShiftWorld, **kwargs: Any) -> World:
    return kind(task, **{"num_envs": 6, "rank": 2, "backend": "triton", **kwargs})


def idle_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels are started and do nothing."""
    for name in KERNELS:
        monkeypatch.setattr(import_module(f"rledit.kernels.{name}"), f"{name}_kernel", Kernel())


def on_a_gpu(world: World, backend: str, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    """The world's episodes as if on a GPU, after a first step, which makes constants."""
    episodes: Episodes = on_meta(world.engine.episodes, monkeypatch)
    episodes.scorer.editable.device = META
    if backend == "cuda":
        ops = idle_cuda(monkeypatch)
        episodes._backend = ops
        way: Any = episodes.scorer.evaluator
        if isinstance(way, TailWay):
            way._tail._ops = ops  # type: ignore[attr-defined]
        else:
            way._tally._ops = ops
    episodes.begin(world.num_envs)
    episodes.advance(torch.empty(world.num_envs, world.layout.size, device=META))
    return episodes


@pytest.mark.parametrize("length", [1, pytest.param(3, marks=pytest.mark.exhaustive)])
@pairwise(task=TASKS, kind=WORLDS, backend=["triton", "cuda"])
def test_a_step_only_starts_kernels(
    task: str, kind: type[World], length: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(TASKS[task](), kind, episode_length=length)
    if task == "debiasing":
        _ = world.engine.episodes.scorer.margin_limit  # known from the first step on
    idle_triton(monkeypatch)
    episodes = on_a_gpu(world, backend, monkeypatch)
    given = torch.empty(world.num_envs, world.layout.size, device=META)
    with no_waiting():
        for _ in range(length):
            outcome = episodes.advance(given)
            assert outcome.rewards.shape == outcome.values.shape == (world.num_envs,)
            if episodes.weights is not None:
                world.engine.observe(episodes.weights)
        episodes.begin(world.num_envs, again=True)
    with pytest.raises(Exception, match=r"meta|Meta"):  # and that is how it would show
        outcome.check()


def test_what_would_show_shows() -> None:
    x = torch.empty(3, 4, device=META)
    wrong = {
        "a list as an index": lambda: x[:, [0, 2]],
        "tensor of a list": lambda: torch.tensor([1.0, 2.0], device=META),
        "on the host": lambda: x + torch.ones(4),
        "has a tensor on the host": lambda: torch.ones(2),
        "meta": lambda: float(x.sum()),
        "cannot be called on meta|Cannot copy out of meta|nonzero": lambda: x.nonzero(),
    }
    for what, step in wrong.items():
        with no_waiting(), pytest.raises((AssertionError, RuntimeError, NotImplementedError), match=what):
            step()


# ------------------------------------------------------------------------------------------- graphs


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """CUDA graphs of Triton's kernels on the CPU. What the CPU does in NumPy is done as on a GPU."""
    made = graphs_on_the_cpu(monkeypatch)
    for name in KERNELS:
        module = import_module(f"rledit.kernels.{name}")
        kernel = getattr(module, f"{name}_kernel")
        monkeypatch.setattr(module, f"{name}_kernel", RecordedKernel(kernel, made))
    monkeypatch.setattr(actions, "scaled", lambda values, gain: (gain * values).contiguous())
    monkeypatch.setattr(actions, "dense", lambda values: values.contiguous())
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "length", "kind"),
    [
        ("a function", 3, rledit.MaskWorld),
        pytest.param("a function", 3, rledit.ShiftWorld, marks=pytest.mark.exhaustive),
        *(
            pytest.param(task, 1, kind, marks=pytest.mark.exhaustive)
            for task in ("a function", "debiasing")
            for kind in WORLDS
        ),
    ],
)
def test_a_captured_step(task: str, kind: type[World], length: int, graphs: list[Graph]) -> None:
    plain = world_of(TASKS[task](), kind, episode_length=length, num_envs=3)
    world = world_of(TASKS[task](), kind, episode_length=length, num_envs=3)
    world.engine._graph = True
    random = torch.Generator().manual_seed(0)
    for _ in range(2):
        plain.reset()
        world.reset()
        for _ in range(length):
            given = torch.randn(3, world.layout.size, generator=random)
            plain.engine.start(given)
            expected = plain.engine.wait()  # before the next begins: the interpreter is for one thread
            world.engine.start(given)
            got = world.engine.wait()
            torch.testing.assert_close(got.rewards, expected.rewards, rtol=0, atol=0)
            assert torch.equal(got.tally.correct.counts, expected.tally.correct.counts)
            for name, figure in expected.metrics.items():
                assert torch.equal(got.metrics[name], figure)
    assert len(graphs) == 1
    assert len(set(expected.rewards.tolist())) > 1


@pytest.mark.slow
def test_outcomes_of_a_graph_outlive_the_next_step(graphs: list[Graph]) -> None:
    world = world_of(TASKS["a function"]())
    world.engine._graph = True
    given = [torch.randn(6, world.layout.size, generator=torch.Generator().manual_seed(k)) for k in (0, 1)]
    first, second = (pending.result() for pending in world.engine.score_parts(torch.cat(given), 2))
    kept = first.rewards.clone()
    assert not torch.equal(first.rewards, second.rewards)
    assert torch.equal(first.rewards, kept)
    assert torch.equal(world.engine.score_parts(given[0], 1)[0].result().rewards, kept)
    assert len(graphs) == 1
    world.engine.score_parts(given[0], 2)[1].result()
    assert len(graphs) == 2  # of three candidates


def test_parts_of_longer_episodes_are_not_captured(graphs: list[Graph]) -> None:
    """They are whole episodes of one step, beside those under way."""
    world = world_of(TASKS["a function"](), episode_length=3)
    given = torch.randn(6, world.layout.size, generator=torch.Generator().manual_seed(0))
    expected = world.engine.score_parts(given, 1)[0].result().rewards
    world.engine._graph = True
    assert torch.equal(world.engine.score_parts(given, 1)[0].result().rewards, expected)
    assert not graphs


def test_a_graph_needs_a_gpu() -> None:
    if DEVICE == "cuda":
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="graph: expected a model on a GPU for a CUDA graph, got one on cpu"):
        rledit.MaskWorld(make_task(), graph=True)


def test_a_graph_needs_kernels_that_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    task.editable.device = torch.device("cuda")
    monkeypatch.setattr(task, "scorer", lambda *_: SimpleNamespace(backend="reference"))
    with pytest.raises(ValueError, match="graph: expected the backend 'triton' or 'cuda', got 'reference'"):
        rledit.MaskWorld(task, graph=True)


@pytest.mark.parametrize(
    "change",
    [lambda x: x[:5], lambda x: x[:, 1:], lambda x: x[0], lambda x: x.double(), lambda x: x.to(META)],
)
def test_actions_of_another_kind_are_named(change: Any) -> None:
    world = world_of(make_task())
    with pytest.raises(ValueError, match=r"actions: expected float32 \[6, 28\] on cpu, got"):
        world.engine.start(change(torch.zeros(6, world.layout.size)))
    world.engine.start(torch.zeros(6, world.layout.size))
    with pytest.raises(RuntimeError, match="start: the previous step has not been waited for"):
        world.engine.start(torch.zeros(6, world.layout.size))
    world.engine.wait()


# ------------------------------------------------------------------------------------------ streams


class Streams:
    """Fake CUDA streams that write down what happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        said, outer = self.said, self

        class Stream:
            def __init__(self, device: Any = None, name: str = "side") -> None:
                self.name = name

            def wait_stream(self, other: Stream) -> None:
                said.append(f"{self.name} waits for {other.name}")

            def record_event(self) -> str:
                said.append(f"event on {self.name}")
                return "event"

            def wait_event(self, event: str) -> None:
                said.append(f"{self.name} waits for the {event}")

            def synchronize(self) -> None:
                said.append(f"host waits for {self.name}")

        @contextlib.contextmanager
        def stream(chosen: Stream) -> Iterator[None]:
            before, self.current = self.current, chosen
            yield
            self.current = before

        self.current = Stream(name="main")
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: outer.current)
        monkeypatch.setattr(
            Tensor, "record_stream", lambda tensor, on: said.append(f"kept for {on.name}"), raising=False
        )


def test_scoring_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(make_task())
    streams = Streams(monkeypatch)
    worker = workers.StreamWorker(world.device)

    def work(given: Tensor) -> Outcome:
        streams.said.append(f"scored on {streams.current.name}")
        return world.engine.episodes.score_whole(given)

    given = torch.randn(6, world.layout.size)
    pending = worker.submit(work, given)
    assert streams.said == ["side waits for main", "scored on side", "event on side", "kept for side"]
    streams.said.clear()
    outcome = pending.result()
    assert torch.equal(outcome.rewards, world.engine.episodes.score_whole(given).rewards)
    assert streams.said[0] == "main waits for the event"
    assert set(streams.said[1:]) == {"kept for main"}
    streams.said.clear()
    worker.settle([])
    worker.settle([pending])
    worker.close()
    assert streams.said == 2 * ["host waits for side"]


def test_errors_on_a_stream_come_with_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    factor = 1.0
    world = world_of(make_task(objective=rledit.Function(lambda tally: factor * tally.accuracy("retain"))))
    factor = float("nan")
    Streams(monkeypatch)
    worker = workers.StreamWorker(world.device)
    with pytest.raises(ValueError, match=r"objective: expected .* to give finite values, got nan"):
        worker.submit(world.engine.episodes.score_whole, torch.zeros(2, world.layout.size)).result()

    def fails(given: Tensor) -> Outcome:
        raise ArithmeticError("no")

    pending = worker.submit(fails, torch.zeros(2))
    with pytest.raises(ArithmeticError, match="no"):
        pending.result()


def test_a_step_that_was_interrupted_can_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Streams(monkeypatch)
    world = world_of(make_task(), episode_length=2)
    world.engine._worker = workers.StreamWorker(world.device)
    given = torch.randn(6, world.layout.size, generator=torch.Generator().manual_seed(0))
    world.engine.start(given)
    expected = world.engine.wait().rewards
    world.reset()
    world.engine.start(given)
    with monkeypatch.context() as patch:
        patch.setattr(Outcome, "check", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.engine.wait()
    assert torch.equal(world.engine.wait().rewards, expected)


def interrupted(outcome: Outcome) -> Outcome:
    raise KeyboardInterrupt


@pytest.mark.parametrize("length", [1, 2])
def test_what_is_kept_is_not_of_the_callers_inference_mode(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Streams(monkeypatch)
    world = world_of(make_task(), episode_length=length)
    world.engine._worker = workers.StreamWorker(world.device)
    given = torch.randn(6, world.layout.size)
    with torch.inference_mode():
        world.engine.start(given)
        world.engine.wait()
    world.reset()
    world.engine.start(given)
    world.engine.wait()


@pytest.mark.parametrize("length", [1, 2])
def test_objectives_may_compute_on_the_host(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they give goes to where the counts are."""
    world = world_of(make_task(objective=rledit.Function(lambda tally: tally.accuracy("retain"))))
    idle_triton(monkeypatch)
    episodes = on_a_gpu(world, "triton", monkeypatch)
    episodes.scorer.objective.function = lambda tally: torch.zeros(6)  # type: ignore[attr-defined]
    episodes.length = length
    episodes.begin(6)
    assert episodes.advance(torch.empty(6, world.layout.size, device=META)).rewards.device == META


def test_passes_on_a_gpu_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is many kernels to start, and nothing stays in a CPU's cache there."""
    world = world_of(make_task(conv=True))
    idle_triton(monkeypatch)
    way: Any = on_a_gpu(world, "triton", monkeypatch).scorer.evaluator
    population = SimpleNamespace(size=128, rule=SimpleNamespace(kind="mask"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert way._pass_size(population)[1] > 100


# --------------------------------------------------------------------------------------------- policy


@pytest.mark.parametrize("length", [1, 2])
def test_a_policy_keeps_to_its_device(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is made without a word about the device would be on another one than all others."""
    # It would put the CPU in place of the default device that tells.
    monkeypatch.setattr("rledit.search.search.plain_modes", lambda grad=False: torch.set_grad_enabled(grad))
    ppo = make_ppo(episode_length=length)
    expected = make_ppo(episode_length=length)
    for trainer in (expected, ppo):
        torch.set_default_device(META if trainer is ppo else None)
        try:
            for _ in range(2):
                trainer.update()
            trainer.result()
        finally:
            torch.set_default_device(None)
    assert torch.equal(ppo.elites.actions, expected.elites.actions)


# ------------------------------------------------------------------------------------------ on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="there is no GPU")
@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize("length", [1, 2])
def test_a_world_on_a_gpu(backend: str, length: int) -> None:
    gpu_backend(backend)
    here = make_task()
    there = rledit.Task(here.editable.model.cuda(), ["0"], here.samples, here.objective, here.validation)
    given = torch.randn(3, length, 6, 28, generator=torch.Generator().manual_seed(0))
    outcomes = []
    for task, kwargs in ((here, {"backend": "native"}), (there, {}), (there, {"graph": True})):
        world = world_of(task, **{"backend": backend, "episode_length": length, **kwargs})
        rewards = []
        for episode in given:
            world.reset()
            for step in episode:
                world.engine.start(step.to(world.device))
                rewards.append(world.engine.wait().rewards)
        assert rewards[0].device.type == world.device.type
        outcomes.append(torch.stack(rewards).cpu())
        world.close()
    assert torch.equal(outcomes[0], outcomes[1])
    assert torch.equal(outcomes[0], outcomes[2])
    rledit.PPO(world_of(there, backend=backend, episode_length=length), config=SHORT).train(candidates=48)
