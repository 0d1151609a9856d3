"""EditableModel: a private copy of a model, its targets, and the way to run it for a population."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..runtime import all_finite
from ..samples import Samples
from ..storage.fingerprint import fingerprint
from ..targets import as_matrix, check_rank, find_targets, matrices
from .checking import MismatchError, check_population
from .network import CutNetwork, Network, WholeNetwork, logits_of
from .tail import Tail, find_tail
from .tracing import TracingError, cut

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Per target: left [N, O, R] and right [N, R, I], float32 or float64."""


class EditableModel:
    """What scorers know of a model.

    Attributes:
        model: the private copy, in eval mode; half precision has become float32.
        targets: the modules whose weights may be edited, by name.
        fingerprint: of the original's target weights.
        dtype, device: of the target weights.
        classes: C of the logits.
        network: how to run it for many candidates.
        tail: what follows the cut, where the fused op can run it.

    Raises:
        TypeError, ValueError: see :class:`rledit.Task`.
    """

    def __init__(self, model: nn.Module, targets: Sequence[str], samples: Samples) -> None:
        """``samples``: a few of them show what the model takes and gives."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        originals = find_targets(model, targets)
        self.model = _private_copy(model)
        self.fingerprint = fingerprint({name: target.weight for name, target in originals.items()})
        self.targets = find_targets(self.model, targets)
        self.dtype = next(iter(self.targets.values())).weight.dtype
        self.device = next(iter(self.targets.values())).weight.device
        few = self.as_input(samples.head(4))
        if len(few) < 3:  # tracing needs three samples to tell a batch size from a constant
            few = few.repeat(3, *([1] * (few.dim() - 1)))[:3]
        self.classes = self._count_classes(few)
        self.network, self.tail = self._build_network(few)

    def _count_classes(self, inputs: Tensor) -> int:
        try:
            return logits_of(self.model, inputs).shape[1]
        except Exception as error:
            if str(error).startswith("model: "):
                raise
            raise ValueError(
                f"model: it fails on inputs {inputs.dtype} {list(inputs.shape)}: {error}"
            ) from error

    def _build_network(self, inputs: Tensor) -> tuple[Network, Tail | None]:
        try:
            parts = cut(self.model, list(self.targets), inputs)
            network = CutNetwork(parts, list(self.targets), inputs)
            with torch.no_grad():
                cached = network.prefix(inputs)
            check_population(
                self.model, self.targets, inputs, lambda population: network.suffix(cached, population)
            )
        except (TracingError, MismatchError) as error:
            whole = WholeNetwork(self.model, self.targets)
            # What is wrong with the model itself is wrong in any way to run it.
            check_population(
                self.model, self.targets, inputs, lambda population: whole.suffix((inputs,), population)
            )
            reason = error if isinstance(error, TracingError) else "its trace gives other logits"
            warnings.warn(
                f"the network cannot be traced ({reason}); "
                "nothing is cached and every candidate runs it whole",
                stacklevel=4,
            )
            return whole, None
        return network, find_tail(parts, cached[0])

    def as_input(self, inputs: Tensor) -> Tensor:
        """Inputs as the private copy takes them: on its device, half precision as float32."""
        if inputs.is_meta:
            raise ValueError("inputs: expected values, got a tensor on the meta device")
        inputs = inputs.to(self.device)
        if inputs.dtype in (torch.float16, torch.bfloat16):
            inputs = inputs.float()
        if inputs.is_floating_point() and inputs.dtype != self.dtype:
            raise TypeError(f"inputs: expected the model's dtype {self.dtype}, got {inputs.dtype}")
        return inputs

    def weights(self) -> dict[str, Tensor]:
        """The unedited weights as matrices [O, I]."""
        return matrices(self.targets)

    def check_factors(self, factors: Factors) -> dict[str, tuple[Tensor, Tensor]]:
        """The factors in the model's dtype, after every check that :meth:`Scorer.score` promises."""
        checked = {}
        for name, pair in factors.items():
            outputs, inputs = self._matrix_shape("factors", name)
            left, right = (torch.as_tensor(factor).to(self.device, self.dtype) for factor in pair)
            n = left.shape[0] if left.dim() == 3 else 0
            rank = left.shape[2] if left.dim() == 3 else 0
            if left.dim() != 3 or left.shape[1] != outputs or n == 0:
                raise ValueError(
                    f"factors[{name!r}]: expected left [N, {outputs}, R], got {list(left.shape)}"
                )
            if right.shape != (n, rank, inputs):
                raise ValueError(
                    f"factors[{name!r}]: expected right [{n}, {rank}, {inputs}], got {list(right.shape)}"
                )
            check_rank(rank, name, outputs, inputs)
            for side, factor in (("left", left), ("right", right)):
                if not all_finite(factor):
                    raise ValueError(f"factors[{name!r}]: {side} has NaN or infinity")
            checked[name] = (left.contiguous(), right.contiguous())
        return checked

    def check_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights [N, O, I] per target, contiguous and in the model's dtype."""
        checked = {}
        for name, weight in weights.items():
            outputs, inputs = self._matrix_shape("weights", name)
            if weight.dim() != 3 or weight.shape[1:] != (outputs, inputs) or len(weight) == 0:
                raise ValueError(
                    f"weights[{name!r}]: expected [N, {outputs}, {inputs}], got {list(weight.shape)}"
                )
            checked[name] = weight.to(self.device, self.dtype).contiguous()
        return checked

    def _matrix_shape(self, argument: str, name: str) -> tuple[int, int]:
        if name not in self.targets:
            raise ValueError(f"{argument}: expected targets {', '.join(self.targets)}; got {name!r}")
        outputs, inputs = as_matrix(self.targets[name].weight).shape
        return outputs, inputs


def _private_copy(model: nn.Module) -> nn.Module:
    own = copy.deepcopy(model).eval().requires_grad_(False)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in own.parameters()):
        own = own.float()
    for name, parameter in own.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"model: expected weights with values, {name!r} is on the meta device")
        if parameter.is_floating_point() and not bool(parameter.isfinite().all()):
            raise ValueError(f"model: expected finite weights, {name!r} has NaN or infinity")
    return own
