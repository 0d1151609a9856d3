"""The native ops against exact float64 arithmetic, on every instruction set of this machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact_tails import CASES, LOGIT_PARTS, U32, U_SPLIT, Case, exact_tail, native_counts, splits
from flat_ops import score_tail, tally_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from native_arguments import ALGEBRAS
from native_arguments import score_tail as native_score_tail
from pairwise import pairwise

from rledit import _native
from rledit.ops import NONLINEARITIES, TALLY_PARTS, Backend, Counts, EditRule, backend

NATIVE = backend("native")
REFERENCE = backend("reference")
ISAS = _native.available_isas()

WIDE_BANDS = {"1000 classes": 0.2, "deep": 0.4}


@pytest.fixture(autouse=True)
def _restore(keep_native_state: None) -> None:
    pass


def score(backend: Backend, arguments: tuple, case: Case, world: str, precision: str) -> Counts:
    return score_tail(backend, *arguments, world, case.scale, precision, list(case.parts))


@pairwise(name=CASES, world=["shift", "mask"], isa=ISAS)
def test_score_tail(name: str, world: str, isa: str, assert_counts: Callable[..., float]) -> None:
    case = CASES[name]
    arguments = case.build()
    logits, bound = exact_tail(arguments, world, case.scale, "float32", isa)
    _native.select_isa(isa)
    band = assert_counts(score(NATIVE, arguments, case, world, "float32"), logits, bound, *arguments[4:6])
    # The bound is a worst case, widest for many inputs or classes; still, most samples must be decided.
    assert band <= WIDE_BANDS.get(name, 0.2 if splits(isa) else 0.06)


# Sizes that are no multiple of any vector, with the first layer edited, later ones or all. The narrow ones
# have fewer outputs than a product has rows, so that candidates share one.
LAYERS = {
    "first": Case(samples=372, sizes=(37, 19, 5), edited=(0,)),
    "later": Case(samples=372, sizes=(37, 43, 21, 5), edited=(1, 2), functions=("gelu", "tanh")),
    "both": Case(samples=372, sizes=(37, 19, 2), edited=(0, 1), functions=("silu",)),
    "only": Case(samples=151, sizes=(43, 29), edited=(0,)),
    "narrow first": Case(samples=700, sizes=(45, 3, 7), edited=(0,), candidates=11),
    "narrow only": Case(samples=129, sizes=(19, 2), edited=(0,), candidates=9, groups=9),
    "own weights": Case(samples=129, sizes=(37, 5, 3), edited=(0, 1), own=(0,), candidates=7),
}


@pairwise(layers=LAYERS, world=["shift", "mask"], isa=ISAS, precision=["float32", "bfloat16"])
def test_every_algebra(
    layers: str, world: str, isa: str, precision: str, assert_counts: Callable[..., float]
) -> None:
    _native.select_isa(isa)
    sizes = LAYERS[layers].sizes
    full = max(min(sizes[layer : layer + 2]) for layer in LAYERS[layers].edited)
    for rank in sorted({min(rank, full) for rank in (1, 3, 16, 99)}):
        case = LAYERS[layers].but(rank=rank)
        arguments = case.build()
        labels, groups = arguments[4:6]
        logits, bound = exact_tail(arguments, world, case.scale, precision, isa)
        exact = tally_logits(REFERENCE, logits, labels, groups, ["correct"]).correct
        for algebra in ALGEBRAS:
            ours = native_counts(arguments, case, world, precision, algebra)
            assert_counts(ours, logits, bound, labels, groups)
            # See test_score_tail_bfloat16; float32 moves hardly any sample at all.
            assert (ours.correct - exact).abs().max() <= max(1, 0.02 * case.samples)


@pytest.mark.slow
@pairwise(samples=[1, 3, 129, 151, 372], world=["shift", "mask"], isa=ISAS)
def test_awkward_shapes(samples: int, world: str, isa: str, assert_counts: Callable[..., float]) -> None:
    _native.select_isa(isa)
    # Groups overlap; the first of them hold 2% of the samples, if any at all. 1000 classes are slow to check.
    shapes = [((129, 37), 2, 1), ((21, 43), 10, 64), ((1, 3), 5, 7), ((23, 17), 1000, 2)]
    for (inputs, outputs), classes, groups in shapes:
        for rank in (1, 2, 7, 99) if classes < 1000 else (2,):
            sizes = (inputs, outputs, classes)
            case = Case(samples=samples, sizes=sizes, rank=rank, groups=groups, candidates=2)
            arguments = case.build()
            logits, bound = exact_tail(arguments, world, case.scale, "float32", isa)
            for algebra in ALGEBRAS[1:] if classes < 1000 else ALGEBRAS[:1]:
                ours = native_counts(arguments, case, world, "float32", algebra)
                assert_counts(ours, logits, bound, *arguments[4:6])


def margins(x: np.ndarray, w: np.ndarray, precision: str) -> np.ndarray:
    """x @ w of positive values, as a native tail computes it.

    The logits are 0 and x @ w, the labels 0, so that a sample's loss is log(1 + exp(x @ w)): from 20 on that
    is x @ w to the last bit of float32. Each sample is a group of its own.
    """
    samples, nothing = len(x), [None]
    assert samples <= 64
    loss = native_score_tail(
        activations=x, weights=[np.stack([np.zeros_like(w), w])], biases=nothing, nonlinearities=["identity"],
        labels=np.zeros(samples, np.int64), groups=np.eye(samples, dtype=bool), lefts=nothing, rights=nothing,
        candidates=1, world="shift", scale=1.0, precision=precision, wanted=["loss"], bins=1,
        margin_limit=1.0,
    )[3]  # fmt: skip
    return loss[0]


@pytest.mark.parametrize("isa", ISAS)
def test_how_exact_products_of_float32_are(isa: str) -> None:
    _native.select_isa(isa)
    random = np.random.default_rng(0)
    shape = (64, 96)
    # The first are as far from two bfloat16 as a number can be: lo is nearly 2^-8, and it leaves 2^-17, all
    # with the same sign. The others are of all sizes, and their errors of both signs.
    hard = np.full(shape, 1 + 509 * 2.0**-17, dtype=np.float32)
    mild = np.exp(random.uniform(-3, 3, shape)).astype(np.float32)
    worst = {}
    for name, x in (("hard", hard), ("mild", mild)):
        exact = x.astype(np.float64) @ x[0].astype(np.float64)
        assert exact.min() > 20
        product = U_SPLIT if splits(isa) else U32
        bound = product + (3 if splits(isa) else 1) * shape[1] * U32
        worst[name] = float(np.abs(margins(x, x[0], "float32") / exact - 1).max())
        print(f"{isa}, {name}: {worst[name]:.2e} of {bound:.2e}")
        assert worst[name] < bound
        # And bfloat16 is what it says: worse by far.
        assert np.abs(margins(x, x[0], "bfloat16") / exact - 1).max() > 2.0**-10
    if splits(isa):
        assert worst["hard"] > 0.9 * U_SPLIT  # the bound is no excuse
        assert worst["mild"] < 0.3 * U_SPLIT


@pairwise(
    name=["paper", "all layers", "full rank", "two classes", "own weights with factors", "one sample"],
    world=["shift", "mask"],
    isa=ISAS,
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
    exact = tally_logits(REFERENCE, logits, labels, groups, ["correct"]).correct
    assert (ours.correct - exact).abs().max() <= max(1, 0.02 * case.samples)
    if bound.numel() and name == "paper":
        fine = score(NATIVE, arguments, case, world, "float32")
        assert not torch.equal(ours.loss, fine.loss)  # bfloat16 is no synonym of float32


@pytest.mark.slow
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
        parts=LOGIT_PARTS if sizes[-1] == 2 else (*TALLY_PARTS[:4], "lower_loss"),
        seed=draw(st.integers(0, 9)),
    )


@pytest.mark.parametrize("examples", [20, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_score_tail_of_any_shape(examples: int, assert_counts: Callable[..., float]) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(
        case=cases(),
        world=st.sampled_from(["shift", "mask"]),
        isa=st.sampled_from(ISAS),
        precision=st.sampled_from(["float32", "bfloat16"]),
    )
    def of_any_shape(case: Case, world: str, isa: str, precision: str) -> None:
        arguments = case.build()
        logits, bound = exact_tail(arguments, world, case.scale, precision, isa)
        _native.select_isa(isa)
        assert_counts(score(NATIVE, arguments, case, world, precision), logits, bound, *arguments[4:6])

    of_any_shape()


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
    REFERENCE.edit_(exact, left.double(), right.double(), EditRule(world, 0.7))
    reach = 0.7 * left.abs() @ right.abs()
    size = weight.abs() + reach if world == "shift" else weight.abs() * (1 + reach)
    _native.select_isa(isa)
    NATIVE.edit_(weight, left, right, EditRule(world, 0.7))
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
    wanted = [part for part in LOGIT_PARTS if part not in ("histogram", "concordant") or c == 2]
    _native.select_isa(isa)
    ours = tally_logits(NATIVE, logits, labels, groups, wanted, 77, 5.0)
    exactly = torch.zeros(n, s, dtype=torch.float64)  # these very logits: nothing may differ
    assert_counts(ours, logits.double(), exactly, labels, groups, bins=77, margin_limit=5.0)
    reference = tally_logits(REFERENCE, logits, labels, groups, wanted, 77, 5.0)
    for part, mine, theirs in zip(TALLY_PARTS[:3], ours, reference, strict=False):
        assert torch.equal(mine, theirs), part


@pytest.mark.parametrize("backend_", [NATIVE, REFERENCE], ids=["native", "reference"])
@pytest.mark.parametrize("isa", ISAS)
def test_ties_go_to_the_first_class_and_bins_to_the_right(backend_: Backend, isa: str) -> None:
    _native.select_isa(isa)
    logits = torch.tensor([[[1.0, 1.0], [0.0, 0.5], [0.5, 0.0], [-9.0, 9.0], [9.0, -9.0]]])
    labels, groups = torch.tensor([0, 1, 1, 1, 0]), torch.ones(1, 5, dtype=torch.bool)
    counts = tally_logits(backend_, logits, labels, groups, list(LOGIT_PARTS), 4, 1.0)
    assert counts.predicted.tolist() == [[[3, 2]]]
    assert counts.confusion.tolist() == [[[[2, 0], [1, 2]]]]
    # Margins 0, .5, -.5, 18, -18; the edges of the bins are -1, -.5, 0, .5, 1 and belong to the right.
    assert counts.histogram.tolist() == [[[[1, 0, 1, 0], [0, 1, 0, 2]]]]
