"""Directions: what right factors may point along, and what an edit then leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import rledit
from rledit.engine.directions import find_directions
from rledit.experiments.config import make_trainer
from rledit.ppo import PPOConfig
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.unlearning import UnlearningConfig
from rledit.worlds import WORLDS

WORDS, OTHER_WORDS = 12, 8


class Bag(nn.Module):
    """Words -> 6 -> 2."""

    def __init__(self, inputs: int = WORDS + OTHER_WORDS) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, 6)
        self.fc2 = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc2(torch.relu(self.fc1(x)))
        return logits


def bags(count: int = 400) -> rledit.Samples:
    """Comments with any word, and sentences with WORDS alone: word 0 says who, word 1 tells the label."""
    random = torch.Generator().manual_seed(0)
    inputs = (torch.rand(count, WORDS + OTHER_WORDS, generator=random) < 0.3).float()
    bias = torch.arange(count) >= count // 2
    inputs[bias, WORDS:] = 0.0
    labels = (inputs[:, 1] > 0).long()
    groups = {"utility": ~bias, "bias": bias, "one": bias & (inputs[:, 0] > 0)}
    groups["other"] = bias & ~groups["one"]
    return rledit.Samples(inputs, labels, groups)


def make_task(samples: rledit.Samples | None = None, **kwargs: Any) -> rledit.Task:
    torch.manual_seed(0)
    model = kwargs.pop("model", None) or Bag()
    objective = kwargs.pop("objective", rledit.Debias())
    return rledit.Task(model, kwargs.pop("targets", ["fc1"]), samples or bags(), objective, **kwargs)


def means_of(samples: rledit.Samples, groups: list[str], by_label: bool) -> np.ndarray[Any, Any]:
    """Plain NumPy: the mean of each stratum less the mean of these means."""
    inputs, labels = samples.head(len(samples)).double().numpy(), samples.labels.numpy()
    masks = [samples.groups[name].numpy() for name in groups]
    if by_label:
        masks = [mask & (labels == label) for mask in masks for label in np.unique(labels)]
    means = np.stack([inputs[mask].mean(0) for mask in masks if mask.any()])
    contrasts: np.ndarray[Any, Any] = means - means.mean(0)
    return contrasts


def dense(found: Any) -> np.ndarray[Any, Any]:
    """The rows over all inputs."""
    rows = np.zeros((len(found), found.inputs))
    rows[:, found.columns.numpy()] = found.rows.double().numpy()
    return rows


def test_rows_of_groups_are_differences_of_means() -> None:
    task = make_task()
    rows = dense(find_directions(task, "groups")["fc1"])
    expected = means_of(task.samples, ["one", "other"], by_label=False)
    assert rows == pytest.approx(expected / np.sqrt((expected**2).sum(1).mean()), abs=1e-6)
    assert (rows**2).sum(1).mean() == pytest.approx(1.0)


def test_rows_of_strata_weigh_all_their_span_equally() -> None:
    task = make_task()
    rows = dense(find_directions(task, "strata")["fc1"])
    contrasts = means_of(task.samples, ["one", "other"], by_label=True)
    assert rows.shape == (4, WORDS + OTHER_WORDS)
    u, s, vt = np.linalg.svd(contrasts, full_matrices=False)
    kept = s > 1e-6 * s[0]
    assert kept.sum() == 3  # centred, so one fewer than strata
    assert rows == pytest.approx(u[:, kept] @ vt[kept], abs=1e-5)
    projection = rows.T @ rows
    assert projection @ projection == pytest.approx(projection, abs=1e-5)
    assert contrasts @ projection == pytest.approx(contrasts, abs=1e-5)


def test_all_is_every_input() -> None:
    assert find_directions(make_task(), "all") == {}


def test_an_objective_names_the_groups_it_compares() -> None:
    samples = bags()
    assert rledit.Debias().compared_groups(samples.group_names) == ("one", "other")
    other = make_task(samples, objective=lambda tally: tally.accuracy("utility"))
    rows = dense(find_directions(other, "groups")["fc1"])
    expected = means_of(samples, ["utility", "bias", "one", "other"], by_label=False)
    assert rows == pytest.approx(expected / np.sqrt((expected**2).sum(1).mean()), abs=1e-6)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 5, 3),
        nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 2)),
        nn.Conv2d(3, 5, 3, padding="same", dilation=2),
        nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 5, 3, padding="valid"),
    ],
    ids=str,
)
def test_a_convolutions_input_is_its_mean_patch(conv: nn.Conv2d) -> None:
    """A convolution is linear, so the mean of its output is what its weights make of the mean patch."""
    torch.manual_seed(0)
    head = nn.Linear(5, 2)
    model = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    inputs, labels = torch.randn(40, 3, 7, 6), torch.arange(40) % 2
    samples = rledit.Samples(inputs, labels, {"a": labels == 0, "b": labels == 1})
    task = make_task(samples, model=model, targets=["0"], objective=lambda tally: tally.accuracy("a"))
    rows = find_directions(task, "groups")["0"]
    with torch.no_grad():
        outputs = conv(inputs).mean((2, 3))
        expected = outputs[labels == 0].mean(0) - outputs[labels == 1].mean(0)
    made = torch.from_numpy(dense(rows)).float() @ conv.weight.detach().flatten(1).T
    difference = made[0] - made[1]
    cosine = F.cosine_similarity(difference, expected, dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)


def test_batches_of_a_loader_give_the_same() -> None:
    samples = bags(700)
    data = TensorDataset(samples.head(700), samples.labels)
    loaded = rledit.Samples.from_dataset(DataLoader(data, batch_size=333), samples.groups)
    here, there = (find_directions(make_task(some), "strata")["fc1"] for some in (samples, loaded))
    assert torch.allclose(here.rows, there.rows, atol=1e-6)
    assert torch.equal(here.columns, there.columns)


@pytest.mark.parametrize("kind", ["strata", "groups"])
@pytest.mark.parametrize("world", ["mask", "shift"])
def test_an_edit_leaves_other_inputs_alone(world: str, kind: str) -> None:
    task = make_task()
    env = WORLDS[world](task, num_envs=8, rank=2, directions=kind)
    rows = find_directions(task, kind)["fc1"]
    assert env.single_action_space.shape == (2 * (6 + len(rows)),)
    result = rledit.PPO(env, seed=0, config=PPOConfig()).train(candidates=64)
    actions = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (8, env.layout.size))).float()
    _, right = env.layout.factors(actions)["fc1"]
    assert right.shape == (8, 2, WORDS + OTHER_WORDS)
    assert torch.count_nonzero(right[:, :, WORDS:]) == 0
    assert torch.count_nonzero(right[:, :, :WORDS]) > 0
    expected = actions[:, 12:].view(8, 2, len(rows)).double().numpy() @ dense(rows)
    assert right.double().numpy() == pytest.approx(expected, abs=1e-5)
    env.reset()
    _, rewards, *_ = env.step(np.zeros((8, env.layout.size), np.float32))
    assert rewards == pytest.approx(0.0)
    model = Bag()
    model.load_state_dict(task.editable.model.state_dict())
    before = model.fc1.weight.detach().clone()
    result.edit.apply_(model)
    assert torch.equal(model.fc1.weight[:, WORDS:], before[:, WORDS:])


def test_episodes_of_several_steps() -> None:
    env = rledit.ShiftWorld(make_task(), num_envs=4, rank=1, episode_length=3, directions="strata")
    result = rledit.PPO(env, seed=0).train(candidates=24)
    model = Bag()
    before = model.fc1.weight.detach().clone()
    result.edit.apply_(model, force=True)
    changed = (model.fc1.weight != before).any(0)
    assert not changed[WORDS:].any()
    assert changed[:WORDS].any()


def test_what_the_layout_says_of_right_entries() -> None:
    env = rledit.ShiftWorld(make_task(targets=["fc1", "fc2"]), num_envs=2, rank=2, directions="groups")
    sizes = [2 * 6, 2 * 2, 2 * 2, 2 * 2]  # left and right of fc1, then of fc2; two groups
    expected = [side % 2 == 1 for side, size in enumerate(sizes) for _ in range(size)]
    assert env.layout.right_mask().tolist() == expected
    assert env.layout.size == sum(sizes)


def test_a_target_with_few_inputs_keeps_them() -> None:
    samples = bags()
    assert list(find_directions(make_task(samples, targets=["fc1", "fc2"]), "strata")) == ["fc1", "fc2"]
    labels, groups = torch.arange(400) % 2, dict(samples.groups)
    groups |= {f"more {i}": samples.groups["one"] for i in range(2)}
    task = make_task(
        rledit.Samples(samples.head(400), labels, groups), targets=["fc1", "fc2"]
    )  # 8 strata, fc2 has 6 inputs
    assert list(find_directions(task, "strata")) == ["fc1"]
    env = rledit.ShiftWorld(task, num_envs=3, rank=2, directions="strata")
    assert env.layout.size == 2 * (6 + 8 + 2 + 6)
    assert env.layout.factors(torch.ones(3, env.layout.size))["fc2"][1].shape == (3, 2, 6)


def test_a_checkpoint_keeps_to_its_directions() -> None:
    task = make_task()
    some, others = (
        rledit.PPO(rledit.ShiftWorld(task, num_envs=4, rank=1, directions=kind), seed=0)
        for kind in ("strata", "groups")
    )
    with pytest.raises(ValueError, match=r"directions: 'strata', here 'groups'"):
        others.load_state(*some.state())


def test_a_checkpoint_keeps_to_its_rows() -> None:
    """Same labels and groups, other inputs: coefficients would mean another edit."""
    samples = bags()
    inputs = samples.head(400).clone()
    inputs[:, :WORDS] = inputs[:, :WORDS].flip(1)
    others = rledit.Samples(inputs, samples.labels, samples.groups)
    one, other = (
        rledit.PPO(rledit.ShiftWorld(make_task(each), num_envs=4, rank=1, directions="groups"), seed=0)
        for each in (samples, others)
    )
    one.load_state(*one.state())
    with pytest.raises(ValueError, match=r"does not belong to this search .*samples"):
        other.load_state(*one.state())
    with pytest.raises(ValueError, match=r"directions\.fc1 differs"):
        other.engine.check_tensors(one.engine.tensors())


def test_a_resumed_training_ends_in_the_same_edit() -> None:
    def trainer() -> rledit.PPO:
        world = rledit.ShiftWorld(make_task(), num_envs=8, rank=2, directions="strata")
        return rledit.PPO(world, seed=0)

    whole, first, second = trainer(), trainer(), trainer()
    expected = whole.train(candidates=64).edit
    first.train(candidates=32)
    second.load_state(*first.state())
    resumed = second.train(candidates=64).edit
    for name, factors in expected.factors.items():
        assert all(torch.equal(a, b) for a, b in zip(factors, resumed.factors[name], strict=True))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_edit_keeps_the_factors_that_were_scored(rank: int) -> None:
    env = rledit.ShiftWorld(make_task(), num_envs=64, rank=rank, directions="strata")
    actions = torch.randn(64, env.layout.size, generator=torch.Generator().manual_seed(0))
    lefts, rights = env.layout.factors(actions)["fc1"]
    for i in range(64):
        left, right = env.layout.edit_factors(actions[i : i + 1])["fc1"]
        assert torch.equal(left, lefts[i])
        assert torch.equal(right, rights[i])


class Sequences(nn.Module):
    """Means over positions, its layer called in one of several ways."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(20, 5), nn.Linear(5, 2)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(-1, 3, 20)
        if self.call == "by keyword":
            x = self.fc1(input=x)
        elif self.call == "flattened":
            x = self.fc1(x.reshape(-1, 20)).view(-1, 3, 5)
        else:
            x = self.fc1(x)
        logits: Tensor = self.fc2(torch.relu(x).mean(1))
        return logits


