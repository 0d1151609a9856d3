"""Scorers against the models themselves: edited deep copies, run in plain torch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from rledit import Samples, Task, Unlearning, forget_groups
from rledit.zoo.models import ResNetCIFAR, normalize

SAMPLE_COUNT = 70
PARTS = ["correct", "predicted", "loss"]


class Net(nn.Module):
    """Named layers and a forward() of its own."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def sequential(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*copy.deepcopy(layers))


def make(forward: Callable[[Any, Tensor], Tensor], **layers: Callable[[], Any]) -> Callable[[], nn.Module]:
    return lambda: Net(forward, **{name: build() for name, build in layers.items()})


def linear(i: int, o: int, bias: bool = True) -> Callable[[], nn.Linear]:
    return lambda: nn.Linear(i, o, bias=bias)


def conv(i: int, o: int, k: int = 3, **options: Any) -> Callable[[], nn.Conv2d]:
    return lambda: nn.Conv2d(i, o, k, **options)


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.randn(shape))


def residual_sums(self: Any, x: Tensor) -> Tensor:
    x = F.relu(self.a(x))
    y = self.b(x)
    y += x  # in place, on the target's own output
    z = F.relu(y, inplace=True)
    z = z + F.max_pool2d(self.c(z), 3, 1, 1)
    return self.out(F.adaptive_avg_pool2d(z, 1).flatten(1))


