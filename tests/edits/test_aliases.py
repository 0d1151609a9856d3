"""A tensor under several names is edited under all of them, or the call is refused with the names."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rledit.edits.aliases import tells_nothing
from rledit.edits.edit import Edit
from rledit.storage import fingerprint


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 3)
        self.head = self.fc

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.body(x)))
        return out


class TiedWeights(nn.Module):
    """Two modules with one parameter, as an embedding and the layer that undoes it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.decode = nn.Linear(4, 7, bias=False)
        self.decode.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decode(self.embed(x))
        return out


class SharedConv(nn.Module):
    """A block that is used three times, and a convolution in it that is edited."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())
        self.blocks = nn.ModuleList([block, block, block])
        self.last = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.last(x.mean((2, 3)))
        return out


def edit_of(state: dict[str, Tensor], *targets: str) -> Edit:
    weights = {name: state[f"{name}.weight"] for name in targets}
    factors = {n: (torch.ones(len(w), 1), torch.ones(1, w[0].numel())) for n, w in weights.items()}
    return Edit(factors, "shift", 0.5, fingerprint(weights))


CASES = [
    (TwoNames, "fc", ["head"], torch.randn(5, 6)),
    (TwoNames, "head", ["fc"], torch.randn(5, 6)),
    (TiedWeights, "decode", ["embed"], torch.arange(7)),
    (SharedConv, "blocks.1.0", ["blocks.0.0", "blocks.2.0"], torch.randn(3, 2, 4, 4)),
]


@pytest.mark.parametrize(("kind", "target", "others", "inputs"), CASES)
def test_every_name_is_edited(kind: type[nn.Module], target: str, others: list[str], inputs: Tensor) -> None:
    model = kind()
    state = model.state_dict()
    edit = edit_of(state, target)
    edited = edit.apply_to_state_dict(state)
    for other in others:
        assert edited[f"{other}.weight"] is edited[f"{target}.weight"]
    changed = {key for key in state if not torch.equal(edited[key], state[key])}
    assert changed == {f"{name}.weight" for name in (target, *others)}
    fresh = kind()
    fresh.load_state_dict(edited)
    before = model(inputs)
    edit.apply_(model)
    assert torch.equal(fresh(inputs), model(inputs))
    assert not torch.equal(before, model(inputs))
    edit.revert_(model)
    assert torch.equal(before, model(inputs))


@pytest.mark.parametrize(("kind", "target", "others", "inputs"), CASES)
def test_equal_values_in_other_memory_are_yours_to_judge(
    kind: type[nn.Module], target: str, others: list[str], inputs: Tensor
) -> None:
    state = {key: value.clone() for key, value in kind().state_dict().items()}  # as from a file
    edit = edit_of(state, target)
    with pytest.raises(ValueError, match=r"tied=True.*tied=False") as error:
        edit.apply_to_state_dict(state)
    for name in (target, *others):
        assert repr(f"{name}.weight") in str(error.value)
    both = edit.apply_to_state_dict(state, tied=True)
    one = edit.apply_to_state_dict(state, tied=False)
    for other in others:
        assert torch.equal(both[f"{other}.weight"], both[f"{target}.weight"])
        assert one[f"{other}.weight"] is state[f"{other}.weight"]
    assert not torch.equal(one[f"{target}.weight"], state[f"{target}.weight"])


@pytest.mark.parametrize("values", [torch.zeros(4, 4), torch.full((4, 4), 0.5), torch.eye(4)])
def test_tensors_that_are_equal_by_chance_stay(values: Tensor) -> None:
    state = {"a.weight": values, "b.weight": values.clone(), "c.weight": values}
    edited = edit_of(state, "a").apply_to_state_dict(state)
    assert torch.equal(edited["b.weight"], values)
    assert edited["c.weight"] is edited["a.weight"]  # the same memory is no chance
    assert torch.equal(edit_of(state, "a").apply_to_state_dict(state, tied=True)["b.weight"], values + 0.5)


def test_what_tells_nothing() -> None:
    assert tells_nothing([torch.zeros(3)])
    assert tells_nothing([torch.zeros(3), torch.ones(2, 2)])
    assert not tells_nothing([torch.zeros(3), torch.tensor([1.0, 2.0])])
    assert not tells_nothing([torch.randn(2, 2)])


BASE = torch.randn(6, 6)


@pytest.mark.parametrize(
    "view", [BASE.T, BASE[:3], BASE[1:], BASE[:, :2], BASE.reshape(4, 9), BASE.view(torch.int32), BASE[0]]
)
def test_other_views_of_its_memory_are_refused(view: Tensor) -> None:
    state = {"a.weight": BASE, "b.weight": view, "c.weight": torch.randn(6, 6)}
    for tied in (None, True, False):
        with pytest.raises(ValueError, match=r"'b\.weight' and 'a\.weight' share memory"):
            edit_of(state, "a").apply_to_state_dict(state, tied=tied)
    assert "b.weight" in edit_of(state, "c").apply_to_state_dict(state)  # another target's affair


def test_neighbors_in_one_buffer_are_apart() -> None:
    flat = torch.randn(4, 10)
    state = {
        "a.weight": flat[:, :5],
        "b.weight": flat[:, 5:],
        "c.weight": flat[:0, :5],
        "n": flat.flatten()[:0],
    }
    edited = edit_of(state, "a").apply_to_state_dict(state)
    assert edited["b.weight"] is state["b.weight"]
    assert torch.equal(edited["a.weight"], flat[:, :5] + 0.5)
    state = {"a.weight": flat.flatten()[:12].view(3, 4), "b.weight": flat.flatten()[12:24].view(3, 4)}
    assert edit_of(state, "a").apply_to_state_dict(state)["b.weight"] is state["b.weight"]


def test_two_targets_of_one_tensor_are_refused() -> None:
    model = TwoNames()
    edit = edit_of(model.state_dict(), "fc", "head")
    with pytest.raises(ValueError, match=r"'fc' and 'head' are one tensor"):
        edit.apply_to_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="shares its weight"):
        edit.apply_(model)


def test_weights_are_found_under_another_name() -> None:
    model = TiedWeights()
    state = {"embed.weight": model.embed.weight.detach(), "n.weight": torch.randn(7, 4)}  # one name dropped
    edit = edit_of(model.state_dict(), "decode")
    edited = edit.apply_to_state_dict(state)
    assert torch.equal(edited["embed.weight"], state["embed.weight"] + 0.5)
    assert edited["n.weight"] is state["n.weight"]
    assert "decode.weight" not in edited
    with pytest.raises(ValueError, match=r"no tensor 'decode\.weight'.*candidates: n\.weight"):
        edit.apply_to_state_dict({"n.weight": state["n.weight"]}, force=True)


def test_a_model_may_know_the_weights_by_another_name() -> None:
    model = TwoNames()
    edit = edit_of(model.state_dict(), "head", "body")
    part = nn.ModuleDict({"one": nn.Linear(6, 3), "body": model.body, "two": model.fc})
    before = copy.deepcopy(part.state_dict())
    edit.apply_(part)
    assert torch.equal(model.head.weight, before["two.weight"] + 0.5)
    assert torch.equal(model.body.weight, before["body.weight"] + 0.5)
    assert torch.equal(part["one"].weight, before["one.weight"])
    with pytest.raises(RuntimeError, match="already applied"):
        edit.apply_(part)
    edit.revert_(part)
    assert all(torch.equal(value, before[key]) for key, value in part.state_dict().items())
    wrapped = nn.Sequential(model)
    edit.apply_(wrapped)
    assert torch.equal(model.head.weight, before["two.weight"] + 0.5)
    edit.revert_(wrapped)
    with pytest.raises(ValueError, match="no module is called 'head'"):
        edit.apply_(nn.ModuleDict({"body": model.body, "two": nn.Linear(6, 3)}), force=True)


def test_other_things_in_a_state_dict_pass() -> None:
    state = {"a.weight": torch.randn(3, 2), "a._extra_state": {"x": 1}, "s": torch.eye(3).to_sparse()}
    edited = edit_of(state, "a").apply_to_state_dict(state)  # type: ignore[arg-type]
    assert edited["a._extra_state"] == {"x": 1}
    assert edited["s"] is state["s"]


def test_copies_of_a_model_are_apart() -> None:
    model = TwoNames()
    edit = edit_of(model.state_dict(), "fc")
    twin = copy.deepcopy(model)
    edit.apply_(model)
    assert torch.equal(model.head.weight, model.fc.weight)
    assert not torch.equal(model.fc.weight, twin.fc.weight)
