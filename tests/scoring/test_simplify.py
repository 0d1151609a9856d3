"""Suffixes with less work in them give the logits they gave before."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import rledit
from rledit.scoring.simplify import simplify


class Block(nn.Module):
    """Two convolutions with batch norms and a residual sum; ``view`` decides how the images are flattened."""

    def __init__(self, view: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv1 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.act = nn.ReLU()
        self.head = nn.Linear(6 * 25, 4)
        self.view = view

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)) + x)
        z = F.relu(x)  # of a value that is read elsewhere, too
        y = y + z
        return self.head(y.view(y.shape[0], -1) if self.view else y.flatten(1))


def block(view: bool = False) -> Block:
    torch.manual_seed(0)
    model = Block(view).eval()
    for norm in (model.bn1, model.bn2):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return model


INPUTS = torch.randn(70, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def test_norms_are_folded_and_relus_are_in_place() -> None:
    model = block()
    graph = fx.symbolic_trace(model)
    expected = model(INPUTS)
    simplify(graph, ["conv1"])
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    assert called == ["stem", "conv1", "bn1", "folded_conv2", "head"]  # a target keeps its weights
    in_place = [node for node in graph.graph.nodes if node.target is F.relu_]
    assert len(in_place) == 2  # not the one of x
    torch.testing.assert_close(graph(INPUTS), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(graph(INPUTS), expected, rtol=1e-5, atol=1e-5)  # and a second time


def test_altered_modules_are_left_alone() -> None:
    model = block()
    model.bn2.register_forward_hook(lambda module, inputs, output: 2 * output)
    graph = fx.symbolic_trace(model)
    expected = model(INPUTS)
    simplify(graph, ["conv1"])
    assert "bn2" in [node.target for node in graph.graph.nodes]
    torch.testing.assert_close(graph(INPUTS), expected, rtol=1e-5, atol=1e-5)


def edited_counts(model: Block, target: str, world: str) -> tuple[Tensor, Tensor]:
    """The scorer's counts of 5 candidates and the really edited model's."""
    labels = torch.arange(70) % 4
    samples = rledit.Samples(INPUTS, labels, rledit.forget_groups(labels, 0))
    scorer = rledit.Task(model, [target], samples, rledit.Unlearning()).scorer()
    assert scorer.way == "suffix"
    weight = model.get_submodule(target).weight.data
    generator = torch.Generator().manual_seed(2)
    left = 0.3 * torch.randn(5, 6, 2, generator=generator)
    right = torch.randn(5, 2, weight[0].numel(), generator=generator)
    ours = scorer.score({target: (left, right)}, world).counts.correct
    theirs = []
    original = weight.clone()
    for n in range(5):
        delta = (left[n] @ right[n]).view_as(weight)
        weight.copy_(original + delta if world == "shift" else original * (1 + delta))
        hits = model(INPUTS).argmax(1) == labels
        theirs.append([int((hits & mask).sum()) for mask in samples.groups.values()])
    weight.copy_(original)
    return ours, torch.tensor(theirs)


@torch.no_grad()
def test_images_channels_last_give_the_same_counts() -> None:
    for target in ("conv1", "conv2"):
        for world in ("shift", "mask"):
            assert torch.equal(*edited_counts(block(), target, world)), (target, world)


@torch.no_grad()
def test_a_view_that_refuses_channels_last_is_run_as_it_is() -> None:
    for world in ("shift", "mask"):
        assert torch.equal(*edited_counts(block(view=True), "conv1", world)), world
