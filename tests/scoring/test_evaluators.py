"""Evaluators beside the torch ways: black boxes, and whole networks that route their rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rledit import Samples, Scorer, Task, Unlearning, forget_groups
from rledit.ops import Counts, Wanted
from rledit.scoring import EditableFunction, Evaluator
from rledit.scoring.population import Population

RANDOM = torch.Generator().manual_seed(0)
INPUTS = torch.randn(90, 6, generator=RANDOM)
LABELS = torch.arange(90) % 3
SAMPLES = Samples(INPUTS, LABELS, forget_groups(LABELS, 1))
PARTS = ["correct", "predicted", "confusion", "loss"]


def factors(n: int, o: int, i: int, r: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(n, o, r, generator=random), torch.randn(n, r, i, generator=random)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def in_numpy(weights: dict[str, Any]) -> np.ndarray:
    """The same network without torch."""
    first, last = net()[0], net()[2]
    hidden = np.tanh(INPUTS.numpy() @ weights["0"].numpy().T + first.bias.detach().numpy())
    return hidden @ weights["2"].numpy().T + last.bias.detach().numpy()


def black_box() -> EditableFunction:
    return EditableFunction(in_numpy, {name: net()[int(name)].weight.detach().numpy() for name in ("0", "2")})


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("edited", [["0"], ["2"], ["0", "2"], []])
def test_a_black_box_is_counted_like_the_network_it_computes(world: str, edited: list[str]) -> None:
    shapes = {"0": (8, 6), "2": (3, 8)}
    edits = {name: factors(7, *shapes[name]) for name in edited}
    ours = Scorer(black_box(), SAMPLES, Unlearning())
    assert (ours.way, ours.backend, ours.cached_bytes) == ("function", "native", 0)
    theirs = Task(net(), ["0", "2"], SAMPLES, Unlearning()).scorer()
    mine, other = (scorer.score(edits, world, 0.5, wanted=PARTS).counts for scorer in (ours, theirs))
    assert torch.equal(mine.correct, other.correct)
    assert torch.equal(mine.confusion, other.confusion)
    torch.testing.assert_close(mine.loss, other.loss, rtol=1e-5, atol=1e-4)
    own = {"2": net()[2].weight.detach().repeat(2, 1, 1) * torch.tensor([1.0, -1.0])[:, None, None]}
    assert torch.equal(
        ours.score({}, weights=own).counts.correct, theirs.score({}, weights=own).counts.correct
    )


def test_what_is_wrong_with_a_black_box_is_named() -> None:
    weights = {"w": np.ones((3, 6), np.float32)}
    for wrong, message in [
        ({}, "weights: expected at least one matrix"),
        ({"w": np.ones(3)}, r"weights\['w'\]: expected a matrix \[O, I\], got \[3\]"),
        ({"w": np.full((3, 6), np.nan)}, r"weights\['w'\]: expected finite numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            EditableFunction(lambda w: None, wrong)
    with pytest.raises(ValueError, match=r"function: expected logits \[S, C\]"):
        EditableFunction(lambda w: np.ones(90), weights)
    short = EditableFunction(lambda w: np.ones((4, 3), np.float32), weights)
    with pytest.raises(ValueError, match=r"function: expected logits \[90, 3\], got \[4, 3\]"):
        Scorer(short, SAMPLES, Unlearning()).score({})
    with pytest.raises(ValueError, match="a function is evaluated in 'float32'"):
        Scorer(short, SAMPLES, Unlearning(), precision="bfloat16")
    with pytest.raises(ValueError, match="expected targets w; got 'v'"):
        Scorer(short, SAMPLES, Unlearning()).score({"v": factors(1, 3, 6)})


def test_any_evaluator_will_do() -> None:
    class Fixed:
        """Counts the edited weights' signs: not a network at all."""

        way = "fixed"
        cached_bytes = 5

        def count(self, population: Population, wanted: Wanted) -> Counts:
            assert wanted.parts == ["correct"]
            positive = population.edited("2", black_box().weights()["2"]).gt(0).sum((1, 2))
            none = torch.empty(0, dtype=torch.int64)
            return Counts(positive[:, None].repeat(1, 2), none, none, none.double(), none, none)

    fixed = Fixed()
    assert isinstance(fixed, Evaluator)
    ours = Scorer(black_box(), SAMPLES, Unlearning(), evaluator=fixed)
    assert (ours.way, ours.cached_bytes) == ("fixed", 5)
    left, right = factors(4, 3, 8)
    expected = (black_box().weights()["2"] + left @ right).gt(0).sum((1, 2))
    assert torch.equal(ours.score({"2": (left, right)}).correct["forget"], expected)


# ------------------------------------------------------------------------------- rows that are routed


