"""The Triton kernels against exact float64 arithmetic: on a GPU if there is one, else in Triton's
interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import pytest
import torch
from exact_tails import CASES, LOGIT_PARTS, U16, U32, Case, exact_tail
from flat_ops import score_tail, tally_logits
from gpu_backends import DEVICE, NAMES, cuda_on_host, gpu_backend
from pairwise import pairwise
from torch import Tensor, nn

import rledit
from rledit.ops import (
    NONLINEARITIES,
    TALLY_PARTS,
    Backend,
    Candidates,
    Counts,
    EditRule,
    Layer,
    TailProblem,
    Wanted,
    backend,
    halves,
    score_tail_ref,
)
from rledit.ops.score_tail import from_schema

REFERENCE = backend("reference")
PRODUCTS = {"triton": "", "cuda": "tf32x3"}
"""Of float32, see exact_tail."""


@pytest.fixture(params=NAMES)
def gpu(request: pytest.FixtureRequest) -> Backend:
    return gpu_backend(request.param)


# In Triton's interpreter these are slow, and two kernels of CUDA are one too many for every run:
# test_score_tail_in_triton and test_score_tail_on_hopper are samples.
@pytest.fixture(
    params=[
        pytest.param("triton", marks=pytest.mark.exhaustive),
        "cuda",
        pytest.param("cuda on Hopper", marks=pytest.mark.exhaustive),
    ]
)
def tails(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Those whose score_tail is a kernel of its own: CUDA's has another for sm_90."""
    if request.param in NAMES:
        yield gpu_backend(request.param)
    else:
        yield request.getfixturevalue("hopper")


@pytest.fixture
def hopper(shim: ctypes.CDLL) -> Backend:
    shim.shim_set_capability(90)
    return gpu_backend("cuda")


@pytest.fixture
def triton() -> Backend:
    return gpu_backend("triton")


def mapped(change: Callable[[Tensor], Tensor], arguments: tuple) -> tuple:
    """The arguments with every tensor changed, those in lists, too."""

    def of(value: object) -> object:
        if isinstance(value, Tensor):
            return change(value)
        return [of(item) for item in value] if isinstance(value, list) else value

    return tuple(of(value) for value in arguments)


def on_device(arguments: tuple) -> tuple:
    return mapped(lambda tensor: tensor.to(DEVICE), arguments)


def score(ops: Backend, case: Case, arguments: tuple, world: str, precision: str) -> Counts:
    counts = score_tail(ops, *on_device(arguments), world, case.scale, precision, list(case.parts))
    return Counts(*(part.cpu() for part in counts))


# Interpreters are slow: cases for the CPU's algebra are left out, and sizes stay at a few tiles of 64
# samples. A nonlinearity does not depend on how weights are edited.
SMALLER: dict[str, dict[str, int]] = {
    "many candidates": {"candidates": 13},  # more than there are programs
    "wide": {"samples": 40, "candidates": 1},
    "second layer only": {"candidates": 7},
    "negative scale": {"candidates": 2},
    "zero scale": {"candidates": 2},
    "deep": {"samples": 70, "candidates": 2},
    "paper": {"samples": 200, "candidates": 3},
    "rank 1": {"samples": 151},
    "single layer": {"samples": 151},
    "single layer, full rank": {"samples": 151},
    "two classes": {"samples": 151},
    **{name: {"samples": 100, "candidates": 2} for name in NONLINEARITIES},
}
GPU_CASES = [
    (name, world)
    for name in CASES
    for world in ("shift", "mask")
    if "formed once" not in name and not (name in NONLINEARITIES and world == "mask")
]


@pytest.mark.parametrize(("name", "world"), GPU_CASES)
def test_score_tail(tails: Backend, name: str, world: str, assert_counts: Callable[..., float]) -> None:
    case = CASES[name].but(**SMALLER.get(name, {}))
    arguments = case.build()
    logits, bound = exact_tail(arguments, world, case.scale, "float32", PRODUCTS[tails.name])
    assert_counts(score(tails, case, arguments, world, "float32"), logits, bound, *arguments[4:6])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "world"), [("all layers", "mask"), ("two classes", "shift")])
