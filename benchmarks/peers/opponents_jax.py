"""What JAX offers: jit over ``lax.map`` over chunks, with ``vmap`` inside.

It is how HyperscaleES scores a population ("Evolution Strategies at the Hyperscale", arXiv:2511.16652): one
candidate's code, the shared product taken out, vectorized by the compiler. Under shift both algebras are
tried, under mask the weights are formed. Products of bfloat16 operands give float32
(``preferred_element_type``): on the CPU that is up to five times as fast as rounding every sum to bfloat16.
Predictions are compared by ``argmax``, which XLA fuses and vectorizes; the comparison that suits torch is
mostly slower here.

JAX is optional: without it there is nothing to compare.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .search import Run, Setting
from .shapes import Problem, layers


def missing() -> str:
    """Why JAX cannot be an opponent, or an empty string."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax  # noqa: F401
    except ImportError:
        return "jax not installed"
    return ""


class Jax:
    varies = frozenset({"chunk", "blocks", "layout"})
    start: Setting | None = None

    def __init__(self, name: str, problem: Problem, precision: str, low_rank: bool = False) -> None:
        import jax.numpy as jnp

        self.name = name
        self.problem = problem
        self.low_rank = low_rank
        self.dtype = jnp.dtype(precision)
        self.net = tuple(None if p is None else self._array(p) for p in layers(problem.model))
        self.left, self.right = self._array(problem.left), self._array(problem.right)

    def _array(self, tensor: Tensor) -> Any:
        import jax.numpy as jnp

        return jnp.asarray(tensor.contiguous().numpy(), dtype=self.dtype).block_until_ready()

    def configure(self, setting: Setting) -> Run:
        import jax.numpy as jnp

        problem = self.problem
        size = -(-len(problem.inputs) // setting.blocks)
        columns = setting.layout == "columns"
        blocks = [
            (
                self._array(x.T if columns else x),
                jnp.asarray(labels.numpy().astype(np.int32)),
                jnp.asarray(masks.numpy()),
            )
            for x, labels, masks in zip(
                problem.inputs.split(size), problem.labels.split(size), problem.masks.split(size), strict=True
            )
        ]
        score = _compiled(columns, problem.world, problem.scale, self.low_rank, setting.chunk)
        # Slices are made once per size: JAX copies them.
        factors = {len(problem.left): (self.left, self.right)}

        def run(candidates: int) -> Tensor:
            if candidates not in factors:
                factors[candidates] = (self.left[:candidates], self.right[:candidates])
            parts = [score(*block, self.net, *factors[candidates]) for block in blocks]
            return torch.from_numpy(np.sum([np.asarray(part) for part in parts], axis=0).astype(np.int64))

        return run


def _compiled(columns: bool, world: str, scale: float, low_rank: bool, chunk: int) -> Callable[..., Any]:
    """(x, labels, masks, net, left, right) -> counts [N, G] float32."""
    import jax
    import jax.numpy as jnp

    def product(a: Any, b: Any) -> Any:
        return jnp.matmul(a, b, preferred_element_type=jnp.float32)

    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return product(weight, x) + bias[:, None] if columns else product(x, weight.T) + bias

    def score(x: Any, labels: Any, masks: Any, net: Any, left: Any, right: Any) -> Any:
        weight, bias, weight2, bias2 = net
        shared = linear(x, weight, bias) if low_rank else None

        def one(factors: tuple[Any, Any]) -> Any:
            left, right = factors
            if low_rank:
                left = (scale * left).astype(x.dtype)
                if columns:
                    y = shared + product(left, product(right, x).astype(x.dtype))
                else:
                    y = shared + product(product(x, right.T).astype(x.dtype), left.T)
            else:
                change = scale * product(left, right)
                edited = weight + change if world == "shift" else weight * (1 + change)
                y = linear(x, edited.astype(x.dtype), bias)
            if weight2 is not None:
                y = linear(jax.nn.relu(y).astype(x.dtype), weight2, bias2)
            return (jnp.argmax(y, 0 if columns else 1) == labels).astype(jnp.float32) @ masks

        return jax.lax.map(one, (left, right), batch_size=chunk)

    return jax.jit(score)


def opponents(problem: Problem, precision: str) -> list[Jax]:
    """Call it only where nothing is :func:`missing`."""
    some = [Jax("JAX", problem, precision)]
    if problem.world == "shift":
        some.append(Jax("JAX low-rank", problem, precision, low_rank=True))
    return some
