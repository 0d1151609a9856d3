"""Targets by what people call them, of any kind that has a weight, in wrapped models, too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from edited_copies import check_scores
from pairwise import pairwise
from torch import Tensor, nn

import rledit
from rledit.targets import expanded, unwrapped

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.arange(40) % 3
GROUPS = rledit.forget_groups(LABELS, 1)
VECTORS = torch.randn(40, 8, 8, generator=torch.Generator().manual_seed(0))
SAMPLES = rledit.Samples(VECTORS, LABELS, GROUPS)


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(8, 8), "down": nn.Linear(8, 8)}) for _ in range(3)
        )
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer["down"](torch.relu(layer["up"](x)))  # type: ignore[operator]
        return self.out(x.mean(1))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["layers.1.down"], ["layers.1.down"]),
        (["down"], ["layers.0.down", "layers.1.down", "layers.2.down"]),
        (["layers.*.up", "out"], ["layers.0.up", "layers.1.up", "layers.2.up", "out"]),
        (["1.down", "layers.[02].down"], ["layers.1.down", "layers.0.down", "layers.2.down"]),
        (["down", "layers.1.down"], ["layers.0.down", "layers.1.down", "layers.2.down", "layers.1.down"]),
        (["module.out"], ["out"]),
        (["_orig_mod.module.out"], ["out"]),
        (["nothing", "x.*"], ["nothing", "x.*"]),
        ("out", ["out"]),
    ],
)
def test_names_that_stand_for_several(asked: Any, found: list[str]) -> None:
    assert expanded(Blocks(), asked) == found


def test_a_task_has_the_whole_names() -> None:
    task = rledit.Task(Blocks(), ["up", "layers.2.d*"], SAMPLES, rledit.Unlearning())
    assert list(task.weights()) == ["layers.0.up", "layers.1.up", "layers.2.up", "layers.2.down"]
    with pytest.raises(ValueError, match="no module is called 'left'"):
        rledit.Task(Blocks(), ["left"], SAMPLES, rledit.Unlearning())
    with pytest.raises(ValueError, match="each name once"):
        rledit.Task(Blocks(), ["down", "layers.1.down"], SAMPLES, rledit.Unlearning())


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))]
)
def test_wrapped_models_are_looked_through(wrap: Callable[[nn.Module], nn.Module]) -> None:
    bare = Blocks().eval()
    wrapped = wrap(Blocks().eval())
    assert type(unwrapped(wrapped)) is Blocks
    task = rledit.Task(wrapped, ["layers.1.down"], SAMPLES, rledit.Unlearning())
    edit = rledit.PPO(rledit.ShiftWorld(task, num_envs=8, rank=2), seed=0).train(candidates=16).edit
    assert edit.targets == ["layers.1.down"]
    before = bare.layers[1]["down"].weight.detach().clone()  # type: ignore[index, union-attr]
    edit.apply_(bare)
    edit.apply_(wrapped)
    both = [unwrapped(m).get_parameter("layers.1.down.weight") for m in (bare, wrapped)]
    assert torch.equal(*both)
    edit.revert_(wrapped)
    assert torch.equal(unwrapped(wrapped).get_parameter("layers.1.down.weight"), before)


class Kind(nn.Module):
    """A module of some kind, and a head."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        make, self.function = KINDS[name]
        self.m, self.head = make(), nn.Linear(8, 3)
        nn.init.normal_(self.m.weight, std=0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.m, x))


def conv1d_of_transformers() -> nn.Module:
    module = pytest.importorskip("transformers.pytorch_utils").Conv1D(8, 8)
    assert isinstance(module, nn.Module)
    return module


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Tensor]]] = {
    "Conv1d": (lambda: nn.Conv1d(8, 8, 3), lambda m, x: m(x).mean(2)),
    "Conv3d": (lambda: nn.Conv3d(1, 8, 2), lambda m, x: m(x.view(-1, 1, 4, 4, 4)).mean((2, 3, 4))),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(1, 8, 2), lambda m, x: m(x[:, None]).mean((2, 3))),
    "Embedding": (lambda: nn.Embedding(9, 8), lambda m, x: m(x[:, 0].abs().long().clamp(max=8)).mean(1)),
    "Conv1D": (conv1d_of_transformers, lambda m, x: m(x).mean(1)),
    "grouped Conv2d": (lambda: nn.Conv2d(8, 8, 1, groups=4), lambda m, x: m(x[..., None]).mean((2, 3))),
}


@pairwise(name=KINDS, rule=["shift", "mask"], precision=["float32", "bfloat16"])
def test_any_module_with_a_weight_is_a_target(name: str, rule: str, precision: Any) -> None:
    model = Kind(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer = rledit.Task(model, ["m"], SAMPLES, rledit.Unlearning()).scorer(precision=precision)
    assert scorer.way == "suffix"
    weight: Tensor = model.m.weight
    if precision == "float32":
        check_scores(scorer, "m", weight, lambda: model(VECTORS), rule, rank=1)
        return
    matrix = weight.detach().flatten(1)
    left, right = torch.randn(4, len(matrix), 1), torch.randn(4, 1, matrix.shape[1])
    found = scorer.score({"m": (left, right)}, rule, wanted=["correct", "loss"])
    assert bool(found.loss["retain"].isfinite().all())
