"""rledit until the goal is reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from rledit import PPO, Task
from rledit.engine import episodes
from rledit.engine.workers import Pending, Work
from rledit.ppo.trainer import mean_actions
from rledit.recipes.unlearning import UnlearningConfig
from rledit.recipes.unlearning.data import UnlearningData
from rledit.recipes.unlearning.run import make_task, make_trainer
from rledit.scoring import Scorer

from .goal import Goal, Outcome, Stopwatch

NAME = "rledit"


def edit(
    config: UnlearningConfig,
    model: torch.nn.Module,
    data: UnlearningData,
    goal: Goal,
    around: Callable[[Callable[[], None]], None] = lambda loop: loop(),
    inline: bool = False,
) -> Outcome:
    """Edit until the goal or the limit is reached.

    Args:
        around: called with the loop to run; the profiler gets in here.
        inline: score on this thread rather than on another.
    """
    began = time.perf_counter()
    task: Task = make_task(config, model, data)
    trainer = make_trainer(config, task)
    validation = task.scorer(split="validation")
    if inline:
        _score_inline(trainer)
    outcome = Outcome(NAME, config.world, config.seed, time.perf_counter() - began)

    def loop() -> None:
        watch = Stopwatch(goal, outcome)
        over = False
        while not over and not trainer.stopped:
            trainer.update()
            began = time.perf_counter()
            over = watch.check(accuracies(trainer, validation), began, config.num_envs)

    around(loop)
    trainer.env.close()
    return outcome


@torch.no_grad()
def accuracies(trainer: PPO, validation: Scorer) -> list[tuple[float, float]]:
    """Forget and retain on the validation split, of the policy's mean and of the best candidate so far."""
    engine = trainer.engine
    actions = torch.cat([mean_actions(engine, trainer.agent)[:, 0], trainer.elites.actions[:1, 0]])
    tally = validation.count(engine.layout.factors(actions), engine.rule)
    forget, retain = tally.accuracy("forget").tolist(), tally.accuracy("retain").tolist()
    return list(zip(forget, retain, strict=True))


class _Inline:
    """Does what is submitted at once, on the caller's thread."""

    def submit(self, work: Work, actions: Tensor) -> Future[episodes.Outcome]:
        future: Future[episodes.Outcome] = Future()
        try:
            future.set_result(work(actions).check())
        except Exception as error:
            future.set_exception(error)
        return future

    def settle(self, pending: Sequence[Pending]) -> None:
        pass

    def close(self) -> None:
        pass


def _score_inline(trainer: PPO) -> None:
    """A profiler sees one thread; a world scores on another, so its Python would go unseen."""
    trainer.engine._worker.close()
    trainer.engine._worker = _Inline()