def test_score_tail_in_triton(
    triton: Backend, name: str, world: str, assert_counts: Callable[..., float]
) -> None:
    test_score_tail(triton, name, world, assert_counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "world"), [("all layers", "mask"), ("two classes", "shift"), ("wide", "shift"), ("deep", "mask")]
)
def test_score_tail_on_hopper(
    hopper: Backend, name: str, world: str, assert_counts: Callable[..., float]
) -> None:
    test_score_tail(hopper, name, world, assert_counts)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("samples", [1, 3, 151])
def test_awkward_shapes(
    tails: Backend, samples: int, world: str, assert_counts: Callable[..., float]
) -> None:
    shapes = [
        ((129, 37), 2, 1, (1, 7)),
        ((21, 43), 10, 64, (2, 99)),
        ((1, 3), 5, 7, (1,)),
        ((23, 17), 1000, 2, (2,)),
    ]
    for (inputs, outputs), classes, groups, ranks in shapes:
        for rank in ranks:
            case = Case(
                samples=samples, sizes=(inputs, outputs, classes), rank=rank, groups=groups, candidates=2
            )
            case = case.but(parts=tuple(case.wanted()))
            arguments = case.build()
            logits, bound = exact_tail(arguments, world, case.scale, "float32", PRODUCTS[tails.name])
            assert_counts(score(tails, case, arguments, world, "float32"), logits, bound, *arguments[4:6])


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize(
    "name", ["paper", "all layers", "full rank", "two classes", "own weights with factors"]
)
def test_score_tail_bfloat16(
    tails: Backend, name: str, world: str, assert_counts: Callable[..., float]
) -> None:
    case = CASES[name].but(**SMALLER.get(name, {}))
    arguments = case.build()
    logits, bound = exact_tail(arguments, world, case.scale, "bfloat16")
    ours = score(tails, case, arguments, world, "bfloat16")
    assert_counts(ours, logits, bound, *arguments[4:6])
    exact = tally_logits(REFERENCE, logits, *arguments[4:6], ["correct"]).correct
    assert (ours.correct - exact).abs().max() <= max(1, 0.02 * case.samples)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_models_in_half_precision(
    triton: Backend, dtype: torch.dtype, world: str, assert_counts: Callable[..., float]
) -> None:
    """Rounded inputs, then at least the accuracy of bfloat16 products."""
    case = CASES["paper"].but(**SMALLER["paper"])
    rounded = mapped(lambda x: x.to(dtype) if x.is_floating_point() else x, case.build())
    widened = mapped(lambda x: x.float() if x.is_floating_point() else x, rounded)
    logits, bound = exact_tail(widened, world, case.scale, "bfloat16")
    assert_counts(score(triton, case, rounded, world, "float32"), logits, bound, *rounded[4:6])


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 2, 1), (3, 65, 5, 64), (2, 300, 10, 3), (40, 64, 2, 2), (2, 151, 1000, 2), (60, 3, 4, 1)],
)
def test_tally_logits(
    gpu: Backend, shape: tuple[int, int, int, int], assert_counts: Callable[..., float]
) -> None:
    n, s, c, g = shape
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, s, c, generator=random)
    labels = torch.randint(c, (s,), generator=random)
    groups = torch.rand(g, s, generator=random) < torch.linspace(0.02, 1, g)[:, None]
    wanted = [part for part in LOGIT_PARTS if part not in ("histogram", "concordant") or c == 2]
    counts = tally_logits(gpu, *on_device((logits, labels, groups)), wanted, 77, 5.0)
    ours = Counts(*(part.cpu() for part in counts))
    exactly = torch.zeros(n, s, dtype=torch.float64)
    assert_counts(ours, logits.double(), exactly, labels, groups, bins=77, margin_limit=5.0)
    reference = tally_logits(REFERENCE, logits, labels, groups, wanted, 77, 5.0)
    for part, mine, theirs in zip(TALLY_PARTS, ours, reference, strict=True):
        if part != "loss":
            assert torch.equal(mine, theirs), part


