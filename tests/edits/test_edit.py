"""An edit changes the weights by its formula, gives the very bits back, and refuses everything else."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rledit.edits.edit import Edit
from rledit.ops.rules import Kind as World
from rledit.storage.fingerprint import fingerprint

WORLDS: list[World] = ["shift", "mask"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.fc1 = nn.Linear(8, 6)
        self.fc2 = nn.Linear(6, 3)


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().contiguous().view(torch.uint8)


def weights_of(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    return {name: model.get_submodule(name).weight for name in names}  # type: ignore[misc]


def make(model: nn.Module, names: list[str], world: World = "shift", rank: int = 2, **kwargs: Any) -> Edit:
    factors = {}
    for name, weight in weights_of(model, names).items():
        rows, columns = weight.flatten(1).shape
        factors[name] = (torch.randn(rows, rank), torch.randn(rank, columns))
    return Edit(factors, world, 0.1, fingerprint(weights_of(model, names)), **kwargs)


def expected(weight: Tensor, factors: tuple[Tensor, Tensor], world: World, scale: float) -> Tensor:
    """The formula in float64."""
    left, right = (f.double().reshape(-1, *f.shape[-2:]) for f in factors)
    matrix = weight.detach().double().flatten(1)
    for t in range(len(left)):
        delta = scale * (left[t] @ right[t])
        matrix = matrix + delta if world == "shift" else matrix * (1 + delta)
    return matrix.reshape(weight.shape)


TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 2e-6, torch.float64: 1e-7}


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.Module, Edit, torch.dtype]:
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    if draw(st.booleans()):
        kernel = draw(st.integers(1, 3))
        layer: nn.Module = nn.Conv2d(columns, rows, kernel)
        inner = columns * kernel * kernel
    else:
        layer, inner = nn.Linear(columns, rows), columns
    model = nn.Sequential(layer).to(dtype)
    rank, steps = draw(st.integers(1, min(rows, inner))), draw(st.integers(0, 3))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    lead = () if steps == 0 else (steps,)
    factors = {"0": (torch.randn(*lead, rows, rank), torch.randn(*lead, rank, inner))}
    if draw(st.booleans()):  # strides must not matter
        factors = {"0": (factors["0"][0].mT.contiguous().mT, factors["0"][1].mT.contiguous().mT)}
    world = draw(st.sampled_from(WORLDS))
    scale = draw(st.floats(-0.5, 0.5))
    return model, Edit(factors, world, scale, fingerprint(weights_of(model, ["0"]))), dtype


@settings(max_examples=60, deadline=None)
@given(cases())
def test_apply_revert_save_load(tmp_path_factory: pytest.TempPathFactory, case: Any) -> None:
    model, edit, dtype = case
    weight: Tensor = model[0].weight
    before, values = bits(weight), weight.detach().clone()

    edit.apply_(model)
    want = expected(values, edit.factors["0"], edit.world, edit.scale)
    size = want.abs().max().item() + 1
    torch.testing.assert_close(
        weight.detach().double(), want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size
    )
    after = bits(weight)
    edit.revert_(model)
    assert torch.equal(bits(weight), before)
    assert model[0].weight is weight
    assert weight.dtype == dtype

    path = tmp_path_factory.getbasetemp() / "edit.safetensors"
    edit.save(path)
    loaded = Edit.load(path)
    assert loaded.scale == edit.scale
    assert (loaded.world, loaded.fingerprint, loaded.steps, loaded.rank) == (
        edit.world,
        edit.fingerprint,
        edit.steps,
        edit.rank,
    )
    assert torch.equal(bits(loaded.factors["0"][0]), bits(edit.factors["0"][0]))
    loaded.apply_(model)
    assert torch.equal(bits(weight), after)


@pytest.mark.parametrize("world", WORLDS)
def test_zero_factors_are_the_identity(world: World) -> None:
    model = Net()
    before = fingerprint(dict(model.state_dict()))
    zero = {"fc1": (torch.zeros(6, 2), torch.randn(2, 8))}
    Edit(zero, world, 1.0, fingerprint(weights_of(model, ["fc1"]))).apply_(model)
    assert fingerprint(dict(model.state_dict())) == before


@pytest.mark.parametrize("world", WORLDS)
def test_several_targets_and_nothing_else(world: World) -> None:
    model = Net()
    model.conv = model.conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = copy.deepcopy(model.state_dict())
    edit = make(model, ["conv", "fc1"], world)
    edit.apply_(model)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"conv.weight", "fc1.weight"}
    torch.testing.assert_close(
        model.conv.weight.double(), expected(before["conv.weight"], edit.factors["conv"], world, 0.1)
    )
    assert torch.equal(edit.apply_to_state_dict(before)["conv.weight"], model.conv.weight)
    edit.revert_(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_edit_keeps_its_own_factors() -> None:
    left, right = torch.ones(3, 1), torch.ones(1, 6)
    edit = Edit({"fc2": (left, right)}, "shift", 1.0, "sha256:0")
    left.zero_()
    assert edit.factors["fc2"][0].sum() == 3


def test_deltas() -> None:
    model = Net().bfloat16()
    edit = make(model, ["conv", "fc2"], "mask")
    deltas = edit.deltas(weights_of(model, ["conv", "fc1", "fc2"]))
    assert {k: tuple(v.shape) for k, v in deltas.items()} == {"conv": (5, 18), "fc2": (3, 6)}
    want = expected(model.fc2.weight, edit.factors["fc2"], "mask", 0.1) - model.fc2.weight.double()
    torch.testing.assert_close(deltas["fc2"].double(), want, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="expected 'conv'"):
        edit.deltas({})


def test_twice_is_refused_until_reverted() -> None:
    model = Net()
    edit = make(model, ["fc1"])
    state = copy.deepcopy(model.state_dict())
    edit.apply_(model)
    after = bits(model.fc1.weight)
    for force in (False, True):
        with pytest.raises(RuntimeError, match=r"already applied.*revert_"):
            edit.apply_(model, force=force)
    assert torch.equal(bits(model.fc1.weight), after)
    edit.revert_(model)
    with pytest.raises(RuntimeError, match="not applied to this model object"):
        edit.revert_(model)
    edit.apply_(model)
    model.load_state_dict(state)  # the user went back in another way
    edit.apply_(model)
    assert torch.equal(bits(model.fc1.weight), after)


def test_records_are_per_model_object_and_die_with_it() -> None:
    model = Net()
    edit = make(model, ["fc1"])
    twin = copy.deepcopy(model)
    edit.apply_(model)
    with pytest.raises(RuntimeError, match="not applied to this model object"):
        edit.revert_(twin)
    edit.apply_(twin)
    assert len(edit._applied) == 2
    del twin
    gc.collect()
    assert len(edit._applied) == 1
    assert len(copy.deepcopy(edit)._applied) == 0


def test_revert_sees_foreign_changes() -> None:
    model = Net()
    before = bits(model.fc1.weight)
    edit = make(model, ["fc1"])
    edit.apply_(model)
    with torch.no_grad():
        model.fc1.weight[0, 0] += 1
    with pytest.raises(RuntimeError, match="changed since apply_"):
        edit.revert_(model)
    edit.revert_(model, force=True)
    assert torch.equal(bits(model.fc1.weight), before)


def test_other_weights_need_force() -> None:
    model = Net()
    edit = make(model, ["fc1"])
    other = Net()
    before = bits(other.fc1.weight)
    with pytest.raises(ValueError, match=r"expected sha256:.*found sha256:.*force=True") as info:
        edit.apply_(other)
    assert edit.fingerprint in str(info.value)
    assert torch.equal(bits(other.fc1.weight), before)
    with pytest.raises(ValueError, match="other weights"):
        edit.apply_to_state_dict(other.state_dict())
    edited = edit.apply_to_state_dict(other.state_dict(), force=True)
    assert torch.equal(bits(other.fc1.weight), before)
    edit.apply_(other, force=True)
    assert torch.equal(edited["fc1.weight"], other.fc1.weight)
    assert edited["fc2.weight"] is not None
    edit.revert_(other)
    assert torch.equal(bits(other.fc1.weight), before)


def test_wrong_models_are_refused() -> None:
    factors = {"fc9": (torch.ones(6, 1), torch.ones(1, 8))}
    edit = Edit(factors, "shift", 1.0, "sha256:0")
    with pytest.raises(ValueError, match=r"'fc9'.*this model has conv, fc1, fc2"):
        edit.apply_(Net(), force=True)
    with pytest.raises(
        ValueError, match=r"'fc9\.weight'.*candidates: conv\.weight, fc1\.weight, fc2\.weight"
    ):
        edit.apply_to_state_dict(Net().state_dict())
    norm = Edit({"norm": (torch.ones(5, 1), torch.ones(1, 1))}, "shift", 1.0, "sha256:0")
    with pytest.raises(TypeError, match=r"'norm' is a BatchNorm2d, expected Linear, Conv2d or"):
        norm.apply_(Net(), force=True)
    with pytest.raises(TypeError, match="2-D or 4-D"):
        norm.apply_to_state_dict(Net().state_dict(), force=True)
    shape = Edit({"fc2": (torch.ones(6, 1), torch.ones(1, 8))}, "shift", 1.0, "sha256:0")
    with pytest.raises(ValueError, match=r"expects a weight of 6 x 8, got \(3, 6\)"):
        shape.apply_(Net(), force=True)

    model = Net()
    edit = make(model, ["fc1"])
    nn.utils.parametrizations.weight_norm(model.fc1)
    with pytest.raises(TypeError, match="is parametrized; remove the parametrization"):
        edit.apply_(model, force=True)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="shares its weight"):
        make(tied, ["0", "1"]).apply_(tied)
    with pytest.raises(ValueError, match="on the meta device"):
        edit.apply_(Net().to("meta"), force=True)
    with pytest.raises(ValueError, match="on the meta device"):
        edit.apply_to_state_dict(Net().to("meta").state_dict(), force=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_target_leaves_the_others_alone(bad: float) -> None:
    model = Net()
    with torch.no_grad():
        model.fc2.weight[1, 2] = bad
    edit = make(model, ["fc1", "fc2"])
    before = fingerprint(dict(model.state_dict()))
    for force in (False, True):
        with pytest.raises(ValueError, match=r"'fc2'.*NaN or infinity"):
            edit.apply_(model, force=force)
    assert fingerprint(dict(model.state_dict())) == before


def test_overflow_of_a_half_type_is_refused() -> None:
    model = Net().half()
    big = {"fc1": (torch.full((6, 1), 1e3), torch.full((1, 8), 1e3))}
    edit = Edit(big, "shift", 1.0, fingerprint(weights_of(model, ["fc1"])))
    before = bits(model.fc1.weight)
    with pytest.raises(ValueError, match=r"would put NaN or infinity into its torch\.float16"):
        edit.apply_(model)
    assert torch.equal(bits(model.fc1.weight), before)


def test_a_failing_write_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    edit = make(model, ["fc1", "fc2"])
    before = fingerprint(dict(model.state_dict()))
    calls = []

    def failing(self: Tensor, *args: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args)

    original = nn.Parameter.copy_
    monkeypatch.setattr(nn.Parameter, "copy_", failing, raising=False)
    with pytest.raises(KeyboardInterrupt):
        edit.apply_(model)
    monkeypatch.undo()
    assert fingerprint(dict(model.state_dict())) == before


L, R = torch.ones(4, 2), torch.ones(2, 5)
NAN = torch.full((4, 2), float("nan"))


@pytest.mark.parametrize(
    ("left", "right", "error", "text"),
    [
        (L.double(), R, TypeError, r"left: expected a float32 tensor, got torch\.float64"),
        (L, R.tolist(), TypeError, "right: expected a float32 tensor, got list"),
        (NAN, R, ValueError, "left: expected finite"),
        (L, torch.ones(3, 5), ValueError, r"left \(4, 2\) and right \(3, 5\)"),
        (L, torch.ones(1, 2, 5), ValueError, "left"),
        (torch.ones(2, 4, 2), torch.ones(3, 2, 5), ValueError, "T first"),
        (torch.ones(4), R, ValueError, "2 or 3 dimensions"),
        (torch.ones(4, 0), torch.ones(0, 5), ValueError, "rank"),
        (torch.ones(4, 5), torch.ones(5, 5), ValueError, "rank"),
        (torch.ones(0, 4, 2), torch.ones(0, 2, 5), ValueError, "at least one step"),
    ],
)
def test_bad_factors(left: Tensor, right: Tensor, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Edit({"fc1": (left, right)}, "shift", 1.0, "sha256:0")


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="world: expected one of"):
        Edit({"a": (L, R)}, "both", 1.0, "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scale"):
        Edit({"a": (L, R)}, "shift", float("nan"), "x")
    with pytest.raises(ValueError, match="at least one module"):
        Edit({}, "shift", 1.0, "x")
    with pytest.raises(ValueError, match="same number of steps"):
        Edit({"a": (L, R), "b": (L.expand(3, 4, 2), R.expand(3, 2, 5))}, "shift", 1.0, "x")
