"""What is not read is not computed: selections of positions and of classes move up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from edited_copies import check_scores
from torch import Tensor, nn
from torch.nn import functional as F

import rledit
from rledit.scoring.tracing import Cut, Graphs, cut

pytestmark = pytest.mark.usefixtures("one_thread")

T, D = 7, 6
LABELS = torch.arange(30) % 3
GROUPS = rledit.forget_groups(LABELS, 1)
INPUTS = torch.randn(30, T, D, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.up, self.down = nn.Linear(T, T), nn.Linear(D, 10), nn.Linear(10, D)
        self.norm, self.out, self.wide = nn.LayerNorm(D), nn.Linear(D, 3), nn.Linear(D, 50)
        self.scale = nn.Parameter(torch.rand(D) + 0.5)
        self.register_buffer("tokens", torch.tensor([4, 30, 7]))
        self.function = function

    def block(self, x: Tensor) -> Tensor:
        x = x + self.mix(x.transpose(1, 2)).transpose(1, 2)  # all positions
        return self.norm(x + self.down(F.gelu(self.up(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def root(net: Net, x: Tensor) -> Tensor:
    """As RMSNorm does it in many language models."""
    x = x.float()
    return net.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def last(x: Tensor) -> Tensor:
    return (x[:, :, 0] > 0).long().argmax(1)


NETS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "first": lambda net, x: net.out(net.block(x)[:, 0]),
    "last, whole slices": lambda net, x: net.out(net.block(x)[:, -1, :]),
    "late": lambda net, x: net.out(net.block(x))[:, 2],
    "a place of its own": lambda net, x: net.out(net.block(x))[torch.arange(len(x)), last(x)],
    "root mean square": lambda net, x: net.out(root(net, net.block(x)))[:, 0],
    "some classes": lambda net, x: net.wide(net.block(x))[:, 0][:, net.tokens],
    "through all": lambda net, x: net.out(net.block(x)[:, slice(0, None), :])[:, 1],
}


def suffix_of(function: Callable[[Net, Tensor], Tensor], target: str, graphs: Graphs) -> tuple[Net, Cut]:
    net = Net(function).eval()
    return net, cut(net, [target], INPUTS, graphs)


@pytest.mark.parametrize("graphs", get_args(Graphs))
@pytest.mark.parametrize("name", NETS)
def test_only_the_position_that_is_read_is_kept(name: str, graphs: Graphs) -> None:
    if name == "a place of its own" and graphs == "traced":
        pytest.skip("fx alone takes torch.arange(len(x)) for rows of its own")
    net, found = suffix_of(NETS[name], "down", graphs)
    values, _ = found.run_prefix(INPUTS.clone())
    assert all(value.dim() == 2 for value in values), [list(value.shape) for value in values]
    with torch.no_grad():
        torch.testing.assert_close(found.suffix(*values, *found.extras_at(30)), net(INPUTS))


def test_of_a_linear_only_the_outputs_that_are_read_are_left() -> None:
    _, found = suffix_of(NETS["some classes"], "down", "modules")
    layers = [
        found.suffix.get_submodule(str(n.target)) for n in found.suffix.graph.nodes if n.op == "call_module"
    ]
    assert [m.out_features for m in layers if isinstance(m, nn.Linear)] == [D, 3]


MIXED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "after a mean": lambda net, x: net.out(net.block(x).mean(1)),
    "two positions": lambda net, x: net.out(net.block(x)[:, 0] + net.block(x)[:, 1]),
    "a selection of channels": lambda net, x: net.out(net.block(x)[:, 0])[:, :3],
    "softmax over positions": lambda net, x: net.out(F.softmax(net.block(x), 1)[:, 0]),
    "broadcast over positions": lambda net, x: net.out((net.block(x) + x[:, :1])[:, 0]),
    "read as well": lambda net, x: net.out((h := net.block(x))[:, 0] + h.sum(1)),
    "changed in place": lambda net, x: net.out(torch.relu_(net.block(x))[:, 0]),
}


@pytest.mark.parametrize("graphs", get_args(Graphs))
@pytest.mark.parametrize("name", MIXED)
def test_what_is_read_otherwise_stays_right(name: str, graphs: Graphs) -> None:
    net, found = suffix_of(MIXED[name], "down", graphs)
    values, _ = found.run_prefix(INPUTS.clone())
    with torch.no_grad():
        torch.testing.assert_close(found.suffix(*values, *found.extras_at(30)), net(INPUTS))


@pytest.mark.parametrize("rule", ["shift", "mask"])
@pytest.mark.parametrize("target", ["mix", "up", "down"])
@pytest.mark.parametrize("name", ["late", "some classes"])
def test_scores_are_those_of_edited_copies(name: str, target: str, rule: str) -> None:
    net = Net(NETS[name]).eval()
    scorer = rledit.Task(net, [target], rledit.Samples(INPUTS, LABELS, GROUPS), rledit.Unlearning()).scorer()
    assert scorer.way == "suffix"
    check_scores(scorer, target, net.get_parameter(f"{target}.weight"), lambda: net(INPUTS), rule)
