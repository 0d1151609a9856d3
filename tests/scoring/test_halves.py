"""Models in half precision score like their float32 copies, bit for bit, and stay in half precision."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from pairwise import pairwise
from torch import Tensor, nn

from rledit import Samples, Task, Unlearning
from rledit.scoring import halves

HALVES = [torch.bfloat16, torch.float16]
PARTS = ["correct", "predicted", "confusion", "loss"]
pytestmark = pytest.mark.filterwarnings("ignore:the network cannot be traced")


@pytest.fixture(autouse=True)
def every_weight_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "LEAST", 1)


class Net(nn.Module):
    def __init__(self, forward: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(40, 12, padding_idx=0)
        self.a, self.b, self.out = nn.Linear(12, 20), nn.Linear(20, 20), nn.Linear(20, 3)
        self.conv, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.late, self.last = nn.Conv2d(6, 6, 1), nn.Linear(6, 3)
        nn.init.normal_(self.norm.running_mean)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def words(net: Net, x: Tensor) -> Tensor:
    return net.words(x).mean(1)


def known(x: Tensor) -> Tensor:
    """The same, whose numbers Python looks at."""
    return x if float(x.sum()) < 1e9 else -x


def images(net: Net, x: Tensor) -> Tensor:
    maps = torch.relu(net.norm(net.conv(net.words(x)[:, None])))
    return net.last(torch.relu(net.late(maps)).mean((2, 3)))


NETS: dict[str, tuple[str, str, Callable[[Net, Tensor], Tensor]]] = {
    "tail": ("tail", "b", lambda net, x: net.out(net.b(net.a(words(net, x)).relu()).relu())),
    "suffix": ("suffix", "a", lambda net, x: net.out(net.b(net.a(words(net, x)).sigmoid()).sigmoid())),
    "whole": ("whole", "a", lambda net, x: net.out(known(net.b(net.a(words(net, x)))))),
    "images, late": ("suffix", "late", images),
    "weights read": ("suffix", "b", lambda net, x: net.out(net.b(words(net, x) @ net.a.weight.T).sigmoid())),
    "embedding tied": ("suffix", "a", lambda net, x: net.a(words(net, x)).sigmoid() @ net.tied.weight),
    "dtype of weights": (
        "tail",
        "b",
        lambda net, x: net.out(net.b(net.a(words(net, x).to(next(net.parameters()).dtype)).sigmoid())),
    ),
}


def build(name: str, dtype: torch.dtype) -> Net:
    net = Net(NETS[name][2])
    if name == "embedding tied":
        net.tied = nn.Linear(12, 20)
        net.words = nn.Embedding(20, 12)
        net.words.weight = net.tied.weight
        net.out = nn.Identity()
    return net.to(dtype).eval()


def samples(high: int = 20) -> Samples:
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (150,), generator=random)
    inputs = torch.randint(high, (150, 5), generator=random)
    return Samples(inputs, labels, {"forget": labels == 2, "retain": labels != 2})


@pairwise(world=["shift", "mask"], name=NETS, dtype=HALVES)
def test_scores_are_those_of_the_float32_model(name: str, world: str, dtype: torch.dtype) -> None:
    way, target, _ = NETS[name]
    net = build(name, dtype)
    task, wide = (
        Task(model, [target], samples(), Unlearning()) for model in (net, build(name, dtype).float())
    )
    ours, theirs = task.scorer(), wide.scorer()
    assert ours.way == theirs.way == way
    weight = task.weights()[target]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, wide.weights()[target])
    random = torch.Generator().manual_seed(2)
    outputs, inputs = weight.shape
    factors = {
        target: (
            torch.randn(7, outputs, 2, generator=random) / 4,
            torch.randn(7, 2, inputs, generator=random),
        )
    }
    for candidates in ({}, factors):
        mine, other = (scorer.score(candidates, world, wanted=PARTS) for scorer in (ours, theirs))
        for a, b in zip(mine.counts, other.counts, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["tail", "suffix", "whole", "images, late"])
def test_only_targets_and_fused_layers_are_held_in_float32(name: str) -> None:
    way, target, _ = NETS[name]
    task = Task(build(name, torch.bfloat16), [target], samples(), Unlearning())
    held = {
        layer
        for layer, module in task.editable.model.named_modules()
        if "weight" in module._parameters and module._parameters["weight"].dtype == torch.bfloat16
    }
    assert "words" in held
    assert target not in held
    if way == "tail":
        assert not held & {"b", "out"}
    assert all(module.weight.dtype == torch.float32 for module in task.editable.model.modules()
               if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)))  # fmt: skip


def test_a_forward_that_computes_in_half_precision_gets_float32_weights() -> None:
    task = Task(build("dtype of weights", torch.bfloat16), ["b"], samples(), Unlearning())
    assert {parameter.dtype for parameter in task.editable.model.parameters()} == {torch.float32}


class Scaled(nn.Module):
    """Converts a plain tensor as well."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.randn(20, 20)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Scaled:
        super()._apply(fn, recurse)
        self.matrix = fn(self.matrix)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


@pytest.mark.parametrize("middle", [Scaled, lambda: torch.jit.script(nn.Linear(20, 20))])
def test_modules_that_convert_themselves(middle: Callable[[], nn.Module]) -> None:
    layers = [nn.Linear(12, 20), nn.ReLU(), middle(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)]
    model, inputs = nn.Sequential(*layers).bfloat16(), torch.randn(60, 12).bfloat16()
    labels = torch.arange(60) % 3
    masks = {"forget": labels == 2, "retain": labels != 2}
    counts = []
    for dtype in (torch.bfloat16, torch.float32):
        task = Task(model.to(dtype), ["3"], Samples(inputs.to(dtype), labels, masks), Unlearning())
        counts.append(task.scorer().score({}, wanted=PARTS).counts)
    for part in PARTS:
        assert torch.equal(getattr(counts[0], part), getattr(counts[1], part))


def test_a_task_can_be_pickled() -> None:
    labels = torch.arange(60) % 3
    samples = Samples(torch.randn(60, 12).half(), labels, {"forget": labels == 2, "retain": labels != 2})
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)).half()
    task = Task(model, ["4"], samples, Unlearning())
    assert halves.holds_half(task.editable.model)
    there = pickle.loads(pickle.dumps(task))
    assert halves.holds_half(there.editable.model)
    for part in PARTS:
        ours, theirs = (each.scorer().score({}, wanted=PARTS).counts for each in (task, there))
        assert torch.equal(getattr(ours, part), getattr(theirs, part))
