"""Use a search of your own instead of PPO: the cross-entropy method on the Gymnasium vector environment.

A world is a ``gymnasium.vector.VectorEnv``: an action is an edit, and the reward is how much it improves the
objective. Episodes have one step here, so this is a bandit, and any black-box optimizer fits. Prints the mean
and the best reward of some generations, and accuracy before and after. Takes a few seconds.
"""

import gymnasium
import numpy as np
import torch
from torch import nn

import rledit

GENERATIONS, POPULATION, ELITES = 60, 128, 16


def make_task() -> tuple[nn.Module, rledit.Task]:
    """A classifier of six clouds of points, which is to forget the first."""
    torch.manual_seed(0)
    labels = torch.randint(6, (2000,))
    inputs = torch.randn(6, 16)[labels] + 0.7 * torch.randn(2000, 16)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 6))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 0))
    return model.eval(), rledit.Task(model, ["2"], samples, rledit.Unlearning())


def cross_entropy_method(env: gymnasium.vector.VectorEnv, rng: np.random.Generator) -> np.ndarray:
    """The mean action of the last generation's elites, [A]."""
    size = env.single_action_space.shape[0]
    mean, std = np.zeros(size), np.ones(size)
    env.reset(seed=0)
    for generation in range(1, GENERATIONS + 1):
        actions = rng.normal(mean, std, (env.num_envs, size)).astype(np.float32)
        _, rewards, *_ = env.step(actions)  # the world has reset itself: its episodes have one step
        elites = actions[np.argsort(rewards)[-ELITES:]]
        mean, std = elites.mean(0), elites.std(0) + 0.02
        if generation % 20 == 0:
            print(f"generation {generation}: mean reward {rewards.mean():.3f}, best {rewards.max():.3f}")
    return mean.astype(np.float32)


def report(title: str, model: nn.Module, samples: rledit.Samples) -> None:
    with torch.no_grad():
        correct = model(torch.cat(list(samples.batches()))).argmax(1) == samples.labels
    shares = (f"{name} {correct[mask].double().mean():.1%}" for name, mask in samples.groups.items())
    print(f"{title}: {', '.join(shares)}")


def main() -> None:
    model, task = make_task()
    env = rledit.ShiftWorld(task, num_envs=POPULATION, rank=2)
    mean = cross_entropy_method(env, np.random.default_rng(0))
    edit = env.edit(torch.from_numpy(mean)[None])  # actions [T, A] of one episode
    report("before", model, task.samples)
    edit.apply_(model)
    report("after", model, task.samples)
    env.close()

    # The same for one candidate, as a plain environment that any Gymnasium agent can step.
    single = gymnasium.make("rledit/ShiftWorld-v0", task=task, rank=2)
    single.reset(seed=0)
    _, reward, terminated, _, info = single.step(mean)
    print(f"as a single environment: reward {reward:.3f}, terminated {terminated}, value {info['value']:.3f}")


if __name__ == "__main__":
    main()
