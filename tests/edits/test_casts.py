"""The same model in another precision is recognized, and edited where the caller says so."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rledit.edits.edit import Edit
from rledit.storage import fingerprint, fingerprints

HALVES = [torch.float16, torch.bfloat16]
ALL = [*HALVES, torch.float32, torch.float64]


def model_of(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(9, 7), nn.Conv2d(3, 4, 2), nn.Linear(4, 2)).to(dtype)


def weights_of(model: nn.Module, names: tuple[str, ...] = ("0", "1")) -> dict[str, Tensor]:
    return {name: model.get_submodule(name).weight for name in names}  # type: ignore[misc]


def edit_for(model: nn.Module, size: float = 0.5, casts: bool = True) -> Edit:
    weights = weights_of(model)
    factors = {
        name: (size * torch.randn(len(weight), 2), torch.randn(2, weight[0].numel()))
        for name, weight in weights.items()
    }
    return Edit(factors, "shift", 1.0, fingerprint(weights), casts=fingerprints(weights) if casts else None)


def test_fingerprints_are_those_of_the_cast_model() -> None:
    model = model_of()
    prints = fingerprints(weights_of(model))
    assert prints == {
        str(dtype).removeprefix("torch."): fingerprint(weights_of(copy.deepcopy(model).to(dtype)))
        for dtype in ALL
    }
    assert prints["float32"] == fingerprint(weights_of(model))
    big = {"a": torch.randn(3, 700_000)}  # more than is cast at a time
    assert fingerprints(big)["bfloat16"] == fingerprint({"a": big["a"].bfloat16()})


@pytest.mark.parametrize("learned", ALL)
@pytest.mark.parametrize("loaded", ALL)
def test_another_precision_is_said_and_can_be_edited(learned: torch.dtype, loaded: torch.dtype) -> None:
    model = model_of(learned)
    edit = edit_for(model)
    other = copy.deepcopy(model).to(loaded)
    before = copy.deepcopy(other.state_dict())
    if learned != loaded:
        for call in (edit.apply_, lambda model: edit.apply_to_state_dict(model.state_dict())):
            with pytest.raises(ValueError, match=r"learned.*cast=True") as error:
                call(other)
            assert "other weights" not in str(error.value)
            names = {str(dtype).removeprefix("torch.") for dtype in (learned, loaded)}
            assert any(name in str(error.value) for name in names)
    state = edit.apply_to_state_dict(other.state_dict(), cast=True)
    edit.apply_(other, cast=True)
    for name in ("0", "1"):
        assert torch.equal(state[f"{name}.weight"], other.get_submodule(name).weight)  # type: ignore[arg-type]
        assert other.get_submodule(name).weight.dtype == loaded
    edit.apply_(model)
    for name, weight in weights_of(model).items():
        ours = other.get_submodule(name).weight.double()  # type: ignore[operator]
        torch.testing.assert_close(ours, weight.double(), rtol=0.02, atol=0.02)
    edit.revert_(other)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_a_model_with_more_precision_needs_no_record() -> None:
    exact = model_of()
    edit = edit_for(copy.deepcopy(exact).bfloat16(), casts=False)
    with pytest.raises(ValueError, match="there they were bfloat16"):
        edit.apply_(exact)
    edit.apply_(exact, cast=True)


@pytest.mark.parametrize("half", HALVES)
def test_other_weights_are_no_cast(half: torch.dtype) -> None:
    edit = edit_for(model_of())
    other = model_of().to(half)
    near = model_of()
    edit = edit_for(near)
    rounded = copy.deepcopy(near).to(half)
    with torch.no_grad():
        rounded[0].weight[0, 0] = (
            torch.nextafter(rounded[0].weight[0, 0].float(), torch.tensor(9.0)).to(half) + 0.01
        )
    for model in (other, rounded):
        before = fingerprint(weights_of(model))
        for cast in (False, True):
            with pytest.raises(ValueError, match="other weights"):
                edit.apply_(model, cast=cast)
        assert fingerprint(weights_of(model)) == before
        edit.apply_(model, force=True)


def test_casts_are_saved_and_old_files_have_none(tmp_path: Path) -> None:
    model = model_of()
    edit = edit_for(model)
    edit.save(tmp_path / "edit")
    loaded = Edit.load(tmp_path / "edit")
    assert loaded.casts == edit.casts == fingerprints(weights_of(model))
    assert copy.deepcopy(loaded).casts == edit.casts
    loaded.apply_(model.bfloat16(), cast=True)
    edit_for(model_of(), casts=False).save(tmp_path / "old")
    assert Edit.load(tmp_path / "old").casts == {}


def test_an_edit_that_rounding_swallows_is_said() -> None:
    model = model_of()
    small = edit_for(model, size=1e-5)
    with pytest.warns(UserWarning, match=r"'[01]'.*rounding to bfloat16") as said:
        small.apply_(copy.deepcopy(model).bfloat16(), cast=True)
    assert len(said) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit_for(model).apply_(copy.deepcopy(model).bfloat16(), cast=True)
        small.apply_(model)