def cached_value_changed_after_the_target_read_it(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    y = self.b(h)
    h.add_(1.0)
    F.relu_(h)
    return self.out(torch.tanh(y + h))


def in_place_result_thrown_away(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    self.relu(h)
    y = self.b(h)
    F.relu(y, True)
    y.mul_(2.0)
    return self.out(y * h)


def view_changed_in_place(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    y = self.b(h)
    h.view(-1).relu_()  # no trace can see that h changes
    return self.out(y + h)


def attention(self: Any, x: Tensor) -> Tensor:
    batch, tokens, width = x.shape
    q, k, v = self.qkv(x).reshape(batch, tokens, 3, width).unbind(2)
    x = x + self.proj(F.scaled_dot_product_attention(q, k, v))
    x = torch.cat([self.token.expand(batch, -1, -1), x], 1) + self.position[:, : tokens + 1]
    x = x + self.mlp(F.gelu(self.norm(x))).view(x.shape[0], tokens + 1, width)
    return self.out(x[:, 0])


def two_calls(self: Any, x: Tensor) -> Tensor:
    return self.out(self.b(torch.tanh(self.b(F.silu(self.a(x))))))


def branches(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    return self.out(torch.cat([self.b(h), h.sigmoid()], 1)) + self.b2(x[:, :3])


def optional_argument(self: Any, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
    h = self.a(x) * scale
    return self.out(h if mask is None else h * mask)


class Optional(Net):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        return optional_argument(self, x, mask, scale)


def sizes(self: Any, x: Tensor) -> Tensor:
    rows, tokens = x.shape[0], x.size(1)
    y = self.a(x).view(rows * tokens, -1).view(x.size())  # batch sizes, a constant, and both in a tuple
    return self.out(y.reshape(y.shape[0], -1) + x.reshape(rows, -1))


def control_flow(self: Any, x: Tensor) -> Tensor:
    return self.out(self.a(x) if float(x.abs().max()) < 1e9 else x)


def control_flow_of_an_edit(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    return self.out(h if float(h.abs().max()) < 1e9 else x)


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)


VECTOR, TOKENS, IMAGE = (6,), (4, 6), (4, 7, 6)
A_B_OUT = {"a": linear(6, 8), "b": linear(8, 8), "out": linear(8, 3)}
MODELS: dict[str, tuple[str, tuple[int, ...], Callable[[], nn.Module], list[list[str]]]] = {
    # Modules in a row, with every function that the fused op knows.
    **{
        f"tail {function}": ("tail", VECTOR, sequential(nn.Linear(6, 9), function, nn.Linear(9, 3)),
                            [["0"], ["2"]])
        for function in [
            nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Tanh(), nn.Identity(),
            nn.Dropout(0.5), nn.Flatten(),
        ]
    },
    "tail after convolutions": (
        "tail", IMAGE,
        sequential(nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(100, 8), nn.ReLU(),
                   nn.Linear(8, 3)),
        [["3"], ["5"], ["3", "5"]],
    ),
    "tail by hand": (
        "tail", IMAGE,
        make(lambda s, x: s.out(F.dropout(F.gelu(s.b(torch.flatten(F.relu(s.a(x)), 1))), 0.5, s.training)),
             a=conv(4, 5), b=linear(100, 8), out=linear(8, 3)),
        [["b"], ["out"], ["b", "out"]],
    ),
    "tail of methods": (
        "tail", VECTOR,
        make(lambda s, x: s.out(s.b(s.a(x).relu()).tanh().flatten(1).contiguous()), **A_B_OUT),
        [["a"], ["b", "out"], ["a", "b", "out"]],
    ),
    "tail of gelu_tanh": (
        "tail", VECTOR,
        make(lambda s, x: s.out(F.gelu(s.a(x), approximate="tanh")), a=linear(6, 9), out=linear(9, 3)),
        [["a"]],
    ),
    "tail called twice": ("tail", VECTOR, make(two_calls, **A_B_OUT), [["b"], ["b", "out"]]),
    "one layer": ("tail", VECTOR, sequential(nn.Linear(6, 3)), [["0"]]),
    "optional arguments": ("suffix", VECTOR,
        lambda: Optional(None, a=nn.Linear(6, 8), out=nn.Linear(8, 3)), [["a"]],
    ),
    # Everything else that can be cut.
    "residual": (
        "suffix", IMAGE,
        make(residual_sums, a=conv(4, 6), b=conv(6, 6, padding=1), c=conv(6, 6, padding=1), out=linear(6, 3)),
        [["a"], ["b"], ["c"], ["b", "c"], ["a", "out"]],
    ),
    "batch norm": (
        "suffix", IMAGE,
        sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3),
                   nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(5, 3)),
        [["0"], ["3"], ["0", "3"], ["3", "8"]],
    ),
    "convolutions of all kinds": (
        "suffix", IMAGE,
        sequential(nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=1, groups=2, padding_mode="reflect"),
                   nn.Tanh(),
                   nn.Conv2d(8, 6, 3, padding=2, dilation=2, padding_mode="circular"), nn.ELU(),
                   nn.Conv2d(6, 6, 3, groups=6, padding="same", bias=False), nn.Flatten(), nn.Linear(168, 3)),
        [["0"], ["2"], ["4"], ["0", "2", "4"]],
    ),
    "tokens": (
        "suffix", TOKENS,
        make(attention, qkv=linear(6, 18), proj=linear(6, 6), mlp=linear(6, 6, False), out=linear(6, 3),
             norm=lambda: nn.LayerNorm(6), token=parameter(1, 1, 6), position=parameter(1, 9, 6)),
        [["qkv"], ["proj"], ["mlp"], ["qkv", "mlp"]],
    ),
    "sizes before and after": (
        "suffix", TOKENS,
        make(sizes,
             a=linear(6, 6), out=linear(24, 3)),
        [["a"]],
    ),
    "cached value changed later": (
        "suffix", VECTOR, make(cached_value_changed_after_the_target_read_it, **A_B_OUT), [["b"], ["a"]]),
    "result thrown away": (
        "suffix", VECTOR, make(in_place_result_thrown_away, relu=lambda: nn.ReLU(inplace=True), **A_B_OUT),
        [["b"], ["a", "b"]],
    ),
    "branches": (
        "suffix", VECTOR,
        make(branches, a=linear(6, 8), b=linear(8, 4), b2=linear(3, 3), out=linear(12, 3)),
        [["b"], ["b2"], ["b", "b2"], ["a", "b"]],
    ),
    # What is recorded as it runs.
    "control flow": ("tail", VECTOR, make(control_flow, a=linear(6, 6), out=linear(6, 3)),
                     [["a"], ["a", "out"]]),
    # What no trace can follow.
    "control flow of an edit": (
        "whole", VECTOR, make(control_flow_of_an_edit, a=linear(6, 6), out=linear(6, 3)),
        [["a"], ["a", "out"]],
    ),
    "view changed in place": ("whole", VECTOR, make(view_changed_in_place, **A_B_OUT), [["b"]]),
    "transformer layer": (
        "suffix", TOKENS, make(lambda s, x: s.out(s.layer(x)[:, 0]), layer=encoder_layer, out=linear(6, 3)),
        [["layer.linear1"], ["layer.linear2", "out"]],
    ),
}  # fmt: skip
CASES = [(name, targets) for name, (*_, choices) in MODELS.items() for targets in choices]


def samples_of(shape: tuple[int, ...], count: int = SAMPLE_COUNT) -> Samples:
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (count,), generator=random)
    groups = {"forget": labels == 2, "retain": labels != 2, "half": torch.arange(count) % 2 == 0}
    return Samples(torch.randn(count, *shape, generator=random), labels, groups)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name][2]()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model


def matrix(model: nn.Module, target: str) -> Tensor:
    return model.get_submodule(target).weight.detach().flatten(1)


def random_factors(
    model: nn.Module, targets: list[str], n: int, rank: int
) -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(2)
    factors = {}
    for target in targets:
        o, i = matrix(model, target).shape
        r = min(rank, o, i)
        factors[target] = (
            torch.randn(n, o, r, generator=random) / (r * i) ** 0.5,
            torch.randn(n, r, i, generator=random),
        )
    return factors