def test_ties_bins_and_what_is_not_finite(gpu: Backend) -> None:
    logits = torch.tensor([[[1.0, 1.0], [0.0, 0.5], [0.5, 0.0], [-9.0, 9.0], [9.0, -9.0]]])
    broken = logits.clone()
    broken[0, 1, 0], broken[0, 3, 1] = torch.nan, torch.inf
    labels, groups = torch.tensor([0, 1, 1, 1, 0]), torch.ones(1, 5, dtype=torch.bool)
    for values in (logits, broken):
        counts = tally_logits(gpu, *on_device((values, labels, groups)), list(LOGIT_PARTS), 4, 1.0)
        expected = tally_logits(REFERENCE, values, labels, groups, list(LOGIT_PARTS), 4, 1.0)
        for mine, theirs in zip(counts, expected, strict=True):
            torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pairwise(
    dtype=[torch.float32, torch.float16, torch.bfloat16],
    # N, O, I, R
    shape=[(1, 1, 1, 1), (3, 5, 7, 2), (2, 17, 33, 17), (9, 10, 10, 1), (2, 129, 151, 4), (2, 3, 2_001, 40)],
    world=["shift", "mask"],
)
def test_apply_lowrank(
    gpu: Backend, shape: tuple[int, int, int, int], world: str, dtype: torch.dtype
) -> None:
    if gpu.name == "cuda" and dtype != torch.float32:
        pytest.skip("the CUDA ops are for float32")
    n, o, i, r = shape
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(n, o, i, generator=random).to(dtype)
    left = torch.randn(n, o, r, generator=random).to(dtype)
    right = torch.randn(n, r, i, generator=random).to(dtype)
    exact = weight.double()
    REFERENCE.edit_(exact, left.double(), right.double(), EditRule(world, 0.7))
    reach = 0.7 * left.double().abs() @ right.double().abs()
    size = weight.double().abs() + reach if world == "shift" else weight.double().abs() * (1 + reach)
    ours = weight.to(DEVICE)
    gpu.edit_(ours, left.to(DEVICE), right.to(DEVICE), EditRule(world, 0.7))
    # The interpreter cuts bfloat16 off where a GPU rounds it.
    stored = {
        torch.float32: 0.0,
        torch.float16: 2.0**-11,
        torch.bfloat16: U16 if DEVICE == "cuda" else 2 * U16,
    }[dtype]
    tiny = 2.0**-24 if dtype == torch.float16 else 0.0  # half precision ends there
    assert ((ours.cpu().double() - exact).abs() <= ((r + 4) * U32 + stored) * size + tiny).all()


def test_a_weight_that_is_not_contiguous_is_edited_too(gpu: Backend) -> None:
    weight = torch.randn(4, 6, 3, device=DEVICE).transpose(1, 2)  # [4, 3, 6]
    left, right = torch.randn(4, 3, 2, device=DEVICE), torch.randn(4, 2, 6, device=DEVICE)
    expected = weight.clone()
    REFERENCE.edit_(expected, left, right, EditRule("mask", 0.5))
    gpu.edit_(weight, left, right, EditRule("mask", 0.5))
    torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (7, 3, 5, 2), (33, 4, 70, 17), (65, 2, 129, 4)]
)  # S, N, O, R
def test_population_linear(triton: Backend, shape: tuple[int, int, int, int]) -> None:
    s, n, o, r = shape
    random = torch.Generator().manual_seed(0)
    shared, reduced = torch.randn(s, o, generator=random), torch.randn(s, n, r, generator=random)
    left = torch.randn(n, o, r, generator=random)
    assert triton.population_linear is not None
    ours = triton.population_linear(*on_device((shared, reduced, left)), 0.3)
    expected = shared.double() + 0.3 * torch.einsum("snr,nor->nso", reduced.double(), left.double())
    torch.testing.assert_close(ours.cpu().double(), expected, rtol=1e-5, atol=1e-5)


