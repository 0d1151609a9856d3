"""Networks that fx cannot trace are recorded while they run, and scored as their edited copies are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from edited_copies import check_scores
from pairwise import pairwise
from torch import Tensor, nn
from torch.nn import functional as F

import rledit
from rledit.scoring.recording import RecordingError, record
from rledit.scoring.tracing import TracingError, cut

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.arange(40) % 3
GROUPS = rledit.forget_groups(LABELS, 1)


class Net(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.LayerNorm(6)
        self.register_buffer("shift", torch.randn(6))
        self.kept = torch.randn(6)  # neither parameter nor buffer
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        if len(x.shape) == 0 or float(x.abs().max()) > 1e9:  # which no stand-in for a tensor can answer
            return x
        return self.function(self, x)


def loop(net: Net, x: Tensor) -> Tensor:
    for row in x.unbind(1) if x.dim() == 3 else [x]:
        x = row if x.dim() == 3 else x
    for _ in range(x.size(1) // 3):
        x = torch.relu(net.b(net.a(x)))
    return net.out(x)


def held(net: Net, x: Tensor) -> Tensor:
    return net.out(torch.tanh(net.a(x + net.shift)) * net.kept + torch.tensor([1.0, 0, 0, 0, 0, 0]))


def changed(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    h += 1
    h[:, 0] = 0.5
    h.mul_(x)
    return net.out(F.relu(h, inplace=True))


def sizes(net: Net, x: Tensor) -> Tensor:
    h = net.a(x).reshape(len(x) * 2, 3).view(x.shape[0], -1)
    return net.out(h + torch.zeros(x.size(0), 6) + torch.ones_like(x)[: len(x)])


def numbered(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    return net.out(h[torch.arange(len(h)), :] * (1 + 0 * torch.arange(len(h))[:, None]))


def split(net: Net, x: Tensor) -> Tensor:
    first, second = net.a(x).chunk(2, -1)
    values, _ = torch.cat([second, first], -1).max(1, keepdim=True)
    return net.out(net.b(x) - values)


def attention(net: Net, x: Tensor) -> Tensor:
    q = net.a(x).view(len(x), 1, 2, 3)
    return net.out(F.scaled_dot_product_attention(q, q, net.b(x).view(len(x), 1, 2, 3)).reshape(len(x), 6))


NETS = {f.__name__: f for f in (loop, held, changed, sizes, numbered, split, attention)}


@pytest.mark.parametrize("rule", ["shift", "mask"])
@pytest.mark.parametrize("name", NETS)
def test_scores_are_those_of_edited_copies(name: str, rule: str) -> None:
    inputs = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    net = Net(NETS[name]).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer = rledit.Task(net, ["a"], rledit.Samples(inputs, LABELS, GROUPS), rledit.Unlearning()).scorer()
    assert scorer.way in ("tail", "suffix")
    check_scores(scorer, "a", net.a.weight, lambda: net(inputs.clone()), rule, candidates=5, loss=True)


def routed(net: Net, x: Tensor) -> Tensor:
    return net.out(net.a(x) if bool((x[:, 0] > 0).all()) else net.b(net.a(x)))


def test_a_read_that_matters_is_found_out() -> None:
    """The first samples go one way, later ones another."""
    inputs = torch.rand(600, 6)
    inputs[300:, 0] *= -1
    labels = torch.arange(600) % 3
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 1))
    task = rledit.Task(Net(routed).eval(), ["a"], samples, rledit.Unlearning())
    with pytest.warns(UserWarning, match="reads a value before the targets that is not the same for all"):
        scorer = task.scorer()
    assert scorer.way == "whole"


def test_a_read_that_does_not_matter_is_none() -> None:
    """A mask that is left out where it masks nothing."""

    def masked(net: Net, x: Tensor) -> Tensor:
        mask = x[:, 0] > 0
        h = x if bool(mask.all()) else x * mask[:, None]
        return net.out(net.a(h))

    inputs = torch.rand(600, 6)
    inputs[:6, 0] *= -1
    labels = torch.arange(600) % 3
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 1))
    scorer = rledit.Task(Net(masked).eval(), ["a"], samples, rledit.Unlearning()).scorer()
    assert scorer.way == "tail"


def test_a_read_of_what_is_edited_cannot_be_cut() -> None:
    def reads(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        return net.out(h if float(h.sum()) < 1e9 else -h)

    with pytest.raises(TracingError, match="reads a value that depends on an edit"):
        cut(Net(reads).eval(), ["a"], torch.randn(4, 6), "operations")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda net, x: net.out(net.a(x) if len(x) == 2 else net.b(net.a(x))), "another way"),
        (lambda net, x: net.out(net.a(x) * float(len(x))), "2.0 for 2 samples and 3.0 for 3"),
        (lambda net, x: {"scores": net.out(net.a(x))}, "its output is no tensor, but dict"),
    ],
)
def test_what_cannot_be_recorded_is_named(function: Any, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        record(Net(function).eval(), {"a": "a"}, torch.randn(4, 6))


def test_recording_leaves_modules_as_they_were() -> None:
    call = nn.Module.__call__
    with pytest.raises(RecordingError):
        record(Net(lambda net, x: (net.a(x),)).eval(), {"a": "a"}, torch.randn(4, 6))
    assert nn.Module.__call__ is call


AXES = {
    "sequence first": lambda net, x: net.out(torch.relu(net.a(x.transpose(0, 1))).mean(0)),
    "sequence first, two dimensions": lambda net, x: net.out(net.b(net.a(x.permute(1, 0, 2)))[0]),
    "flattened": lambda net, x: net.out(net.a(x.reshape(-1, 6)).view(len(x), -1, 6).mean(1)),
    "flattened, then cut": lambda net, x: net.out(
        net.norm(net.a(torch.relu(x.reshape(-1, 6)))).view_as(x)[:, 1]
    ),
}


@pairwise(name=AXES, target=["a", "out"])
def test_samples_may_lie_along_any_axis(name: str, target: str) -> None:
    inputs = torch.randn(40, 4, 6, generator=torch.Generator().manual_seed(1))
    net = Net(AXES[name]).eval()
    samples = rledit.Samples(inputs, LABELS, GROUPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer = rledit.Task(net, [target], samples, rledit.Unlearning()).scorer()
    assert scorer.way != "whole"
    weight = net.get_parameter(f"{target}.weight")
    check_scores(scorer, target, weight, lambda: net(inputs.clone()), candidates=5)
