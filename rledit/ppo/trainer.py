"""PPO: the trainer."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..engine import Engine
from ..objectives.identity import identity_of
from ..policies import PolicyName
from ..runtime import one_thread, plain_modes
from ..search import INTERRUPTED, Result, Row, Search, SearchEnded
from ..search.figures import figures, read
from ..storage.files import Json
from .agent import Agent, NotFiniteError, PolicyFactory, load_learner
from .config import PPOConfig
from .guard import Guard
from .rollout import Arriving, Rollout, start
from .update import UpdateStats, update

__all__ = ["INTERRUPTED", "PPO", "Result", "Row"]

logger = logging.getLogger("rledit")


class AgentLostError(SearchEnded, NotFiniteError):
    """No sound agent is left to go on with."""


class PPO(Search):
    """Learns a policy over the edits of a task, or of several, on their device.

    The same seed gives the same edit, bit for bit, on the same CPU and number of threads. On a GPU sums of
    losses, and the block sizes that Triton finds fastest, may differ in the last bits from run to run.

    Args:
        env: a :class:`rledit.MaskWorld` or :class:`rledit.ShiftWorld`, or several of them with observations
            and actions of the same sizes: one policy then learns on all, with advantages normalized per task.
        seed: seed of the policy's initialization and of everything random in training.
        config: the numbers of the algorithm.
        policy: "gaussian", a Gaussian whose mean comes from an MLP over the observation; "parameters", one
            whose mean is a plain parameter vector, which is all that one-step episodes of one task need; or
            what makes a policy of your own, see :data:`rledit.ppo.agent.PolicyFactory`.

    Attributes:
        agent: policy and value function.

    Raises:
        TypeError: for an environment that is not one of rledit's worlds.
        ValueError: for a negative seed, an unknown policy, or several worlds that do not fit together.
    """

    def __init__(
        self,
        env: Any,
        seed: int = 0,
        config: PPOConfig | None = None,
        policy: PolicyName | PolicyFactory = "gaussian",
    ) -> None:
        self.config = config or PPOConfig()
        super().__init__(env, seed, self.config.elites)
        _check_fit(self.engines)
        engine = self.engine
        self._policy = policy if isinstance(policy, str) else identity_of(policy)
        with plain_modes(grad=True):
            # On the engine's device: actions and rewards never leave it.
            self.agent = Agent(
                engine.observe.size, engine.layout.right_mask(), self.config, self.seed, policy
            ).to(engine.device)
            # Adam with epsilon 1e-5 (detail 3 of Huang et al.)
            self.optimizer = torch.optim.Adam(
                self.agent.parameters(), lr=self.config.learning_rate, eps=1e-5, fused=True
            )
            self.guard = Guard(self.agent, self.optimizer)

    def step(self) -> Row:
        """One batch of episodes of each task and one update of the policy.

        Raises:
            SearchEnded: if no sound policy is left to collect with; :attr:`stopped` says so, too.
        """
        started = time.perf_counter()
        batches = self._collect()
        stats = self._learn(batches)
        return self._spent([arriving.whole() for arriving in batches], stats, started)

    def _learn(self, batches: list[Arriving]) -> UpdateStats:
        try:
            with one_thread():
                return update(self.agent, self.optimizer, batches, self.config, self.generator)
        except NotFiniteError as error:
            self._recover(str(error))
            return UpdateStats()

    def _collect(self) -> list[Arriving]:
        """A batch of a sound agent: the present one, or else the last that was."""
        while True:
            try:
                if not self.agent.finite():
                    raise NotFiniteError("the policy's parameters are not finite")
                halves = all(engine.overlaps for engine in self.engines)
                return [
                    start(engine, self.agent, self.config, self.generator, halves) for engine in self.engines
                ]
            except NotFiniteError as error:
                self._recover(str(error))
                if self.stopped:
                    raise AgentLostError(self.stopped) from error

    def _recover(self, reason: str) -> None:
        rate = self.guard.restore()
        logger.warning(
            "Update %d: %s. The last good policy is back, the learning rate is now %.2g.",
            len(self.history) + 1,
            reason,
            rate,
        )
        if self.guard.recoveries > self.config.recoveries:
            self.stopped = f"the policy blew up {self.guard.recoveries} times ({reason})"

    def _spent(self, rollouts: list[Rollout], stats: UpdateStats, started: float) -> Row:
        """Count what was scored, remember the best of it, and put the figures together."""
        for engine, elites, rollout in zip(self.engines, self.elites_of, rollouts, strict=True):
            best = elites.best(rollout.returns)
            elites.add(rollout.returns[best], engine.clip(rollout.actions[:, best].transpose(0, 1)))
        elapsed = time.perf_counter() - started
        waited = sum(rollout.score_seconds for rollout in rollouts)
        scored = sum(engine.candidates * engine.episode_length for engine in self.engines)
        self.candidates += scored
        self.seconds["score"] += waited
        self.seconds["policy"] += elapsed - waited
        returns = [rollout.returns for rollout in rollouts]
        row = read(
            {
                **figures(returns, rollouts[0].metrics, self.elites.returns[0]),
                "entropy": self.agent.policy(self.engine.initial_observation).entropy().detach(),
            }
        )
        entropy = row.pop("entropy")
        return {
            "candidates": float(self.candidates),
            **row,
            "policy_loss": stats.policy_loss,
            "value_loss": stats.value_loss,
            "entropy": entropy,
            "kl": stats.kl,
            "clipped": stats.clipped,
            "optimizer_steps": float(stats.steps),
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "recoveries": float(self.guard.recoveries),
            "seconds_score": waited,
            "seconds_policy": elapsed - waited,
            "candidates_per_second": scored / elapsed,
        }

    @torch.no_grad()
    def proposals(self, task: int) -> Mapping[str, Tensor]:
        """The policy's mean. An agent that has never been sound has none."""
        return {"policy mean": mean_actions(self.engines[task], self.agent)} if self.agent.finite() else {}

    # ---------------------------------------------------------------------------------------- state

    def settings(self) -> dict[str, Json]:
        return {"policy": self._policy, "config": asdict(self.config)}

    def learned(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        agent = self.guard.keep()
        good = {f"good.{name}": value for name, value in self.guard.good.items()}
        return agent if self.guard.good is agent else {**agent, **good}, {
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "recoveries": self.guard.recoveries,
        }

    def learn_again(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        load_learner(self.agent, self.optimizer, tensors)
        for group in self.optimizer.param_groups:
            group["lr"] = state["learning_rate"]
        self.guard.recoveries = state["recoveries"]
        self.guard.keep()
        if good := {n.removeprefix("good."): t for n, t in tensors.items() if n.startswith("good.")}:
            self.guard.good = good


def _check_fit(engines: list[Engine]) -> None:
    """Raise ValueError unless one policy fits all."""
    for what, sizes in {
        "observations": {engine.observe.size for engine in engines},
        "actions": {engine.layout.size for engine in engines},
        "num_envs": {engine.candidates for engine in engines},
    }.items():
        if len(sizes) > 1:
            raise ValueError(f"env: expected worlds with the same size of {what}, got {sorted(sizes)}")


@torch.no_grad()
def mean_actions(engine: Engine, agent: Agent) -> Tensor:
    """The actions [1, T, A] of an episode in which the policy takes its mean."""
    actions = [engine.clip(agent.policy(engine.initial_observation).mean)]
    weights: dict[str, Tensor] | None = None
    for _ in range(engine.episode_length - 1):
        weights = engine.edited(actions[-1], weights)
        actions.append(engine.clip(agent.policy(engine.observe(weights)).mean))
    return torch.stack(actions, dim=1)
