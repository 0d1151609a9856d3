"""Stable-Baselines3 PPO, with rledit's settings wherever its constructor takes them."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import nn

from rledit.ppo import PPOConfig
from rledit.recipes.unlearning import UnlearningConfig
from rledit.recipes.unlearning.data import UnlearningData
from rledit.zoo.models import MnistCNN

from .batched import BatchedVecEnv
from .goal import Goal, Outcome, Stopwatch
from .plain import Editing, PlainEnv, Split

KL_TOLERANCE = 1.5
"""Stable-Baselines3 stops an update at this many times its target KL, rledit at once."""

ENDLESS = 10**12
"""Candidates: the check decides when to stop."""


@dataclass(frozen=True)
class Opponent:
    """Which Stable-Baselines3.

    Attributes:
        batched: on :class:`BatchedVecEnv` instead of plain environments in a DummyVecEnv.
        our_means: whether the fresh policy's means are set to what rledit starts from (left factors at zero,
            right ones at random). The constructor cannot do that: its policy starts with both near zero,
            where the reward has no slope, and has to find its way out by noise first.
    """

    batched: bool = False
    our_means: bool = False

    @property
    def name(self) -> str:
        kind = "SB3 PPO, batched VecEnv" if self.batched else "SB3 PPO, plain Env"
        return f"{kind}, our means" if self.our_means else kind


def make_environment(opponent: Opponent, editing: Editing, num_envs: int) -> VecEnv:
    if opponent.batched:
        return BatchedVecEnv(editing, num_envs)
    return DummyVecEnv([partial(PlainEnv, editing) for _ in range(num_envs)])


def make_agent(
    opponent: Opponent, environment: VecEnv, editing: Editing, config: PPOConfig, seed: int
) -> PPO:
    """PPO on batches of one candidate per environment.

    What still differs from rledit's is what this PPO is: one gradient norm over policy and value function,
    the policy run on every candidate's copy of the same observation, no bounds for the standard deviation.
    """
    agent = PPO(
        "MlpPolicy",
        environment,
        n_steps=1,
        batch_size=environment.num_envs // config.num_minibatches,
        n_epochs=config.update_epochs,
        learning_rate=config.learning_rate,
        clip_range=config.clip_coef,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        normalize_advantage=config.norm_adv,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef / 2,  # its value loss lacks the factor 1/2
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl / KL_TOLERANCE,
        policy_kwargs={
            "net_arch": {"pi": [config.hidden] * 2, "vf": [config.hidden] * 2},
            "activation_fn": nn.Tanh,
            "log_std_init": math.log(config.initial_std),
            "optimizer_kwargs": {"eps": 1e-5, "fused": True},
        },
        seed=seed,
        device="cpu",
    )
    if opponent.our_means:
        rights = agent.policy.action_net.bias[editing.outputs * editing.rank :]
        with torch.no_grad():
            rights.copy_(config.initial_right * torch.randn(len(rights)))
    return agent


class _Over(Exception):
    """Ends ``learn`` from a callback between two updates."""


class _Check(BaseCallback):
    """Checks the policy's mean and the best candidate so far on the validation split after every update.

    The start of a rollout comes right after the update before it, its end just before the next update:
    checking at the start finds a good policy one rollout earlier.
    """

    def __init__(self, editing: Editing, watch: Stopwatch) -> None:
        super().__init__()
        self.editing = editing
        self.watch = watch
        self.best_reward = -math.inf
        self.best_action = np.zeros(editing.size, np.float32)

    def _on_step(self) -> bool:
        rewards = self.locals["rewards"]
        best = int(rewards.argmax())
        if rewards[best] > self.best_reward:
            self.best_reward = float(rewards[best])
            self.best_action = self.locals["clipped_actions"][best].copy()
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == 0:
            return  # nothing has been learned
        began = time.perf_counter()
        editing = self.editing
        mean, _ = self.model.predict(editing.observation, deterministic=True)
        accuracies = [
            editing.accuracies(editing.edited(action), editing.validation)
            for action in (mean, self.best_action)
        ]
        if self.watch.check(accuracies, began, self.training_env.num_envs):
            raise _Over


def edit(
    opponent: Opponent, config: UnlearningConfig, model: MnistCNN, data: UnlearningData, goal: Goal
) -> Outcome:
    """Edit until the goal or the limit is reached."""
    began = time.perf_counter()
    (forget,) = config.forget
    splits = [Split(model, data.inputs(part), part.labels, forget) for part in (data.reward, data.validation)]
    editing = Editing(model, config.world, *splits, rank=config.rank)
    environment = make_environment(opponent, editing, config.num_envs)
    agent = make_agent(opponent, environment, editing, config.ppo, config.seed)
    outcome = Outcome(opponent.name, config.world, config.seed, time.perf_counter() - began)
    with contextlib.suppress(_Over):
        agent.learn(ENDLESS, callback=_Check(editing, Stopwatch(goal, outcome)))
    environment.close()
    return outcome