@torch.no_grad()
def logits_of_edited_copies(
    model: nn.Module,
    inputs: Tensor,
    factors: dict[str, tuple[Tensor, Tensor]],
    n: int,
    world: str,
    scale: float,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """[N, S, C] float64, by editing a deep copy for each candidate and running it in ``dtype``."""
    logits = []
    for candidate in range(n):
        edited = copy.deepcopy(model).to(dtype).eval()
        for target, (left, right) in factors.items():
            weight = edited.get_submodule(target).weight
            delta = scale * (left[candidate].double() @ right[candidate].double()).view_as(weight)
            weight.copy_(weight + delta if world == "shift" else weight * (1 + delta))
        logits.append(edited(inputs.to(dtype, copy=True)).double())
    return torch.stack(logits)


def assert_like_edited_copies(
    task: Task,
    model: nn.Module,
    targets: list[str],
    world: str,
    assert_counts: Callable[..., float],
    n: int = 5,
) -> None:
    for rank, edited in ((1, targets), (3, targets), (2, targets[-1:])):
        factors = random_factors(model, edited, n, rank)
        ours = task.scorer().score(factors, world, 0.7, wanted=PARTS)
        inputs = torch.cat(list(task.samples.batches()))
        exact = logits_of_edited_copies(model, inputs, factors, n, world, 0.7)
        # Rounding of a float32 network: a few hundred units of the largest logit, 2e-5, covers the deepest
        # one here; where a layer is left out or run with the wrong weights, logits move by a tenth or more.
        bound = torch.full(exact.shape[:2], 2e-5 * max(1.0, float(exact.abs().max())))
        assert assert_counts(ours.counts, exact, bound, task.samples.labels, task.samples.masks) < 0.05


def worlds_of(name: str, targets: list[str]) -> list[Any]:
    """Both of a model's first targets; of further ones make test takes one, in turn."""
    place = MODELS[name][-1].index(targets)
    alike = [] if place == 0 else [pytest.mark.exhaustive]
    first, second = ("shift", "mask") if place % 2 == 0 else ("mask", "shift")
    return [first, pytest.param(second, marks=alike or [pytest.mark.slow])]


@pytest.mark.parametrize(
    ("name", "targets", "world"),
    [
        pytest.param(*case, *getattr(world, "values", (world,)), marks=getattr(world, "marks", ()))
        for case in CASES
        for world in worlds_of(*case)
    ],
    ids=lambda value: str(value),
)
def test_scores_are_those_of_edited_copies(
    name: str, targets: list[str], world: str, assert_counts: Callable[..., float]
) -> None:
    way, shape, *_ = MODELS[name]
    model = build(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = Task(model, targets, samples_of(shape), Unlearning())
        assert_like_edited_copies(task, model, targets, world, assert_counts)
    said = [str(warning.message) for warning in caught if "cannot be traced" in str(warning.message)]
    assert len(said) == (way == "whole")
    assert task.scorer().way == way


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("target", "world"),
    [
        ("layer3.2.conv2", "shift"),
        pytest.param("layer3.2.conv1", "mask", marks=pytest.mark.exhaustive),
        pytest.param("layer3.2.conv1", "shift", marks=pytest.mark.exhaustive),
        pytest.param("layer3.2.conv2", "mask", marks=pytest.mark.exhaustive),
    ],
)
def test_resnet20_on_cifar10(
    target: str, world: str, shared_data: Path, assert_counts: Callable[..., float]
) -> None:
    records = np.fromfile(shared_data / "cifar-10-batches-bin" / "test_batch.bin", np.uint8, 300 * 3073)
    records = records.reshape(300, 3073)
    images = normalize("cifar10", torch.from_numpy(records[:, 1:].copy()).view(-1, 3, 32, 32))
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    model = ResNetCIFAR(20)
    model.load_state_dict(load_file(shared_data / "models" / "cifar10_resnet20.safetensors"))
    model.eval()
    samples = Samples(images, labels, {**forget_groups(labels, 8), "all": labels >= 0})
    task = Task(model, [target], samples, Unlearning())
    scorer = task.scorer()
    assert scorer.way == "suffix"
    accuracy = float(scorer.score({}).accuracy("all"))
    with torch.no_grad():
        assert accuracy == float((model(images).argmax(1) == labels).double().mean())
    assert abs(accuracy - 0.917) < 3 * 0.016  # published; and the standard deviation of 300 images
    factors = random_factors(model, [target], 2, 2)
    ours = scorer.score(factors, world, 0.3, wanted=PARTS)
    # float64 convolutions take a minute, so these copies round as well: twice the bound of the others.
    exact = logits_of_edited_copies(model, images, factors, 2, world, 0.3, torch.float32)
    bound = torch.full(exact.shape[:2], 4e-5 * float(exact.abs().max()))
    assert assert_counts(ours.counts, exact, bound, labels, samples.masks) < 0.05
