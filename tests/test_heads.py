"""The head is the Linear that makes the logits, wherever it is registered and whatever else runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.audits import linear_probe
from rledit.heads import find_head, last_features

INPUTS = torch.randn(11, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A stem of 6 features and heads of 3 classes; ``forward`` is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = forward

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def stem(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.stem(x))


def with_gate(net: Any, x: Tensor) -> Tensor:
    features = stem(net, x)
    logits: Tensor = net.head(features)
    net.aux(features)  # runs last and has no effect
    return logits


def by_keyword(net: Any, x: Tensor) -> Tensor:
    logits: Tensor = net.head(input=stem(net, x))
    return logits


def log_softmax(net: Any, x: Tensor) -> Tensor:
    features = stem(net, x)
    logits = torch.log_softmax(net.head(features), -1)
    net.aux(features)
    return logits


def in_place(net: Any, x: Tensor) -> Tensor:
    logits: Tensor = net.head(stem(net, x)).mul_(0.5)
    return logits


def half(net: Any, x: Tensor) -> Tensor:
    return net.head(stem(net, x)).double()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "forward",
    [
        pytest.param(lambda net, x: net.head(stem(net, x)), id="registered first"),
        with_gate,
        by_keyword,
        log_softmax,
        in_place,
        half,
        pytest.param(lambda net, x: (net.head(stem(net, x)), net.aux(stem(net, x))), id="tuple"),
        pytest.param(lambda net, x: {"loss": None, "logits": net.head(stem(net, x))}, id="mapping"),
        pytest.param(lambda net, x: net.head(stem(net, x)) / 2.0 + 1.0, id="temperature"),
    ],
)
def test_the_head_is_what_makes_the_logits(forward: Callable[[Any, Tensor], Any]) -> None:
    net = Net(
        forward, head=nn.Linear(6, 3), aux=nn.Linear(6, 3), stem=nn.Linear(4, 6), unused=nn.Linear(9, 3)
    )
    assert find_head(net, INPUTS[:4]).name == "head"
    features = last_features(net, INPUTS, batch_size=5)
    torch.testing.assert_close(features, stem(net, INPUTS).double())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_head_that_is_called_twice_is_read_where_it_makes_the_logits() -> None:
    def twice(net: Any, x: Tensor) -> Tensor:
        logits: Tensor = net.head(stem(net, x))
        net.head(stem(net, -x))
        return logits

    net = Net(twice, stem=nn.Linear(4, 6), head=nn.Linear(6, 3))
    assert find_head(net, INPUTS[:4]).call == -2
    torch.testing.assert_close(last_features(net, INPUTS), stem(net, INPUTS).double())


def test_features_of_samples_are_those_of_their_inputs() -> None:
    net = Net(lambda net, x: net.head(stem(net, x)), head=nn.Linear(6, 3), stem=nn.Linear(4, 6))
    samples = rledit.Samples(INPUTS, torch.zeros(11, dtype=torch.int64), {"a": torch.ones(11) > 0})
    assert torch.equal(last_features(net, samples, 4), last_features(net, INPUTS, 4))


def functional(net: Any, x: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, net.head.weight)


def dead_end(net: Any, x: Tensor) -> Tensor:
    net.head(x)
    return x.square()


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (functional, "expected an nn.Linear that runs; head is not called"),
        (dead_end, r"depend on no nn.Linear that runs \(head\)"),
        (lambda net, x: None, "expected it to return logits, got NoneType"),
        (lambda net, x: [net.head(x).sum().item()], "expected it to return logits, got float"),
        (lambda net, x: {"scores": net.head(x)}, "expected it to return logits, got NoneType"),
        (lambda net, x: net.head(x.T.reshape(-1, 4)[:2]), r"one row per sample, \[11, ...\], got \[2, 4\]"),
    ],
)
def test_a_model_without_a_head_is_refused(forward: Callable[[Any, Tensor], Any], message: str) -> None:
    net = Net(forward, head=nn.Linear(4, 3)).train()
    with pytest.raises(ValueError, match=message):
        last_features(net, INPUTS)
    assert net.training
    assert not net.head._forward_hooks


def test_no_inputs_are_named() -> None:
    with pytest.raises(ValueError, match="inputs: expected at least one sample"):
        find_head(nn.Linear(4, 2), INPUTS[:0])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_callers_modes_do_not_matter(mode: Callable[[], Any]) -> None:
    net = Net(lambda net, x: net.head(stem(net, x)), head=nn.Linear(6, 2), stem=nn.Linear(4, 6)).train()
    labels = (INPUTS[:, 0] > 0).long()
    expected = linear_probe(net, INPUTS, labels, INPUTS, labels, 2)
    with mode():
        assert torch.equal(linear_probe(net, INPUTS, labels, INPUTS, labels, 2), expected)
    assert net.training
