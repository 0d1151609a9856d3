"""Is a model sound for editing, and does a way to run candidates give what the model itself gives?

Everything here compares logits of a few samples: the model's own, those of a twin whose weights have really
been edited, and those of the way in question. How close they must be follows from the logits alone: from how
they vary over the samples, from what the edit changed, and from the rounding of numbers of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..batch import Inputs, equal
from ..ops import backend
from ..ops.rules import UNCHANGED
from ..targets import Target
from .half_arithmetic import SeesHalf
from .logits import unsound
from .network import calling_modules, logits_of
from .population import Population
from .random_edits import RandomEdits
from .tracing import targets_that_reach

SIZES = (1.0, 8.0, 64.0, 512.0, 1 / 8, 1 / 64)
"""Sizes of the random edits, relative to the weights; the first that shows is taken."""
SHOWS = 0.01  # of the logits' variation: what an edit must move to be a good test
MOST_SAMPLES = 1024  # that are tried before a target is said to have no effect
ACCURACY = 1e-4  # far above the rounding of a deep float32 network, far below what a wrong value does
HALF_ACCURACY = 2e-2  # of passes over other batches, where the forward itself computes in half precision
CHECKED_BYTES = 256 << 10  # of edited weights at a time: a check is no reason for a second copy of a model
ROUNDINGS = 128  # of the last bit, that a logit may be off


class MismatchError(ValueError):
    """The logits of a population are not those of the network, really edited."""


class Probe:
    """A model's logits of a few samples, unedited and really edited.

    Args:
        model: a private copy, in eval mode.
        targets: its targets.
        inputs: [s, ...], at least 2 samples.
        sizes: sizes of the random edit of each target; 1 if not given.
        source: modules with the same weights. With them the model itself is edited and put right from them,
            else a twin with a second copy of the targets' weights is.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Mapping[str, Target],
        inputs: Inputs,
        sizes: Mapping[str, float] | None = None,
        source: Mapping[str, Target] | None = None,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.sizes = dict.fromkeys(targets, 1.0) if sizes is None else dict(sizes)
        self._targets = targets
        self._edits = RandomEdits(model, targets, source)
        with SeesHalf() as seen:
            self.unedited = logits_of(model, inputs)
        self._half = seen.half
        self.autocast = seen.autocast
        self._kept: Tensor | None = None

    # -------------------------------------------------------------------------------- the model alone

    def check_model(self) -> None:
        """Raise ValueError for logits that are not numbers, that change from pass to pass, or that depend on
        the other samples of the batch."""
        if bool((bad := unsound(self.unedited)).any()):
            sample = int(bad.any(1).nonzero()[0, 0])
            value = float(self.unedited[sample][bad[sample]][0])
            raise ValueError(
                f"model: expected logits that are finite, or -inf for a class that is ruled out; sample "
                f"{sample} has {value}"
            )
        tolerance = self._tolerance(self.unedited, accuracy=HALF_ACCURACY if self._half else ACCURACY)
        again = logits_of(self.model, self.inputs)
        if worst := _excess(again, self.unedited, tolerance):
            raise ValueError(
                f"model: its forward is not deterministic: a second pass over the same samples gives logits "
                f"that differ by {worst:.3g}. Does it draw random numbers in eval mode, as dropout that is "
                "always on does, or keep a state from call to call?"
            )
        halves = self.inputs.split((len(self.inputs) + 1) // 2)
        alone = torch.cat([logits_of(self.model, half) for half in halves])
        if worst := _excess(alone, self.unedited, tolerance):
            raise ValueError(
                f"model: the logits of a sample depend on the other samples of its batch: they differ by "
                f"{worst:.3g} where half of the samples run alone. Is the batch the first dimension all the "
                "way (batch_first=True), and does no layer normalize, attend or route across it in eval mode?"
            )

    # --------------------------------------------------------------------------------------- targets

    def check_targets(self, more: Callable[[int], Inputs]) -> None:
        """Find a size of each target's random edit that shows in the logits, one target after the other.

        A target that shows on no sample may have no effect at all, or none on these samples or with these
        weights: a ReLU behind it is dead, a layer behind it is zero, no row is routed to it. It is refused

        - where the trace of the model has no path from it to the logits;
        - where the model cannot be traced and the target is never called, or its output moves with its edits
          and the logits do not: on up to 1024 samples, by edits of up to 512 times its weights, and with all
          other targets edited as well.

        Args:
            more: the first samples of the split, as many as there are up to a number.

        Raises:
            ValueError: for a target that cannot have an effect.
        """
        silent = [name for name in self.sizes if not self._find_size(name, self.inputs)]
        if not silent:
            return
        reaching = targets_that_reach(self.model, list(self.sizes))
        for name in silent:
            if reaching is not None:
                if name not in reaching:
                    raise ValueError(_no_effect(name, "nothing that it computes reaches the logits"))
            elif not self._shows_beside_others(name):
                self._find_among_more(name, more)

    def _find_among_more(self, name: str, more: Callable[[int], Inputs]) -> None:
        inputs = self.inputs
        while len(inputs) < MOST_SAMPLES:
            known, inputs = len(inputs), more(min(8 * len(inputs), MOST_SAMPLES))
            if self._find_size(name, inputs):
                return
            if len(inputs) <= known:
                break
        edited, unedited = (self._edits.outputs(name, size, inputs) for size in (1.0, 0.0))
        if not unedited:
            raise ValueError(_no_effect(name, f"the model does not call it on {len(inputs)} samples"))
        if any(not torch.equal(a, b) for a, b in zip(edited, unedited, strict=False)):
            raise ValueError(_no_effect(name, f"no edit of it changes any logit of {len(inputs)} samples"))

    def _find_size(self, name: str, inputs: Inputs) -> bool:
        """Whether an edit of the target shows; the size that shows best is kept."""
        unedited = self.unedited if inputs is self.inputs else logits_of(self.model, inputs)
        wanted = SHOWS * _variation(unedited)
        best = 0.0
        for size in SIZES:
            changed = _change(self.edited({name: size}, inputs), unedited)
            if changed > best:
                self.sizes[name], best = size, changed
            if best > wanted:
                break
        return best > 0

    def _shows_beside_others(self, name: str) -> bool:
        others = {other: size for other, size in self.sizes.items() if other != name}
        if not others:
            return False
        without = self.edited(others)
        for size in SIZES[:4]:
            if _change(self.edited({**others, name: size}), without) > 0:
                self.sizes[name] = size
                return True
        return False

    def check_uses(self) -> None:
        """Raise ValueError for a target whose weight the model uses in another way than by calling it."""
        worst = self._outside_calls(self.sizes)
        if not worst:
            return
        each = {name: self._outside_calls({name: size}) for name, size in self.sizes.items()}
        name = max(each, key=lambda name: each[name])
        weight = self._targets[name].weight
        modules = self.model.named_modules(remove_duplicate=False)
        own = {f"{alias}.weight" for alias, module in modules if module is self._targets[name]}
        tied = [
            other
            for other, parameter in self.model.named_parameters(remove_duplicate=False)
            if parameter is weight and other not in own
        ]
        where = f"it is also {', '.join(tied)}" if tied else "a forward reads it"
        raise ValueError(
            f"targets: the weight of {name!r} is used elsewhere, not only in calls of that module "
            f"({where}): an edit of it changes more than this layer, here logits by {worst:.3g}. Untie it, "
            "or choose another target"
        )

    def _outside_calls(self, sizes: Mapping[str, float]) -> float:
        """What the edits do to the logits beyond what they do in calls of the targets."""
        with calling_modules():
            really = self.edited(sizes)
            in_calls = self._edits.logits_edited_in_calls(sizes, self.inputs)
        return _excess(in_calls, really, self._tolerance(self.unedited, really))

    def edited(self, sizes: Mapping[str, float], inputs: Inputs | None = None) -> Tensor:
        """The logits with the weights of these targets really edited, by random edits of these sizes."""
        return self._edits.logits(sizes, self.inputs if inputs is None else inputs)

    # ------------------------------------------------------------------------------------ populations

    def keep(self) -> Probe:
        """Keep the logits that :meth:`check_population` compares with; nothing is edited afterwards, so the
        source is released."""
        self._kept = self.edited(self.sizes)
        self._edits.let_the_source_go()
        return self

    def knows(self, inputs: Inputs) -> bool:
        """Whether the kept logits are those of these inputs, and the model is still what it was."""
        return equal(inputs, self.inputs) and torch.equal(logits_of(self.model, inputs), self.unedited)

    def check_population(self, run: Callable[[Population], Tensor]) -> None:
        """Compare two candidates, one unedited and one with a random edit of every target, with the model.

        They run together and the model runs each of them by itself. That finds a target whose output is not
        followed, and values of one candidate or sample that get into those of another.

        Args:
            run: n candidates -> their logits [n*s, C] of these samples.

        Raises:
            MismatchError: if the logits differ by more than float32 rounding explains.
        """
        factors = {}
        for name, (left, right) in self._edits.factors.items():
            edit = self.sizes[name] * left
            factors[name] = (torch.stack([0 * edit, edit]), torch.stack([right, right]))
        population = Population(
            size=2, factors=factors, weights={}, rule=UNCHANGED, backend=backend("reference"),
            precision="float32", block_bytes=CHECKED_BYTES,
        )  # fmt: skip
        logits = run(population)
        if logits.shape != (2 * len(self.inputs), self.unedited.shape[1]):
            raise MismatchError(f"expected logits of 2 candidates, got {list(logits.shape)}")
        edited = self.edited(self.sizes) if self._kept is None else self._kept
        tolerance = self._tolerance(self.unedited, edited)
        for kind, ours, theirs in zip(
            ("unedited", "edited"), logits.split(len(self.inputs)), (self.unedited, edited), strict=True
        ):
            if worst := _excess(ours, theirs, tolerance):
                raise MismatchError(
                    f"model: the scorer's logits of the {kind} network differ from the model's own by "
                    f"{worst:.3g}, where their rounding explains {float(tolerance.max()):.3g}"
                )

    def _tolerance(self, *logits: Tensor, accuracy: float = ACCURACY) -> Tensor:
        """The tolerance of each class, [C]."""
        size = torch.stack([_finite(values).abs().amax(0) for values in logits]).amax(0)
        varies = _variation(self.unedited)
        if len(logits) > 1:
            varies = max(varies, _change(logits[1], logits[0]))
        return accuracy * varies + ROUNDINGS * torch.finfo(size.dtype).eps * size


def _no_effect(name: str, why: str) -> str:
    return (
        f"targets: {name!r} has no effect on the model in eval mode: {why}. Is it a head that only training "
        "uses?"
    )


def _finite(logits: Tensor) -> Tensor:
    """The logits with zeros in the place of infinities and NaN."""
    return logits.masked_fill(~logits.isfinite(), 0)


def _variation(logits: Tensor) -> float:
    """How far a logit varies over the samples, at most."""
    values = _finite(logits)
    return float((values.amax(0) - values.amin(0)).max())


def _change(logits: Tensor, before: Tensor) -> float:
    """How far a logit has moved, at most; 0 for logits that are no longer numbers."""
    if bool((logits.isnan() | (logits.isinf() != before.isinf())).any()):
        return 0.0
    return float((_finite(logits) - _finite(before)).abs().max())


def _excess(ours: Tensor, theirs: Tensor, tolerance: Tensor) -> float:
    """The largest difference if any is above the tolerance [C], else 0. Equal infinities do not differ."""
    difference = torch.where(ours == theirs, 0, (ours - theirs).abs())
    if bool((difference <= tolerance).all()):
        return 0.0
    return float(difference.nan_to_num(nan=torch.inf).max())
