"""What PyTorch offers: the loop, the batched product, both compiled, vmap.

The batched product is written as a user with time on his hands would write it:

- the activations are the same for all candidates, so the edited layers of a chunk are **one** product [S,
  I] x [I, n O], not n of them: that is faster than ``bmm`` over expanded activations at every shape here;
- weights are formed in one pass over them (``baddbmm``, ``addcmul``), the bias is part of the product, relu
  is in place, and everything runs under ``inference_mode``;
- asking whether the label's logit is the largest is several times faster than ``argmax``, which is not
  vectorized over short rows. It counts a tie as a hit; ties are within rounding of a tie, and so allowed;
- groups are counted by a product with their masks.

Under shift the *low-rank* variant forms no weight: X W'^T = X W^T + s (X right^T) left^T, the first product
shared.

``mode="max-autotune"`` was tried for the compiled ones and left: at the first two shapes it took several
times as long to compile and was no faster, because no operand of the edited products is a constant.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch._dynamo
from torch import Tensor
from torch.nn import functional as F

from .search import Run, Setting
from .shapes import Problem, edited_weight, layers


class Layers(NamedTuple):
    weight: Tensor  # [O, I]
    bias: Tensor  # [O]
    weight2: Tensor | None  # [C, O]
    bias2: Tensor | None  # [C]


class Block(NamedTuple):
    """Some of the samples."""

    x: Tensor  # [B, I], or [I, B] in columns
    labels: Tensor  # [B]
    masks: Tensor  # [B, G] float32


Step = Callable[[Layers, Block, Tensor | None, Tensor, Tensor], Tensor]  # -> counts [n, G] float32


class _Torch:
    """Runs a step over blocks of samples and chunks of candidates."""

    varies = frozenset({"chunk", "blocks", "layout"})
    start: Setting | None = None

    def __init__(self, name: str, problem: Problem, precision: str, low_rank: bool = False) -> None:
        self.name = name
        self.problem = problem
        self.low_rank = low_rank
        dtype = getattr(torch, precision)
        weight, bias, *second = layers(problem.model)
        weight2, bias2 = (None if p is None else p.to(dtype) for p in second)
        self.layers = Layers(weight.to(dtype), bias.to(dtype), weight2, bias2)
        self.inputs = problem.inputs.to(dtype)
        self.left, self.right = problem.left.to(dtype), problem.right.to(dtype)
        self.masks = problem.masks

    def step(self, setting: Setting) -> Step:
        raise NotImplementedError

    def blocks(self, setting: Setting) -> list[Block]:
        size = -(-len(self.inputs) // setting.blocks)
        parts = zip(
            self.inputs.split(size), self.problem.labels.split(size), self.masks.split(size), strict=True
        )
        columns = setting.layout == "columns"
        return [Block(x.T.contiguous() if columns else x, labels, masks) for x, labels, masks in parts]

    def shared(self, block: Block, layout: str) -> Tensor | None:
        if not self.low_rank:
            return None
        if layout == "columns":
            return torch.addmm(self.layers.bias[:, None], self.layers.weight, block.x)
        return F.linear(block.x, self.layers.weight, self.layers.bias)

    def configure(self, setting: Setting) -> Run:
        return self.run_with(self.step(setting), setting)

    def run_with(self, step: Step, setting: Setting) -> Run:
        blocks, chunk = self.blocks(setting), setting.chunk

        @torch.inference_mode()
        def run(candidates: int) -> Tensor:
            counts = torch.zeros(candidates, self.masks.shape[1])
            for block in blocks:
                shared = self.shared(block, setting.layout)
                for n in range(0, candidates, chunk):
                    rows = slice(n, min(n + chunk, candidates))
                    counts[rows] += step(self.layers, block, shared, self.left[rows], self.right[rows])
            return counts.long()

        return run


class Loop(_Torch):
    """One candidate at a time on cached activations, as one would write it down."""

    varies: frozenset[str] = frozenset()

    def step(self, setting: Setting) -> Step:
        world, scale = self.problem.world, self.problem.scale

        def step(net: Layers, block: Block, _: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
            x = F.linear(block.x, edited_weight(net.weight, left[0], right[0], world, scale), net.bias)
            if net.weight2 is not None:
                x = F.linear(F.relu(x), net.weight2, net.bias2)
            return ((x.argmax(1) == block.labels).float() @ block.masks)[None]

        return step


class Batched(_Torch):
    """A chunk of candidates in a handful of products."""

    def step(self, setting: Setting) -> Step:
        world, scale, low_rank = self.problem.world, self.problem.scale, self.low_rank
        columns, counting = setting.layout == "columns", setting.counting

        def step(net: Layers, block: Block, shared: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
            n, outputs, rank = left.shape
            if not low_rank:
                weight = edited_weights(net.weight, left, right, world, scale).view(n * outputs, -1)
            if columns:  # logits [n, C, B]
                if low_rank:
                    assert shared is not None
                    inner = (right.view(n * rank, -1) @ block.x).view(n, rank, -1)
                    x = torch.baddbmm(shared.expand(n, -1, -1), left, inner, alpha=scale)
                else:
                    x = torch.addmm(net.bias.repeat(n)[:, None], weight, block.x).view(n, outputs, -1)
                if net.weight2 is not None and net.bias2 is not None:
                    x = torch.baddbmm(net.bias2[:, None], net.weight2.expand(n, -1, -1), x.relu_())
                return counted(x, block, 1, 2, counting)
            if low_rank:  # logits [n, B, C]
                assert shared is not None
                inner = F.linear(block.x, right.view(n * rank, -1)).view(-1, n, rank).transpose(0, 1)
                x = torch.baddbmm(shared.expand(n, -1, -1), inner, left.transpose(1, 2), alpha=scale)
            else:  # logits [B, n, C]
                x = F.linear(block.x, weight, net.bias.repeat(n)).view(-1, n, outputs)
            if net.weight2 is not None:
                x = F.linear(x.relu_(), net.weight2, net.bias2)
            return counted(x, block, 2, 1 if low_rank else 0, counting)

        return step


class VMap(_Torch):
    """One candidate's code under ``torch.func.vmap``, a chunk at a time: what its ``chunk_size`` does."""

    varies = frozenset({"chunk", "blocks"})

    def step(self, setting: Setting) -> Step:
        world, scale, low_rank = self.problem.world, self.problem.scale, self.low_rank

        def step(net: Layers, block: Block, shared: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
            def one(left: Tensor, right: Tensor) -> Tensor:
                if low_rank:
                    assert shared is not None
                    x = shared + (block.x @ right.T) @ (scale * left).T
                else:
                    x = F.linear(block.x, edited_weight(net.weight, left, right, world, scale), net.bias)
                if net.weight2 is not None:
                    x = F.linear(F.relu(x), net.weight2, net.bias2)
                hits = x.gather(1, block.labels[:, None]) >= x.amax(1, keepdim=True)
                return hits[:, 0].float() @ block.masks

            counts: Tensor = torch.func.vmap(one)(left, right)
            return counts

        return step


class Compiled:
    """Any of them with its step compiled. Its search starts where the original's ended."""

    start: Setting | None = None

    def __init__(self, opponent: _Torch) -> None:
        self.original = opponent.name
        self.name = f"compiled {opponent.name}"
        self.varies = opponent.varies and opponent.varies | {"counting"}
        self._opponent = opponent

    def configure(self, setting: Setting) -> Run:
        # All settings share one piece of code, which dynamo stops compiling after a few times by default.
        torch._dynamo.config.cache_size_limit = 256
        step = torch.compile(self._opponent.step(setting), dynamic=False, fullgraph=True)
        return self._opponent.run_with(step, setting)


def cannot_compile() -> str:
    """Why torch.compile cannot be an opponent, or an empty string."""
    return "" if shutil.which(os.environ.get("CXX", "g++")) else "no C++ compiler"


class Inference(_Torch):
    """The unedited network, run as many times as there are candidates. Counts nothing."""

    varies = frozenset({"blocks", "layout"})

    def configure(self, setting: Setting) -> Run:
        blocks, net, columns = self.blocks(setting), self.layers, setting.layout == "columns"

        @torch.inference_mode()
        def run(candidates: int) -> Tensor:
            for _ in range(candidates):
                for block in blocks:
                    if columns:
                        x = torch.addmm(net.bias[:, None], net.weight, block.x)
                        if net.weight2 is not None and net.bias2 is not None:
                            x = torch.addmm(net.bias2[:, None], net.weight2, x.relu_())
                    else:
                        x = F.linear(block.x, net.weight, net.bias)
                        if net.weight2 is not None:
                            x = F.linear(x.relu_(), net.weight2, net.bias2)
            return torch.empty(candidates, 0)

        return run


def edited_weights(weight: Tensor, left: Tensor, right: Tensor, world: str, scale: float) -> Tensor:
    """[n, O, I], in one pass over them after the product."""
    if world == "shift":
        return torch.baddbmm(weight.expand(len(left), -1, -1), left, right, alpha=scale)
    return torch.addcmul(weight, weight, torch.bmm(left, right), value=scale)


def counted(logits: Tensor, block: Block, classes: int, samples: int, counting: str) -> Tensor:
    """[n, G] from logits whose dimensions ``classes`` and ``samples`` are those."""
    size = list(logits.shape)
    size[classes] = 1
    view = [1, 1, 1]
    view[samples] = -1
    labels = block.labels.view(view).expand(size)
    if counting == "argmax":
        hits = logits.argmax(classes, keepdim=True) == labels
    else:
        hits = logits.gather(classes, labels) >= logits.amax(classes, keepdim=True)
    hits = hits.squeeze(classes).float()
    return (hits.T if samples == 0 else hits) @ block.masks


def opponents(problem: Problem, precision: str) -> list[_Torch]:
    """The opponents that are not compiled."""
    shift = problem.world == "shift"
    some: list[_Torch] = [Loop("loop", problem, precision), Batched("batched", problem, precision)]
    if shift:
        some.append(Batched("batched low-rank", problem, precision, low_rank=True))
    return [*some, VMap("vmap", problem, precision, low_rank=shift)]


def compiled(originals: list[_Torch]) -> list[Compiled]:
    """The loop and the batched ones. vmap is not: it makes the products that ``batched`` spells out."""
    return [Compiled(opponent) for opponent in originals if isinstance(opponent, (Loop, Batched))]
