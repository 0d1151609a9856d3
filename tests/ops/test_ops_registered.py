"""The ops as torch ops: schemas, fake tensors, dtypes, layouts, and backends by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pairwise import pairwise
from programs import Done, run
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from rledit import _native, ops
from rledit.ops import PROBE_PARTS, TALLY_PARTS, backend
from rledit.ops.score_tail import from_schema

DTYPES = [torch.float32, torch.float64]
WORLDS = ["shift", "mask"]
LOGIT_PARTS = [part for part in TALLY_PARTS if part not in PROBE_PARTS]


def lowrank(dtype: torch.dtype, world: str) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(0)
    weight, left, right = (
        torch.randn(shape, generator=random, dtype=dtype) for shape in [(3, 5, 7), (3, 5, 2), (3, 2, 7)]
    )
    return weight, left, right, world, 0.5


def tail(dtype: torch.dtype, world: str) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=dtype)

    labels = torch.randint(2, (70,), generator=random)
    groups = torch.rand(3, 70, generator=random) < 0.5
    return (
        normal(70, 6), [normal(5, 6), normal(4, 2, 5)], [normal(5), None], ["gelu", "identity"],
        labels, groups, [normal(4, 5, 2), None], [normal(4, 2, 6), None],
        world, 0.5, "float32", list(TALLY_PARTS), 16, 4.0, ops.halves(labels), 0.01,
    )  # fmt: skip


def logits(dtype: torch.dtype) -> tuple[Any, ...]:
    _, _, _, _, labels, groups, *_ = tail(dtype, "shift")
    random = torch.Generator().manual_seed(1)
    values = torch.randn(4, 70, 2, generator=random, dtype=dtype)
    return values, labels, groups, LOGIT_PARTS, 16, 4.0


def features(dtype: torch.dtype) -> tuple[Any, ...]:
    _, _, _, _, labels, groups, *_ = tail(dtype, "shift")
    values = torch.randn(4, 70, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return values, labels, groups, ops.halves(labels), 0.01, list(PROBE_PARTS)


def strided(value: Any) -> Any:
    """The same numbers behind strides that are not dense."""
    if isinstance(value, Tensor) and value.dim() > 0:
        return torch.stack([value, value], -1)[..., 0]
    return [strided(item) for item in value] if isinstance(value, list) else value


def assert_same(ours: Any, theirs: Any) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.slow
@pairwise(name=["apply_lowrank_", "score_tail", "tally_logits", "tally_features"], dtype=DTYPES, world=WORLDS)
def test_opcheck(name: str, dtype: torch.dtype, world: str) -> None:
    arguments = {
        "apply_lowrank_": lowrank(dtype, world),
        "score_tail": tail(dtype, world),
        "tally_logits": logits(dtype),
        "tally_features": features(dtype),
    }[name]
    torch.library.opcheck(getattr(torch.ops.rledit, name).default, arguments)


@pytest.mark.parametrize("wanted", [["correct"], ["loss", "histogram"], list(TALLY_PARTS)])
def test_fake_tensors_have_the_real_shapes(wanted: list[str]) -> None:
    arguments = list(tail(torch.float32, "shift"))
    arguments[11] = wanted
    real = ops.score_tail(*arguments)
    values, deep = list(logits(torch.float32)[:3]), list(features(torch.float32)[:5])
    mode = FakeTensorMode()

    def fake(value: Any) -> Any:
        if isinstance(value, list):
            return [fake(item) for item in value]
        return mode.from_tensor(value) if isinstance(value, Tensor) else value

    with mode:
        imagined = ops.score_tail(*fake(arguments))
        of_logits = [part for part in wanted if part not in PROBE_PARTS]
        tallied = ops.tally_logits(*fake([*values, of_logits, 16]))
        probes = [part for part in wanted if part in PROBE_PARTS]
        probed = ops.tally_features(*fake(deep), probes)
    told = tallied._replace(recalled=probed[0], nearest=probed[1])
    for counts in (imagined, told):
        assert [part.shape for part in counts] == [part.shape for part in real]
        assert [part.dtype for part in counts] == [part.dtype for part in real]


@pytest.mark.parametrize("world", WORLDS)
def test_float64_runs_the_reference(world: str) -> None:
    wide = tail(torch.float64, world)
    assert_same(ops.score_tail(*wide), ops.score_tail_ref(*from_schema(*wide)))
    values = logits(torch.float64)
    assert_same(ops.tally_logits(*values), ops.tally_logits_ref(*values))
    deep = features(torch.float64)
    assert_same(ops.tally_features(*deep), ops.tally_features_ref(*deep))
    weight, *rest = lowrank(torch.float64, world)
    expected = weight.clone()
    ops.apply_lowrank_ref(expected, *rest)
    ops.apply_lowrank_(weight, *rest)
    assert torch.equal(weight, expected)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_gives_the_same(dtype: torch.dtype, world: str) -> None:
    dense = tail(dtype, world)
    assert_same(ops.score_tail(*map(strided, dense)), ops.score_tail(*dense))
    values = logits(dtype)
    assert_same(ops.tally_logits(*map(strided, values)), ops.tally_logits(*values))
    deep = features(dtype)
    assert_same(ops.tally_features(*map(strided, deep[:4]), *deep[4:]), ops.tally_features(*deep))

    weight, *rest = lowrank(dtype, world)
    view = strided(weight)
    assert not view.is_contiguous()
    address = view.data_ptr()
    ops.apply_lowrank_(view, *map(strided, rest))
    ops.apply_lowrank_(weight, *rest)
    assert view.data_ptr() == address
    torch.testing.assert_close(view, weight, rtol=0, atol=0)


def test_compiled_functions_may_call_the_ops() -> None:
    arguments = tail(torch.float32, "mask")

    def doubled(activations: Tensor) -> Tensor:
        return ops.score_tail(2 * activations, *arguments[1:]).correct + 1

    compiled = torch.compile(doubled, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(arguments[0]), doubled(arguments[0]))


def test_one_dtype_for_all() -> None:
    arguments = list(tail(torch.float32, "shift"))
    arguments[1] = [weight.double() for weight in arguments[1]]
    with pytest.raises(TypeError, match=r"weights\[0\].*float32 on the CPU, got torch.float64"):
        ops.score_tail(*arguments)


BAD = {
    r"world: expected one of 'shift', 'mask'; got 'mosk'": {8: "mosk"},
    r"precision: expected one of float32, bfloat16": {10: "float16"},
    r"wanted: expected some of correct.*'corect'": {11: ["corect"]},
    r"activations: expected shape \[S, I\]": {0: torch.zeros(3)},
    r"one entry per layer": {3: ["gelu"]},
    r"nonlinearities\[0\]: expected one of identity, relu": {3: ["elu", "identity"]},
    r"weights\[0\]: expected shape \[O, 6\]": {1: [torch.zeros(5, 7), torch.zeros(2, 5)]},
    r"biases\[0\]: expected shape \[5\]": {2: [torch.zeros(4), None]},
    r"expected both factors or none": {7: [None, None]},
    r"lefts\[0\]: expected shape \[4, 5, R\]": {6: [torch.zeros(4, 6, 2), None]},
    r"rights\[0\]: expected shape \[4, 2, 6\]": {7: [torch.zeros(4, 3, 6), None]},
    r"one number of candidates, got \[4, 3\]": {6: [torch.zeros(3, 5, 2), None]},
    r"labels: expected int64 \[70\]": {4: torch.zeros(70)},
    r"labels: expected values in 0\.\.1": {4: torch.full((70,), 2)},
    r"groups: expected bool \[G, 70\]": {5: torch.ones(3, 69, dtype=torch.bool)},
    r"groups: expected at most 64, got 65": {5: torch.ones(65, 70, dtype=torch.bool)},
    r"bins": {12: 0},
    r"margin_limit": {13: -1.0},
    r"fit: expected bool \[70\], got torch.bool \[69\]": {14: torch.ones(69, dtype=torch.bool)},
    r"fit: expected bool \[S\], got torch.int64": {14: torch.ones(70, dtype=torch.int64)},
    r"fit: expected at least one of 70 samples to learn from": {14: torch.zeros(70, dtype=torch.bool)},
    r"recalled needs a probe": {14: None},
    r"ridge: expected a positive number, got 0": {15: 0.0},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message: str, dtype: torch.dtype) -> None:
    arguments = list(tail(dtype, "shift"))
    for index, value in BAD[message].items():
        arguments[index] = value
    with pytest.raises(ValueError, match=message):
        ops.score_tail(*arguments)


def test_histograms_need_two_classes() -> None:
    arguments = [torch.zeros(1, 70, 3), *logits(torch.float32)[1:]]
    for function in (ops.tally_logits, ops.tally_logits_ref):
        with pytest.raises(ValueError, match="histogram needs 2 classes, got 3"):
            function(*arguments)


def test_logits_alone_have_no_features() -> None:
    arguments = [*logits(torch.float32)[:3], ["correct", "nearest"]]
    for function in (ops.tally_logits, ops.tally_logits_ref):
        with pytest.raises(ValueError, match="nearest needs features, which tally_logits is not given"):
            function(*arguments)


BAD_FEATURES = {
    r"features: expected shape \[N, S, D\], D at least 1, got \[4, 70, 0\]": {0: torch.zeros(4, 70, 0)},
    r"features: expected shape \[N, S, D\]": {0: torch.zeros(70, 5)},
    r"labels: expected int64 \[70\]": {1: torch.zeros(69, dtype=torch.int64)},
    r"labels: expected values": {1: torch.full((70,), -1)},
    r"groups: expected bool": {2: torch.zeros(3, 70)},
    r"fit: expected bool \[70\]": {3: torch.zeros(70)},
    r"fit: expected at least one": {3: torch.zeros(70, dtype=torch.bool)},
    r"ridge: expected a positive number, got -1": {4: -1.0},
    r"wanted: expected some of recalled, nearest; got 'correct'": {5: ["correct"]},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("message", BAD_FEATURES)
def test_bad_features_are_named(message: str, dtype: torch.dtype) -> None:
    arguments = list(features(dtype))
    for index, value in BAD_FEATURES[message].items():
        arguments[index] = value.to(dtype) if index == 0 else value
    with pytest.raises(ValueError, match=message):
        ops.tally_features(*arguments)
    with pytest.raises(ValueError, match=message):
        ops.tally_features_ref(*arguments)


def test_factors_that_do_not_fit() -> None:
    weight, left, right, *_ = lowrank(torch.float32, "shift")
    for arguments, message in [
        ((weight[0], left, right), r"weight: expected shape \[N, O, I\]"),
        ((weight, left[:2], right), r"left: expected shape \[3, 5, R\]"),
        ((weight, left, right[:, :1]), r"right: expected shape \[3, 2, 7\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.apply_lowrank_(*arguments, "shift", 1.0)


def test_backend_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLEDIT_BACKEND", raising=False)
    assert backend().name == "native"
    assert backend("reference").name == "reference"
    with pytest.raises(ValueError, match="expected one of auto, reference, native, triton, cuda; got 'tpu'"):
        backend("tpu")
    with pytest.raises(RuntimeError, match=r"'cuda' cannot be used, this build of rledit has no CUDA ops"):
        backend("cuda")
    monkeypatch.setenv("RLEDIT_BACKEND", "reference")
    assert backend("auto").name == "reference"
    assert backend("native").name == "native"  # only "auto" asks the environment
    monkeypatch.setenv("RLEDIT_BACKEND", "tpu")
    with pytest.raises(ValueError, match="'tpu \\(from RLEDIT_BACKEND\\)'"):
        backend()


def run_with_isa(isa: str) -> Done:
    program = "import rledit.ops; print(rledit.ops.native._native.active_isa())"
    return run(program, variables={"RLEDIT_CPU_ISA": isa})


@pytest.mark.slow
def test_the_environment_forces_an_instruction_set() -> None:
    done = run_with_isa("portable")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "portable"
    failed = run_with_isa("mmx")
    assert failed.returncode != 0
    available = ", ".join(_native.available_isas())
    assert f"ValueError: RLEDIT_CPU_ISA: isa: this machine has {available}; got 'mmx'" in failed.stderr