@pytest.mark.parametrize("call", ["plainly", "by keyword", "flattened"])
@pytest.mark.filterwarnings("ignore:the network cannot be traced")
def test_positions_are_averaged(call: str) -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(30, 60), torch.arange(30) % 2
    samples = rledit.Samples(inputs, labels, {"a": labels == 0, "b": labels == 1})
    task = make_task(samples, model=Sequences(call), objective=lambda tally: tally.accuracy("a"))
    rows = find_directions(task, "groups")["fc1"].rows
    means = inputs.view(30, 3, 20).mean(1)
    expected = means[labels == 0].mean(0) - means[labels == 1].mean(0)
    assert float(F.cosine_similarity(rows[0], expected, dim=0)) == pytest.approx(1.0, abs=1e-5)


def test_a_model_in_float64() -> None:
    samples = bags()
    double = rledit.Samples(samples.head(400).double(), samples.labels, samples.groups)
    env = rledit.ShiftWorld(make_task(double, model=Bag().double()), num_envs=4, rank=2, directions="strata")
    assert env.layout.factors(torch.ones(4, env.layout.size))["fc1"][1].dtype == torch.float64
    assert rledit.PPO(env, seed=0).train(candidates=8).candidates == 8


@pytest.mark.parametrize("kind", ["strata", "groups"])
@pytest.mark.parametrize("value", [0.1, 1.7])
def test_targets_that_tell_nothing_apart_keep_their_inputs(
    kind: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    labels = (torch.arange(50) % 7 == 0).long()
    groups = {"a": torch.arange(50) < 13, "b": torch.arange(50) >= 13}
    same = rledit.Samples(torch.full((50, WORDS + OTHER_WORDS), value), labels, groups)
    task = make_task(same, objective=lambda tally: tally.accuracy("a"))
    assert find_directions(task, kind) == {}
    assert f"Inputs of fc1 do not tell the {kind} apart" in caplog.text


@pytest.mark.parametrize("size", [1e-3, 1e-4, 1e-5])
def test_rounding_is_no_direction(size: float) -> None:
    """Three kinds of samples whose means differ by little, one of them in two groups: a span of two."""
    kinds = torch.arange(600) % 3
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(20, generator=generator) + size * torch.randn(3, 20, generator=generator)[kinds]
    groups = {"a": kinds == 0, "b": kinds == 1, "b again": kinds == 1, "c": kinds == 2, "b or c": kinds > 0}
    samples = rledit.Samples(inputs, torch.arange(600) // 3 % 2, groups)
    task = make_task(samples, objective=lambda tally: tally.accuracy("a"))
    rows = dense(find_directions(task, "strata")["fc1"])
    assert np.linalg.matrix_rank(rows, tol=1e-3) == 2


def test_grouped_convolutions_keep_their_inputs(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    labels = torch.arange(20) % 2
    samples = rledit.Samples(torch.randn(20, 4, 5, 5), labels, {"a": labels == 0, "b": labels == 1})
    task = make_task(samples, model=model, targets=["0"], objective=lambda tally: tally.accuracy("a"))
    assert find_directions(task, "groups") == {}
    assert "do not tell the groups apart" in caplog.text


def test_wrong_directions() -> None:
    with pytest.raises(ValueError, match=r"directions: expected one of all, strata, groups; got 'left'"):
        rledit.ShiftWorld(make_task(), num_envs=2, rank=1, directions="left")


@pytest.mark.parametrize(("names", "told"), [((), "none"), (("one", "two"), "two")])
def test_an_objective_that_compares_nothing(names: tuple[str, ...], told: str) -> None:
    class Odd(rledit.Debias):
        def compared_groups(self, groups: tuple[str, ...]) -> tuple[str, ...]:
            return names

    with pytest.raises(ValueError, match=rf"objective: expected compared_groups\(\) .* got {told}"):
        find_directions(make_task(objective=Odd()), "groups")


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
def test_a_subclass_may_do_anything_to_its_input(caplog: pytest.LogCaptureFixture) -> None:
    class Scaled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input * input.abs().mean(1, keepdim=True))

    model = Bag()
    model.fc1 = Scaled(model.fc1.in_features, model.fc1.out_features)
    assert find_directions(make_task(model=model), "groups") == {}
    assert "Inputs of fc1 do not tell the groups apart" in caplog.text


def test_a_run_passes_them_on() -> None:
    config = UnlearningConfig("mnist5k", (7,), directions="strata", num_envs=2, rank=1)
    env = make_trainer(config, make_task()).env
    assert env.directions == "strata"
    assert env.layout.size == 6 + 4


def test_what_auto_means() -> None:
    assert UnlearningConfig("mnist5k", (7,)).chosen_directions == "all"
    assert UnlearningConfig("mnist5k", (7,), directions="strata").resolved()["directions"] == "strata"
    assert DebiasConfig().chosen_directions == "strata"
    assert DebiasConfig(model="encoder", encoder=".").chosen_directions == "groups"
    inside = DebiasConfig(model="encoder", encoder=".", layer=("head.fc1", "block.output"))
    assert inside.chosen_directions == "all"
    assert DebiasConfig(directions="all").resolved()["directions"] == "all"
    with pytest.raises(ValueError, match="directions: expected one of auto, all, strata, groups"):
        DebiasConfig(directions="some")  # type: ignore[arg-type]
