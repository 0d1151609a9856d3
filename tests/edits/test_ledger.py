"""A ledger applies its edits in order; after a removal it gives what the others give by themselves."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import rledit
from rledit.edits import Edit, InTurn, Ledger, LedgerFileError, forget_in_turn
from rledit.storage import fingerprint

CLASSES = 4

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, CLASSES)).eval()


def random_edit(
    model: nn.Module, targets: list[str], seed: int, world: str = "shift", scale: float = 0.3
) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    weights = {name: model.get_submodule(name).weight for name in targets}
    factors = {
        name: (
            torch.randn(weight.shape[0], 2, generator=generator),
            torch.randn(2, weight.shape[1], generator=generator),
        )
        for name, weight in weights.items()
    }
    return Edit(factors, world, scale, fingerprint(weights), {"note": seed})  # type: ignore[arg-type]


def in_order(base: nn.Module, *targets: list[str]) -> list[Edit]:
    """Edits that are each learned on those before, in both worlds."""
    model, edits = copy.deepcopy(base), []
    for place, names in enumerate(targets):
        edits.append(random_edit(model, names, place, ("shift", "mask")[place % 2]))
        copy.deepcopy(edits[-1]).apply_(model)
    return edits


def ledger_of(base: nn.Module, edits: list[Edit]) -> Ledger:
    ledger = Ledger(base)
    for name, edit in zip("abcdef", edits, strict=False):
        ledger.append(edit, name, base)
    return ledger


def samples(base: nn.Module, count: int = 200) -> rledit.Samples:
    """That the base is always right about."""
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        labels = base(inputs).argmax(1)
    return rledit.Samples(inputs, labels, {"all": torch.ones(count, dtype=torch.bool)})


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return fingerprint(one) == fingerprint(two)


def test_edits_are_applied_in_order() -> None:
    base = network()
    edits = in_order(base, ["0"], ["2", "0"], ["0"])
    ledger = ledger_of(base, edits)
    by_hand, model = copy.deepcopy(base), copy.deepcopy(base)
    for edit in edits:
        copy.deepcopy(edit).apply_(by_hand)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    ledger.apply_to(model)
    assert same(model.state_dict(), by_hand.state_dict())
    assert same(ledger.apply_to_state_dict(base.state_dict()), by_hand.state_dict())
    assert same(base.state_dict(), before)
    assert ledger.names == ("a", "b", "c")
    assert all(entry.when.endswith("+00:00") and not entry.displaced for entry in ledger.entries)
    with pytest.raises(ValueError, match="without any edit"):
        ledger.apply_to(model)


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_what_is_left_is_what_the_others_give_by_themselves(name: str) -> None:
    base = network()
    edits = in_order(base, ["0"], ["2"], ["4", "0"], ["2"])
    ledger = ledger_of(base, edits)
    ledger.remove(name, base, force=True)
    scratch = copy.deepcopy(base)
    for other, edit in zip("abcd", edits, strict=True):
        if other != name:
            copy.deepcopy(edit).apply_(scratch, force=True)
    model = copy.deepcopy(base)
    ledger.apply_to(model)
    assert same(model.state_dict(), scratch.state_dict())
    assert same(ledger.apply_to_state_dict(base.state_dict()), scratch.state_dict())


def test_the_last_edit_leaves_nothing() -> None:
    base = network()
    ledger = ledger_of(base, in_order(base, ["0"]))
    assert ledger.remove("a", base).displaced == ()
    model = copy.deepcopy(base)
    ledger.apply_to(model)
    assert same(model.state_dict(), base.state_dict())


def test_a_removal_says_which_edits_were_learned_on_the_removed_one() -> None:
    base = network()
    ledger = ledger_of(base, in_order(base, ["0"], ["2"], ["0"], ["0"]))
    assert ledger.removal("d", base).later == ()
    assert ledger.removal("b", base).displaced == ()
    assert ledger.removal("b", base).later == ("c", "d")
    removal = ledger.removal("a", base)
    assert removal.later == ("b", "c", "d")
    assert removal.displaced == ("c", "d")
    with pytest.raises(ValueError, match=r"'c', 'd': learned on weights that included 'a'.*force"):
        ledger.remove("a", base)
    assert ledger.names == ("a", "b", "c", "d")
    ledger.remove("a", base, force=True)
    assert [entry.displaced for entry in ledger.entries] == [False, True, True]
    # From now on only what is new is asked about: d was displaced already.
    assert ledger.removal("c", base).displaced == ()


def test_an_edit_that_finds_its_weights_again_is_no_longer_displaced() -> None:
    base = network()
    (edit,) = in_order(base, ["0"])
    ledger = ledger_of(base, [edit])
    ledger.append(random_edit(base, ["0"], 5), "on the base", base, force=True)
    assert ledger.entries[1].displaced
    ledger.remove("a", base)
    assert not ledger.entries[0].displaced


def test_what_a_removal_changes() -> None:
    base = network()
    edits = in_order(base, ["0"], ["2"])
    ledger, judged = ledger_of(base, edits), samples(base)
    whole, without = copy.deepcopy(base), copy.deepcopy(base)
    for edit in edits:
        copy.deepcopy(edit).apply_(whole)
    copy.deepcopy(edits[1]).apply_(without)
    removal = ledger.remove("a", base, samples=judged)
    assert list(removal.changes) == ["0.weight"]
    change = (without[0].weight - whole[0].weight).detach().double()
    found = removal.changes["0.weight"]
    assert found.norm == pytest.approx(float(change.norm()))
    assert found.largest == pytest.approx(float(change.abs().max()))
    assert found.relative == pytest.approx(float(change.norm() / whole[0].weight.detach().double().norm()))
    inputs = torch.cat(list(judged.batches()))
    for model, figures in ((whole, removal.before), (without, removal.after)):
        right = model(inputs).argmax(1) == judged.labels
        assert figures["all"] == pytest.approx(float(right.double().mean()))
        for label in judged.labels.unique().tolist():
            own = right[judged.labels == label].double().mean()
            assert figures[f"class {label}"] == pytest.approx(float(own))
    assert "0.weight: changes by" in str(removal)
    assert "accuracy of class" in str(removal)
    assert "no weight changes" in str(rledit.edits.Removal("x", {}, (), ()))


def test_an_edit_out_of_place_is_refused() -> None:
    base = network()
    first, second = in_order(base, ["0"], ["0"])
    ledger = Ledger(base)
    with pytest.raises(ValueError, match=r"'second' does not fit.*other weights"):
        ledger.append(second, "second", base)
    assert len(ledger) == 0
    ledger.append(second, "second")  # not checked: there is no base to check with
    model = copy.deepcopy(base)
    with pytest.raises(ValueError, match="'second' does not fit"):
        ledger.apply_to(model)
    assert same(model.state_dict(), base.state_dict())
    ledger = ledger_of(base, [first])
    ledger.append(second, "second", base)
    assert not ledger.entries[1].displaced


def test_all_or_nothing() -> None:
    """The second edit fails; the model must not be left with the first."""
    base = network()
    first, second = in_order(base, ["0"], ["2"])
    second.factors["2"][0][0, 0] = 3e38
    ledger = Ledger(base)
    ledger.append(first, "a")
    ledger.append(second, "b")
    model = copy.deepcopy(base)
    with pytest.raises(ValueError, match=r"'b' does not fit.*NaN or infinity"):
        ledger.apply_to(model)
    assert same(model.state_dict(), base.state_dict())


def test_tied_weights_stay_tied() -> None:
    base = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    base[2].weight = base[0].weight
    ledger = Ledger(base)
    ledger.append(random_edit(base, ["0"], 1), "a", base)
    model = copy.deepcopy(base)
    ledger.apply_to(model)
    assert model[2].weight is model[0].weight
    assert not torch.equal(model[0].weight, base[0].weight)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("a",), ValueError, "already has an edit 'a'"),
        (("",), ValueError, "name: expected some text"),
        ((3,), ValueError, "name: expected some text, got 3"),
    ],
)
def test_names(arguments: tuple[Any], error: type[Exception], message: str) -> None:
    base = network()
    edits = in_order(base, ["0"], ["2"])
    ledger = ledger_of(base, edits[:1])
    with pytest.raises(error, match=message):
        ledger.append(edits[1], *arguments)


def test_wrong_removals() -> None:
    base, other = network(), network()
    with torch.no_grad():
        other[4].bias[0] += 1
    ledger = ledger_of(base, in_order(base, ["0"]))
    with pytest.raises(KeyError, match="no edit 'x'; the ledger has a"):
        ledger.remove("x", base)
    with pytest.raises(ValueError, match="base: expected the model that the ledger was begun with"):
        ledger.remove("a", other)
    with pytest.raises(TypeError, match="expected a module"):
        ledger.remove("a", base.state_dict(), samples=samples(base))


def test_a_file_gives_the_same_ledger(tmp_path: Path) -> None:
    base = network()
    ledger = ledger_of(base, in_order(base, ["0"], ["2", "4"], ["0"]))
    ledger.remove("a", base, force=True)
    ledger.save(tmp_path / "ledger.safetensors")
    loaded = Ledger.load(tmp_path / "ledger.safetensors")
    assert loaded.base == ledger.base
    assert [vars(entry) | {"edit": repr(entry.edit)} for entry in loaded.entries] == [
        vars(entry) | {"edit": repr(entry.edit)} for entry in ledger.entries
    ]
    assert [entry.edit.metrics for entry in loaded.entries] == [{"note": 1}, {"note": 2}]
    one, two = (book.apply_to_state_dict(base.state_dict()) for book in (ledger, loaded))
    assert same(one, two)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "ledger.safetensors").read_bytes()
    Ledger(base).save(tmp_path / "empty.safetensors")
    assert len(Ledger.load(tmp_path / "empty.safetensors")) == 0


def test_files_that_are_no_ledgers(tmp_path: Path) -> None:
    base = network()
    ledger, path = ledger_of(base, in_order(base, ["0"])), tmp_path / "ledger.safetensors"
    ledger.save(path)
    whole = path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for content in (whole[:-5], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(content)
        with pytest.raises(LedgerFileError, match=str(path)):
            Ledger.load(path)
    save_file(tensors, path, {**metadata, "format_version": "9"})
    with pytest.raises(LedgerFileError, match="expected format version 1, got 9"):
        Ledger.load(path)
    entries = json.loads(metadata["entries"])
    entries[0]["displaced"] = True
    save_file(tensors, path, {**metadata, "entries": json.dumps(entries)})
    with pytest.raises(LedgerFileError, match="does not match its hash"):
        Ledger.load(path)
    save_file(base.state_dict(), path)
    with pytest.raises(LedgerFileError, match="not a ledger"):
        Ledger.load(path)
    with pytest.raises(FileNotFoundError):
        Ledger.load(tmp_path / "none")


def suppress(label: int) -> Any:
    """Makes edits of the last layer that turn a class down: its row to minus ten times itself."""

    def make(model: nn.Module, classes: tuple[int, ...]) -> Edit:
        weight = model.get_submodule("4").weight
        left = torch.zeros(CLASSES, 1)
        left[classes[-1]] = 1
        right = -10 * torch.ones(1, weight.shape[1])
        return Edit({"4": (left, right)}, "shift", 1.0, fingerprint({"4": weight}))

    return make


def test_requests_in_turn() -> None:
    base = network()
    with torch.no_grad():
        base[4].bias.copy_(torch.tensor([0.2, 0.1, 0.0, -0.1]))
    inputs = torch.randn(400, 6, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(400) % CLASSES
    judged = rledit.Samples(inputs, labels, {"all": torch.ones(400, dtype=torch.bool)})
    asked: list[tuple[int, ...]] = []
    make = suppress(0)

    def make_edit(model: nn.Module, classes: tuple[int, ...]) -> Edit:
        asked.append(classes)
        return make(model, classes)  # type: ignore[no-any-return]

    done = forget_in_turn(base, [2, 0], make_edit, judged)
    assert asked == [(2,), (2, 0)]
    assert done.ledger.names == ("forget 2", "forget 0")
    model = copy.deepcopy(base)
    for row in range(3):
        right = model(inputs).argmax(1) == labels
        for label in range(CLASSES):
            share = float(right[labels == label].double().mean())
            assert done.recall[row, label] == pytest.approx(share, rel=1e-12)
        if row < 2:
            copy.deepcopy(done.ledger.entries[row].edit).apply_(model)
    left = copy.deepcopy(base)
    done.ledger.apply_to(left)
    assert same(left.state_dict(), model.state_dict())
    assert done.retained()[2] == pytest.approx(float(done.recall[2, [1, 3]].mean()))


def test_what_came_back_is_named() -> None:
    recall = torch.tensor([[0.9, 0.9, 0.9], [0.005, 0.9, 0.9], [0.3, 0.05, 0.9]], dtype=torch.float64)
    done = InTurn((4, 7), Ledger(network()), (4, 7, 9), recall)
    assert done.came_back() == [(2, 4, 0.3)]
    assert done.not_forgotten() == [(7, 0.05)]
    assert done.retained() == pytest.approx([0.9, 0.9, 0.9])
    assert "class 4 came back: 30.00% after forget 7" in str(done)
    assert "class 7 was not forgotten: 5.00% after its own edit" in str(done)
    kept = InTurn((4, 7), done.ledger, (4, 7, 9), torch.where(recall < 0.5, 0.0, recall))
    assert kept.came_back() == kept.not_forgotten() == []
    assert "every class stays forgotten" in str(kept)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([], "expected some different classes"),
        ([1, 1], "expected some different classes"),
        ([1, 8], r"the samples have classes \[0, 1, 2, 3\], got 8"),
        ([0, 1, 2, 3], "nothing is left to retain"),
    ],
)
def test_wrong_requests(requests: list[int], message: str) -> None:
    labels = torch.arange(8) % CLASSES
    judged = rledit.Samples(torch.randn(8, 6), labels, {"all": torch.ones(8, dtype=torch.bool)})
    with pytest.raises(ValueError, match=message):
        forget_in_turn(network(), requests, suppress(0), judged)