class Residual(nn.Module):
    """No plain tail: the sum makes it a suffix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 12)
        self.second = nn.Linear(12, 12)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x))
        logits: Tensor = self.last(hidden + torch.relu(self.second(hidden)))
        return logits


@pytest.mark.parametrize("kind", ["tail", "suffix"])
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_a_scorer_counts_what_the_reference_counts(
    gpu: Backend, kind: str, world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rledit.scoring.scorer.find_backend",
        lambda name, *rest: gpu if name == "auto" else backend(name, *rest),
    )
    torch.manual_seed(0)
    model = Residual() if kind == "suffix" else nn.Sequential(nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, 3))
    inputs, labels = torch.randn(50, 9), torch.randint(3, (50,))
    samples = rledit.Samples(inputs.to(DEVICE), labels, rledit.forget_groups(labels, 1))
    target = "second" if kind == "suffix" else "0"
    task = rledit.Task(model.to(DEVICE), [target], samples, rledit.Unlearning())
    factors = {target: (0.5 * torch.randn(6, 12, 2), torch.randn(6, 2, 12 if kind == "suffix" else 9))}
    factors = {name: (left.to(DEVICE), right.to(DEVICE)) for name, (left, right) in factors.items()}
    ours = task.scorer(backend="auto")
    assert ours.way == kind
    assert ours.backend == gpu.name
    mine, theirs = (scorer.score(factors, world) for scorer in (ours, task.scorer(backend="reference")))
    for group in ("forget", "retain"):
        assert torch.equal(mine.correct[group].cpu(), theirs.correct[group].cpu())


def test_what_is_not_this_backends_is_named(triton: Backend) -> None:
    weight = torch.randn(2, 3, 4, dtype=torch.float64)
    with pytest.raises(TypeError, match="weight: the triton backend expects float32 or float16 or bfloat16"):
        triton.edit_(weight, weight[:, :, :1], weight[:, :1], EditRule("shift", 1.0))
    mixed = torch.randn(2, 3, 4, device=DEVICE)
    with pytest.raises(TypeError, match=r"left: expected torch\.float32"):
        triton.edit_(mixed, mixed[:, :, :1].half(), mixed[:, :1], EditRule("shift", 1.0))


def test_activations_may_begin_anywhere(tails: Backend, assert_counts: Callable[..., float]) -> None:
    """A view into a larger tensor is contiguous, and at any address."""
    case = Case(samples=70, sizes=(8, 5, 3))
    arguments = case.build()
    flat = torch.empty(arguments[0].numel() + 1)
    view = flat[1:].view(arguments[0].shape).copy_(arguments[0])
    logits, bound = exact_tail(arguments, "shift", case.scale, "float32", PRODUCTS[tails.name])
    ours = score(tails, case, (view, *arguments[1:]), "shift", "float32")
    assert_counts(ours, logits, bound, *arguments[4:6])


def test_too_many_classes_for_triton_are_named(triton: Backend) -> None:
    with pytest.raises(ValueError, match="at most 1024 classes, got 1025"):
        score_tail(
            triton, *on_device(Case(sizes=(4, 1025), samples=3).build()), "shift", 1.0, "float32", ["correct"]
        )


def test_own_weights_say_how_many_candidates(gpu: Backend) -> None:
    x, labels = torch.randn(5, 4, device=DEVICE), torch.zeros(5, dtype=torch.int64, device=DEVICE)
    groups = torch.ones(1, 5, dtype=torch.bool, device=DEVICE)
    weight = torch.randn(3, 4, device=DEVICE)
    tail = gpu.prepare_tail(TailProblem(x, (Layer(weight),), labels, groups))
    with pytest.raises(ValueError, match="candidates: expected 1"):
        tail.score(Candidates(5, EditRule(), [None], [None], [weight[None]]), Wanted(["correct"]))


def test_no_samples_or_groups(gpu: Backend) -> None:
    counts = tally_logits(gpu,
        torch.zeros(2, 0, 3, device=DEVICE), torch.zeros(0, dtype=torch.int64, device=DEVICE),
        torch.zeros(2, 0, dtype=torch.bool, device=DEVICE), ["correct", "loss"],
    )  # fmt: skip
    assert counts.correct.tolist() == [[0, 0], [0, 0]]
    assert counts.loss.tolist() == [[0.0, 0.0], [0.0, 0.0]]


# ------------------------------------------------------------------------------- the CPU in a GPU's place


@pytest.fixture
def shim() -> Iterator[ctypes.CDLL]:
    if DEVICE == "cuda":
        pytest.skip("there is a GPU")
    library = ctypes.CDLL(str(cuda_on_host().__file__))
    yield library
    library.shim_set_order(0)
    library.shim_set_capability(80)


@pytest.mark.slow
@pairwise(
    name=["odd sizes", "all layers", "own weights with factors", "four slices"],
    order=range(1, 6),
    capability=[80, 90],
)
def test_threads_may_run_in_any_order(
    name: str, order: int, capability: int, shim: ctypes.CDLL, assert_counts: Callable[..., float]
) -> None:
    """What lacks a barrier is right in one order and wrong in another."""
    shim.shim_set_order(order)
    shim.shim_set_capability(capability)
    four_slices = Case(samples=70, sizes=(100, 9, 2), candidates=2)  # of inputs: buffers are used again
    ops, case = gpu_backend("cuda"), CASES.get(name, four_slices)
    arguments = case.build()
    for precision in ("float32", "bfloat16"):
        logits, bound = exact_tail(arguments, "mask", case.scale, precision, "tf32x3")
        assert_counts(score(ops, case, arguments, "mask", precision), logits, bound, *arguments[4:6])


@pytest.mark.parametrize("order", range(1, 4))
def test_edits_in_any_order(order: int, shim: ctypes.CDLL) -> None:
    """More tiles than blocks: each takes several, whose factors lie in the same place."""
    shim.shim_set_order(order)
    random = torch.Generator().manual_seed(0)
    weight, left, right = (
        torch.randn(*size, generator=random) for size in ((40, 129, 70), (40, 129, 3), (40, 3, 70))
    )
    expected = weight.clone()
    REFERENCE.edit_(expected, left, right, EditRule("shift", 1.0))
    gpu_backend("cuda").edit_(weight, left, right, EditRule("shift", 1.0))
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-5)


def test_the_shim_finds_what_it_is_there_for(shim: ctypes.CDLL) -> None:
    assert shim.shim_finds_a_missing_thread() == 1
    assert shim.shim_shows_a_missing_wait() == 0
    shim.shim_set_order(1)
    assert shim.shim_shows_a_missing_barrier() > 10


def test_many_items_for_one_block(shim: ctypes.CDLL, assert_counts: Callable[..., float]) -> None:
    """More candidates than blocks: blocks take several, and start each from zero."""
    case = Case(samples=140, sizes=(4, 3, 2), rank=1, candidates=31, parts=LOGIT_PARTS)
    arguments = case.build()
    logits, bound = exact_tail(arguments, "shift", case.scale, "float32", "tf32x3")
    assert_counts(
        score(gpu_backend("cuda"), case, arguments, "shift", "float32"), logits, bound, *arguments[4:6]
    )


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_what_the_kernels_lack_is_counted_in_general(gpu: Backend, world: str) -> None:
    case = Case(samples=140, sizes=(9, 5, 3), candidates=3)
    parts = ["correct", "recalled", "nearest", "lower_loss"]
    x, weights, biases, functions, labels, groups, lefts, rights = case.build()
    flat = (x, weights, biases, functions, labels, groups, lefts, rights, world, case.scale, "float32", parts)
    fit = halves(labels)
    expected = score_tail_ref(*from_schema(*flat, 16, 4.0, fit))
    problem, candidates, wanted = from_schema(*on_device((*flat, 16, 4.0, fit)))
    ours = gpu.prepare_tail(problem).score(candidates, wanted)
    for part in parts:
        mine, theirs = getattr(ours, part).cpu(), getattr(expected, part)
        assert (mine - theirs).abs().max() <= (2 if part != "lower_loss" else 40), part
    only = gpu.prepare_tail(problem).score(candidates, wanted.only(["recalled"]))
    assert torch.equal(only.recalled.cpu(), ours.recalled.cpu())
    assert only.correct.numel() == 0
