"""The native ops against exact float64 arithmetic, on every instruction set of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rledit import _native
from rledit.ops import NONLINEARITIES, TALLY_PARTS, Counts, backend

NATIVE = backend("native")
REFERENCE = backend("reference")
ISAS = _native.available_isas()
U32 = 2.0**-24  # unit roundoff of float32
U16 = 2.0**-8  # of bfloat16: 8 bits of significand make half a unit 2^-9; twice that covers their products


@dataclass(frozen=True)
class Case:
    samples: int = 129
    sizes: tuple[int, ...] = (37, 19, 5)  # inputs, outputs of each layer
    functions: tuple[str, ...] = ("relu",)  # after each layer but the last, repeated
    edited: tuple[int, ...] = (0,)
    own: tuple[int, ...] = ()  # layers with weights [N, O, I]
    rank: int = 2
    candidates: int = 5
    groups: int = 3
    bias: bool = True
    scale: float = 0.7
    parts: tuple[str, ...] = ("correct", "predicted", "confusion", "loss")
    seed: int = 0
    tensors: dict[str, list[Tensor | None]] = field(default_factory=dict, compare=False)

    def build(self) -> tuple[Tensor, list, list, list, Tensor, Tensor, list, list]:
        random = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random)

        n, layers = self.candidates, range(len(self.sizes) - 1)
        weights, biases, lefts, rights = [], [], [], []
        for layer in layers:
            i, o = self.sizes[layer : layer + 2]
            lead = (n,) if layer in self.own else ()
            weights.append(normal(*lead, o, i) / i**0.5)
            biases.append(normal(o) if self.bias else None)
            rank = min(self.rank, i, o)
            edit = layer in self.edited
            lefts.append(normal(n, o, rank) / (rank * i) ** 0.5 if edit else None)
            rights.append(normal(n, rank, i) if edit else None)
        labels = torch.randint(self.sizes[-1], (self.samples,), generator=random)
        # Groups from one that is nearly empty to one that holds nearly everything.
        share = torch.linspace(0.02, 0.98, self.groups)[:, None]
        groups = torch.rand(self.groups, self.samples, generator=random) < share
        functions = [self.functions[layer % len(self.functions)] for layer in layers]
        functions[-1] = "identity"
        activations = normal(self.samples, self.sizes[0])
        return activations, weights, biases, functions, labels, groups, lefts, rights


def exact_tail(arguments: tuple, world: str, scale: float, precision: str) -> tuple[Tensor, Tensor]:
    """Logits [N, S, C] in float64 and a bound [N, S] on the error of any float32 or bfloat16 path.

    A dot product of length I, with weights formed from rank-R factors, makes an error of at most
    (I + 2R + 8) u of the same sum over absolute values, in whatever order it is added. For shift that sum
    is |x| (|W| + |s| |left| |right|), which also covers the path that never forms W'.
    """
    x, weights, biases, functions, _, _, lefts, rights = arguments
    n = max(
        [1] + [w.shape[0] for w in weights if w.dim() == 3] + [f.shape[0] for f in lefts if f is not None]
    )
    x = x.double().expand(n, -1, -1)
    error = torch.zeros_like(x)
    for weight, bias, name, left, right in zip(weights, biases, functions, lefts, rights, strict=True):
        weight = weight.double().expand(n, *weight.shape[-2:])
        size, rank = weight.abs(), 0
        if left is not None:
            rank = left.shape[2]
            delta = scale * left.double() @ right.double()
            reach = abs(scale) * left.abs().double() @ right.abs().double()
            if world == "shift":
                weight, size = weight + delta, size + reach
            else:
                weight, size = weight * (1 + delta), size * (1 + reach)
        unit = (weight.shape[-1] + 2 * rank + 8) * U32
        if precision == "bfloat16":
            unit += 4 * U16  # x, W or left, right, and x right^T are rounded
        offset = 0 if bias is None else bias.double()
        reach = x.abs() @ size.transpose(1, 2) + (0 if bias is None else bias.abs().double())
        error = error @ size.transpose(1, 2) * (1 + unit) + unit * reach
        x = x @ weight.transpose(1, 2) + offset
        if name != "identity":
            # GELU and SiLU are steepest with 1.13 and 1.1. The polynomials of exp, tanh and erf are good to
            # 4 units, erf (2e-7 absolute) to 4 as well.
            error = 1.13 * error + 8 * U32 * (1 + x.abs())
            x = NONLINEARITIES[name](x)
    return x, error.amax(-1)


CASES = {
    "one sample": Case(samples=1),
    "three samples, one candidate": Case(samples=3, candidates=1),
    "one tile": Case(samples=64),
    "one tile and one sample": Case(samples=65, groups=64),
    "odd sizes": Case(samples=151, sizes=(31, 17, 3), rank=3, groups=1),
    "rank 1": Case(samples=372, sizes=(65, 33, 10), rank=1),
    "paper": Case(samples=600, sizes=(128, 32, 10), rank=4, candidates=7, groups=2),
    "full rank": Case(samples=65, sizes=(23, 29, 4), rank=23),
    # More than chunk/8 ranks: with one tile 8, with eight tiles 64.
    "weights formed once, one tile": Case(samples=33, sizes=(21, 20, 7), rank=9, candidates=4),
    "weights formed once, many chunks": Case(samples=1300, sizes=(70, 72, 3), rank=66, candidates=3),
    "second layer formed once": Case(samples=700, sizes=(9, 80, 70, 2), edited=(1,), rank=67, candidates=2),
    "second layer only": Case(edited=(1,), rank=4, candidates=17),
    "all layers": Case(sizes=(40, 21, 13, 6), edited=(0, 1, 2), rank=3, functions=("tanh", "gelu")),
    "unedited": Case(edited=(), candidates=1),
    "single layer": Case(sizes=(50, 11), samples=372),
    "single layer, full rank": Case(sizes=(13, 11), samples=372, rank=11),
    "two classes": Case(sizes=(45, 7, 2), parts=TALLY_PARTS, samples=372, groups=9),
    "two classes, single layer": Case(sizes=(19, 2), parts=TALLY_PARTS, samples=151, groups=64),
    "one input": Case(sizes=(1, 5, 3), rank=1),
    "own weights": Case(edited=(), own=(0,), candidates=6),
    "own weights with factors": Case(edited=(0,), own=(0, 1), candidates=6),
    "own weights, factors elsewhere": Case(edited=(1,), own=(0,), candidates=3),
    "no bias": Case(bias=False, functions=("silu",)),
    "wide": Case(samples=200, sizes=(515, 261, 10), candidates=3, rank=5),
    "1000 classes": Case(samples=129, sizes=(24, 1000), candidates=2, groups=2),
    "many candidates": Case(samples=129, candidates=201, sizes=(12, 9, 4)),
    "zero scale": Case(scale=0.0),
    "negative scale": Case(scale=-1.3),
    **{name: Case(functions=(name,), samples=372) for name in NONLINEARITIES},
}


@pytest.fixture(autouse=True)
def _restore(keep_native_state: None) -> None:
    pass


def score(backend: object, arguments: tuple, case: Case, world: str, precision: str) -> Counts:
    return backend.score_tail(*arguments, world, case.scale, precision, list(case.parts))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("name", CASES)
def test_score_tail(name: str, world: str, isa: str, assert_counts: Callable[..., float]) -> None:
    case = CASES[name]
    arguments = case.build()
    logits, bound = exact_tail(arguments, world, case.scale, "float32")
    _native.select_isa(isa)
    band = assert_counts(score(NATIVE, arguments, case, world, "float32"), logits, bound, *arguments[4:6])
    # The bound is a worst case, widest for many inputs or classes; still, most samples must be decided.
    assert band <= (0.2 if name == "1000 classes" else 0.06)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize(
    "name", ["paper", "all layers", "full rank", "two classes", "own weights with factors", "one sample"]
)
def test_score_tail_bfloat16(name: str, world: str, isa: str, assert_counts: Callable[..., float]) -> None:
    case = CASES[name]
    arguments = case.build()
    labels, groups = arguments[4:6]
    logits, bound = exact_tail(arguments, world, case.scale, "bfloat16")
    _native.select_isa(isa)
    ours = score(NATIVE, arguments, case, world, "bfloat16")
    assert_counts(ours, logits, bound, labels, groups)
    # The worst case leaves many samples undecided, so the typical one is limited as well: rounding errors of
    # 2^-9 that add up at random move a count by far less than 2% of the samples, or by one.
    exact = REFERENCE.tally_logits(logits, labels, groups, ["correct"]).correct
    assert (ours.correct - exact).abs().max() <= max(1, 0.02 * case.samples)
    if bound.numel() and name == "paper":
        fine = score(NATIVE, arguments, case, world, "float32")
        assert not torch.equal(ours.loss, fine.loss)  # bfloat16 is no synonym of float32


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("name", CASES)
def test_score_tail_reference_is_exact_in_float64(
    name: str, world: str, assert_counts: Callable[..., float]
) -> None:
    case = CASES[name]
    arguments = case.build()
    logits, bound = exact_tail(arguments, world, case.scale, "float32")
    wide = tuple(
        [None if t is None else t.double() for t in part] if isinstance(part, list) and i != 3 else part
        for i, part in enumerate((arguments[0].double(), *arguments[1:]))
    )
    # float64 has 29 bits more, so the bound shrinks by 2^29.
    ours = score(REFERENCE, wide, case, world, "float32")
    if ours.loss.numel():  # assert_counts allows the loss float32 arithmetic
        entropy = -logits.log_softmax(-1).gather(-1, wide[4].expand(len(logits), -1)[..., None])[..., 0]
        torch.testing.assert_close(ours.loss, entropy @ wide[5].double().T, rtol=1e-12, atol=1e-9)
    assert assert_counts(ours, logits, bound * 2.0**-29, *wide[4:6]) == 0.0


@st.composite
def cases(draw: st.DrawFn) -> Case:
    layers = draw(st.integers(1, 3))
    size = st.integers(1, 70)
    sizes = (*draw(st.lists(size, min_size=layers, max_size=layers)), draw(st.integers(2, 33)))
    which = st.sets(st.integers(0, layers - 1)).map(lambda chosen: tuple(sorted(chosen)))
    edited, own = draw(which), draw(which)
    return Case(
        samples=draw(st.sampled_from([1, 3, 63, 64, 65, 129, 513])),
        sizes=sizes,
        functions=tuple(draw(st.lists(st.sampled_from(sorted(NONLINEARITIES)), min_size=1, max_size=2))),
        edited=edited,
        own=own,
        rank=draw(st.integers(1, 70)),
        candidates=draw(st.integers(1, 20)) if edited or own else 1,
        groups=draw(st.sampled_from([1, 2, 5, 63, 64])),
        bias=draw(st.booleans()),
        scale=draw(st.sampled_from([1.0, -0.5, 0.01])),
        parts=TALLY_PARTS if sizes[-1] == 2 else TALLY_PARTS[:4],
        seed=draw(st.integers(0, 9)),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    case=cases(),
    world=st.sampled_from(["shift", "mask"]),
    isa=st.sampled_from(ISAS),
    precision=st.sampled_from(["float32", "bfloat16"]),
)
def test_score_tail_of_any_shape(
    case: Case, world: str, isa: str, precision: str, assert_counts: Callable[..., float]
) -> None:
    arguments = case.build()
    logits, bound = exact_tail(arguments, world, case.scale, precision)
    _native.select_isa(isa)
    assert_counts(score(NATIVE, arguments, case, world, precision), logits, bound, *arguments[4:6])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize(
    "shape",  # N, O, I, R
    [(1, 1, 1, 1), (3, 5, 7, 2), (2, 17, 33, 17), (64, 10, 10, 1), (5, 129, 151, 4), (2, 3, 70_001, 2)],
)
def test_apply_lowrank(shape: tuple[int, int, int, int], world: str, isa: str) -> None:
    n, o, i, r = shape
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(n, o, i, generator=random)
    left, right = torch.randn(n, o, r, generator=random), torch.randn(n, r, i, generator=random)
    exact = weight.double()
    REFERENCE.apply_lowrank_(exact, left.double(), right.double(), world, 0.7)
    reach = 0.7 * left.abs() @ right.abs()
    size = weight.abs() + reach if world == "shift" else weight.abs() * (1 + reach)
    _native.select_isa(isa)
    NATIVE.apply_lowrank_(weight, left, right, world, 0.7)
    # R products and sums, the scale, the edit: each rounds once; the scale itself is rounded to float32.
    assert ((weight - exact).abs() <= (r + 4) * U32 * size).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 2, 1), (3, 65, 5, 64), (2, 600, 10, 3), (40, 64, 2, 2), (2, 151, 1000, 2), (300, 3, 4, 1)],
)
def test_tally_logits(
    shape: tuple[int, int, int, int], isa: str, assert_counts: Callable[..., float]
) -> None:
    n, s, c, g = shape
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, s, c, generator=random)
    labels = torch.randint(c, (s,), generator=random)
    groups = torch.rand(g, s, generator=random) < torch.linspace(0.02, 1, g)[:, None]
    wanted = [part for part in TALLY_PARTS if part != "histogram" or c == 2]
    _native.select_isa(isa)
    ours = NATIVE.tally_logits(logits, labels, groups, wanted, 77, 5.0)
    exactly = torch.zeros(n, s, dtype=torch.float64)  # these very logits: nothing may differ
    assert_counts(ours, logits.double(), exactly, labels, groups, bins=77, margin_limit=5.0)
    reference = REFERENCE.tally_logits(logits, labels, groups, wanted, 77, 5.0)
    for part, mine, theirs in zip(TALLY_PARTS[:3], ours, reference, strict=False):
        assert torch.equal(mine, theirs), part


@pytest.mark.parametrize("backend_", [NATIVE, REFERENCE], ids=["native", "reference"])
@pytest.mark.parametrize("isa", ISAS)
def test_ties_go_to_the_first_class_and_bins_to_the_right(backend_: object, isa: str) -> None:
    _native.select_isa(isa)
    logits = torch.tensor([[[1.0, 1.0], [0.0, 0.5], [0.5, 0.0], [-9.0, 9.0], [9.0, -9.0]]])
    labels, groups = torch.tensor([0, 1, 1, 1, 0]), torch.ones(1, 5, dtype=torch.bool)
    counts = backend_.tally_logits(logits, labels, groups, list(TALLY_PARTS), 4, 1.0)
    assert counts.predicted.tolist() == [[[3, 2]]]
    assert counts.confusion.tolist() == [[[[2, 0], [1, 2]]]]
    # Margins 0, .5, -.5, 18, -18; the edges of the bins are -1, -.5, 0, .5, 1 and belong to the right.
    assert counts.histogram.tolist() == [[[[1, 0, 1, 0], [0, 1, 0, 2]]]]