class Experts(nn.Module):
    """Each row goes to one of three experts; ``how`` they are picked decides what a trace can see."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.gate, self.head = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        chosen = self.gate(h).argmax(1)
        out = torch.zeros_like(h)
        for i, expert in enumerate(self.experts):
            if self.how == "sorted":
                continue
            rows = (chosen == i).nonzero().squeeze(1)
            if self.how == "skipped" and not len(rows):
                continue
            if self.how == "mask":
                out = out + torch.where((chosen == i)[:, None], expert(h), 0.0)
            else:
                out = out.index_add(0, rows, expert(h.index_select(0, rows)))
        if self.how == "sorted":
            order = chosen.argsort()
            out = self.experts[0](h[order])[order.argsort()]
        return self.head(torch.tanh(out))


@torch.no_grad()
def counts_of_edited_models(model: nn.Module, edits: dict[str, Any], world: str, samples: Samples) -> Tensor:
    rows = []
    inputs = torch.cat(list(samples.batches()))
    for n in range(len(next(iter(edits.values()))[0])):
        originals = {}
        for name, (left, right) in edits.items():
            weight = model.get_submodule(name).weight
            originals[name] = weight.clone()
            delta = left[n] @ right[n]
            weight.copy_(weight + delta if world == "shift" else weight * (1 + delta))
        hits = model(inputs).argmax(1) == samples.labels
        rows.append([int((hits & mask).sum()) for mask in samples.groups.values()])
        for name, original in originals.items():
            model.get_submodule(name).weight.copy_(original)
    return torch.tensor(rows)


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("how", ["index_select", "skipped", "mask", "sorted"])
@pytest.mark.parametrize("targets", [["experts.0"], ["stem", "experts.0"], ["gate", "head"]])
def test_rows_that_are_routed_are_counted_like_the_edited_model(how: str, targets: list[str]) -> None:
    model = Experts(how).eval()
    if how == "sorted":
        targets = [name for name in targets if name != "gate"]  # which has no say there
    # The first rows all go to the last expert: a look at a few samples does not see the others.
    with torch.no_grad():
        chosen = model.gate(torch.tanh(model.stem(INPUTS))).argmax(1)
    order = chosen.argsort(descending=True, stable=True)
    samples = Samples(INPUTS[order], LABELS, SAMPLES.groups)
    for world in ("shift", "mask"):
        edits = {name: factors(5, *model.get_submodule(name).weight.shape) for name in targets}
        ours = Task(model, targets, samples, Unlearning()).scorer().score(edits, world)
        assert torch.equal(ours.counts.correct, counts_of_edited_models(model, edits, world, samples))


class Skips(nn.Module):
    """Rows that are sure skip a layer. The few samples that a task looks at first are none of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        unsure = x[:, 0] < 3.0
        return self.out(h.masked_scatter(unsure[:, None], self.b(h[unsure])))


@pytest.mark.parametrize("targets", [["b"], ["a", "b"]])
def test_routing_that_shows_late_is_still_counted_right(targets: list[str]) -> None:
    inputs = INPUTS.clone()
    inputs[:, 0].clamp_(max=2.0)
    inputs[40::7, 0] = 4.0
    samples = Samples(inputs, LABELS, SAMPLES.groups)
    model = Skips().eval()
    edits = {name: factors(4, *model.get_submodule(name).weight.shape) for name in targets}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scorer = Task(model, targets, samples, Unlearning()).scorer()
        ours = scorer.score(edits)
    assert any("cannot be traced" in str(warning.message) for warning in caught)
    assert scorer.way == "whole"
    assert torch.equal(ours.counts.correct, counts_of_edited_models(model, edits, "shift", samples))
    assert torch.equal(scorer.score(edits).counts.correct, ours.counts.correct)


def test_whole_networks_take_bfloat16_and_keep_their_weights() -> None:
    model = Experts("skipped").eval()
    with pytest.warns(UserWarning, match="cannot be traced"):
        task = Task(model, ["stem", "head"], SAMPLES, Unlearning())
    scorer = task.scorer(precision="bfloat16")
    before = scorer.score({})
    rounded = scorer.score({"stem": factors(2, 8, 6)}, wanted=["loss"]).counts.loss
    exact = task.scorer().score({"stem": factors(2, 8, 6)}, wanted=["loss"]).counts.loss
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.03, atol=0.5)
    assert torch.equal(scorer.score({}).counts.correct, before.counts.correct)
    assert torch.equal(task.weights()["stem"], model.stem.weight)


# ------------------------------------------------------------------------- candidates counted together


def two_classes(how: str, reused: bool = False) -> Scorer:
    """Of a whole network, or of a function that returns the same array each time."""
    labels = LABELS % 2
    samples = Samples(INPUTS, labels, forget_groups(labels, 1))
    torch.manual_seed(0)
    if how == "whole":
        model = nn.Sequential(Experts("skipped"), nn.Linear(3, 2)).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Task(model, ["0.stem"], samples, Unlearning()).scorer()
    array, last = np.zeros((90, 2), np.float32), torch.randn(2, 8).numpy()

    def function(weights: dict[str, Any]) -> np.ndarray:
        with np.errstate(all="ignore"):
            logits = np.tanh(INPUTS.numpy() @ weights["0.stem"].numpy().T) @ last.T
        if not reused:
            return logits
        array[:] = logits
        return array

    return Scorer(EditableFunction(function, {"0.stem": torch.randn(8, 6)}), samples, Unlearning())


@pytest.mark.parametrize("how", ["whole", "function"])
def test_candidates_that_are_counted_together_get_the_same_bits(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = factors(37, 8, 6)
    left[20] = float(torch.finfo(torch.float32).max) / 4  # its logits are not finite
    wanted = [*PARTS, "histogram", "concordant"]
    together = two_classes(how, reused=True).score({"0.stem": (left, right)}, wanted=wanted)
    monkeypatch.setattr("rledit.scoring.evaluator.COUNTED_TOGETHER", 1)
    alone = two_classes(how).score({"0.stem": (left, right)}, wanted=wanted)
    for ours, theirs in zip(together.counts, alone.counts, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("how", ["whole", "function"])
def test_small_candidates_are_counted_a_few_at_a_time(how: str) -> None:
    """Counting each by itself was a third of the time of a small network that is run whole."""
    scorer = two_classes(how)
    tally, calls = scorer.evaluator._tally, []

    class Counting:
        def count(self, logits: Tensor, *arguments: Any) -> Counts:
            calls.append(len(logits))
            return tally.count(logits, *arguments)

    scorer.evaluator._tally = Counting()
    scorer.score({"0.stem": factors(37, 8, 6)})
    assert calls == [16, 16, 5]
    scorer.score({})
    assert calls[3:] == [1]
