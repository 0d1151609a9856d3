"""Models on the disk are edited file to file: same result as in memory, all names, shards, little memory."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import run
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from rledit.edits import Edit, apply_to_file
from rledit.ops import rules
from rledit.storage import fingerprint, fingerprints, read_tensors, write_tensors

METADATA = {"format": "pt", "a": "é"}


def make_edit(state: dict[str, Tensor], *targets: str, world: str = "shift", rank: int = 2) -> Edit:
    weights = {name: state[f"{name}.weight"] for name in targets}
    factors = {
        name: (torch.randn(len(weight), rank), torch.randn(rank, weight[0].numel()))
        for name, weight in weights.items()
    }
    return Edit(factors, world, 0.3, fingerprint(weights), casts=fingerprints(weights))


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {
        "fc.weight": torch.randn(5, 4),
        "fc.bias": torch.randn(5),
        "conv.weight": torch.randn(3, 2, 2, 2),
        "half.weight": torch.randn(3, 7).bfloat16(),
        "steps": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "mask": torch.tensor([True, False, True]),
    }


@pytest.fixture
def file(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    write_tensors(tmp_path / "model.safetensors", state, METADATA)
    return tmp_path / "model.safetensors"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_equal(path: Path, expected: dict[str, Tensor]) -> None:
    found = load_file(path)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_as_in_memory(file: Path, state: dict[str, Tensor], world: str) -> None:
    edit = make_edit(state, "conv", "half", "fc", world=world)
    out = file.with_name("out")
    done = apply_to_file(edit, file, out)
    assert_equal(out, edit.apply_to_state_dict(state))
    assert read_tensors(out)[1] == METADATA
    assert done.keys == {name: f"{name}.weight" for name in edit.targets}
    assert done.written == [out]
    write_tensors(file.with_name("same"), edit.apply_to_state_dict(state), METADATA)
    assert file.with_name("same").read_bytes() == out.read_bytes()


def test_large_weights_go_through_in_pieces(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float16, torch.float64):
        state = {"a.weight": torch.randn(1100, 2001).to(dtype), "b": torch.randn(3_000_001)}
        edit = make_edit(state, "a")
        save_file(state, tmp_path / "model")
        apply_to_file(edit, tmp_path / "model", tmp_path / "out", overwrite=True)
        assert_equal(tmp_path / "out", edit.apply_to_state_dict(state))


def test_a_rule_of_ones_own_gets_whole_matrices(
    file: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def centered(weight: Tensor, delta: Tensor) -> None:
        weight.add_(delta - delta.mean())

    kind = rules.RuleKind("W + centered", centered, relative=False)
    monkeypatch.setitem(rules.KINDS, "centered", kind)
    monkeypatch.setattr("rledit.edits.weights._BLOCK", 8)
    edit = make_edit(state, "fc", world="centered")
    apply_to_file(edit, file, file.with_name("out"))
    left, right = edit.factors["fc"]
    delta = 0.3 * (left @ right)
    torch.testing.assert_close(
        load_file(file.with_name("out"))["fc.weight"], state["fc.weight"] + delta - delta.mean()
    )


def test_tied_weights_in_a_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    state |= {"head.weight": state["fc.weight"].clone(), "turned.weight": state["fc.weight"].T.contiguous()}
    state |= {"zero.weight": torch.zeros(4, 4), "also_zero.weight": torch.zeros(4, 4)}
    save_file(state, tmp_path / "model")
    edit = make_edit(state, "fc")
    done = apply_to_file(edit, tmp_path / "model", tmp_path / "out")
    assert done.tied == {"fc": ["head.weight"]}
    assert_equal(tmp_path / "out", edit.apply_to_state_dict(state, tied=True))
    apply_to_file(edit, tmp_path / "model", tmp_path / "out", tied=False, overwrite=True)
    assert_equal(tmp_path / "out", edit.apply_to_state_dict(state, tied=False))
    with pytest.raises(ValueError, match=r"'fc' and 'head' are one tensor"):
        apply_to_file(make_edit(state, "fc", "head"), tmp_path / "model", tmp_path / "new")

    zero = make_edit(state, "zero")
    with pytest.raises(ValueError, match=r"'also_zero.weight' and 'zero.weight'.*--tied yes"):
        apply_to_file(zero, tmp_path / "model", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    apply_to_file(zero, tmp_path / "model", tmp_path / "new", tied=False)
    assert not load_file(tmp_path / "new")["also_zero.weight"].any()
    apply_to_file(zero, tmp_path / "model", tmp_path / "new", tied=True, overwrite=True)
    assert load_file(tmp_path / "new")["also_zero.weight"].any()


def test_names_that_a_file_dropped(tmp_path: Path) -> None:
    model = nn.ModuleDict({"fc": nn.Linear(4, 3), "other": nn.Linear(4, 3)})
    model["head"] = model["fc"]
    save_model(model, str(tmp_path / "model"))  # keeps one of the two names
    kept = {"fc", "head"} & {key.partition(".")[0] for key in load_file(tmp_path / "model")}
    assert len(kept) == 1
    for target in ("fc", "head"):
        edit = make_edit(dict(model.state_dict()), target)
        done = apply_to_file(edit, tmp_path / "model", tmp_path / target)
        assert done.keys == {target: f"{kept.copy().pop()}.weight"}
        left, right = edit.factors[target]
        torch.testing.assert_close(
            load_file(tmp_path / target)[done.keys[target]],
            model["fc"].weight.detach() + 0.3 * (left @ right),
        )


def test_another_precision(tmp_path: Path, state: dict[str, Tensor]) -> None:
    edit = make_edit(state, "fc", "conv")
    half = {key: value.half() for key, value in state.items() if value.is_floating_point()}
    save_file(half, tmp_path / "model")
    with pytest.raises(ValueError, match=r"cast to float16.*rledit apply --cast"):
        apply_to_file(edit, tmp_path / "model", tmp_path / "out")
    assert names(tmp_path) == ["model"]
    apply_to_file(edit, tmp_path / "model", tmp_path / "out", cast=True)
    assert_equal(tmp_path / "out", edit.apply_to_state_dict(half, cast=True))


def test_out_may_be_the_model_if_one_says_so(file: Path, state: dict[str, Tensor]) -> None:
    edit = make_edit(state, "fc")
    before = file.read_bytes()
    link = file.with_name("link")
    link.symlink_to(file)
    for out in (file, link):
        with pytest.raises(FileExistsError, match=r"is the model itself.*--overwrite"):
            apply_to_file(edit, file, out)
    assert file.read_bytes() == before
    apply_to_file(edit, file, link, overwrite=True)
    assert link.is_symlink()
    assert_equal(file, edit.apply_to_state_dict(state))


def test_what_is_refused_leaves_nothing(file: Path, state: dict[str, Tensor]) -> None:
    folder = file.parent
    edit = make_edit(state, "fc")
    torch.save(state, folder / "pickle.pt")
    (folder / "folder").mkdir()
    (folder / "exists").write_text("mine")
    (folder / "cut").write_bytes(file.read_bytes()[:-1])
    before = names(folder)
    huge = Edit({"half": (torch.full((3, 1), 3e38), torch.full((1, 7), 9.0))}, "shift", 1.0, "sha256:0")
    cases: list[tuple[Edit, Any, Any, type[Exception], str]] = [
        (edit, "none", "out", FileNotFoundError, "there is no file or folder"),
        (edit, "pickle.pt", "out", ValueError, "never reads pickles"),
        (edit, "cut", "out", ValueError, "truncated"),
        (edit, file, "no/such/out", FileNotFoundError, "out: the folder .*no/such does not exist"),
        (edit, file, "folder", IsADirectoryError, "is a folder; the model is a file"),
        (edit, file, "exists", FileExistsError, "exists; overwrite=True"),
        (make_edit({"fc.weight": torch.ones(5, 4)}, "fc"), file, "out", ValueError, "other weights"),
        (make_edit({"no.weight": torch.ones(5, 4)}, "no"), file, "out", ValueError, "no tensor 'no.weight'"),
    ]
    for one, model, out, error, text in cases:
        with pytest.raises(error, match=text):
            apply_to_file(one, folder / model, folder / out)
        assert names(folder) == before
    with pytest.raises(ValueError, match="NaN or infinity"):
        apply_to_file(huge, file, folder / "exists", force=True, overwrite=True)
    assert names(folder) == before
    assert (folder / "exists").read_text() == "mine"


# --- shards ---


@pytest.fixture
def sharded(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    """As Hugging Face writes a large model, with a tied weight in another shard."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    state["head.weight"] = state["fc.weight"].clone()
    parts = [
        ["fc.weight", "fc.bias", "steps"],
        ["conv.weight", "half.weight"],
        ["head.weight", "empty", "mask"],
    ]
    weight_map = {}
    for number, keys in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-00003.safetensors"
        save_file({key: state[key] for key in keys}, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(keys, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.model").write_text("t")
    (folder / "pytorch_model.bin").write_text("old weights")
    (folder / "deep").mkdir()
    return folder


def load_folder(folder: Path) -> dict[str, Tensor]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return {key: load_file(folder / name)[key] for key, name in index["weight_map"].items()}


@pytest.mark.parametrize("by_index", [False, True])
def test_a_folder_of_shards(sharded: Path, state: dict[str, Tensor], by_index: bool) -> None:
    out = sharded.with_name("out")
    edit = make_edit(state, "fc")
    model = sharded / "model.safetensors.index.json" if by_index else sharded
    done = apply_to_file(edit, model, out)
    expected = edit.apply_to_state_dict(state, tied=True)
    found = load_folder(out)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert done.tied == {"fc": ["head.weight"]}
    assert [path.name[:11] for path in done.written] == ["model-00001", "model-00003"]
    assert set(names(sharded)) - set(names(out)) == {"pytorch_model.bin", "deep"}
    for name in ("model-00002-of-00003.safetensors", "model.safetensors.index.json", "tokenizer.model"):
        assert (out / name).read_bytes() == (sharded / name).read_bytes()
        assert not (out / name).samefile(sharded / name)
    with pytest.raises(FileExistsError, match=r"is not empty.*--overwrite"):
        apply_to_file(edit, sharded, out)
    (out / "notes.csv").write_text("mine")
    apply_to_file(edit, sharded, out, overwrite=True)
    assert (out / "notes.csv").read_text() == "mine"
    (out / "model.safetensors").write_text("loaded before any shard")
    with pytest.raises(FileExistsError, match=r"other weights as well \('model.safetensors'\)"):
        apply_to_file(edit, sharded, out, overwrite=True)


def test_shards_in_place(sharded: Path, state: dict[str, Tensor]) -> None:
    edit = make_edit(state, "conv", "fc")
    before = names(sharded)
    with pytest.raises(FileExistsError, match="is the model itself"):
        apply_to_file(edit, sharded, sharded)
    apply_to_file(edit, sharded, sharded, overwrite=True)
    assert names(sharded) == before
    expected = edit.apply_to_state_dict(state, tied=True)
    found = load_folder(sharded)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_folder_with_one_file(file: Path, state: dict[str, Tensor]) -> None:
    model = file.parent / "folder"
    model.mkdir()
    shutil.copy(file, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    edit = make_edit(state, "fc")
    apply_to_file(edit, model, file.parent / "out")
    assert names(file.parent / "out") == ["config.json", "model.safetensors"]
    assert_equal(file.parent / "out" / "model.safetensors", edit.apply_to_state_dict(state))
    with pytest.raises(NotADirectoryError, match="is a file; the model is a folder"):
        apply_to_file(edit, model, file, overwrite=True)
    shutil.copy(file, model / "edit.safetensors")
    with pytest.raises(ValueError, match="2 safetensors files and no index"):
        apply_to_file(edit, model, file.parent / "new")
    (file.parent / "bare").mkdir()
    (file.parent / "bare" / "pytorch_model.bin").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"no safetensors file.*never reads pickles"):
        apply_to_file(edit, file.parent / "bare", file.parent / "new")
    assert not (file.parent / "new").exists()


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        ("{", ValueError, "not an index of shards"),
        ("[]", ValueError, "not an index of shards"),
        ('{"weight_map": {}}', ValueError, "names no tensors"),
        ('{"weight_map": {"a": "../model.safetensors"}}', ValueError, "next to it"),
        ('{"weight_map": {"a": "/etc/model.safetensors"}}', ValueError, "next to it"),
        ('{"weight_map": {"a": "model.bin"}}', ValueError, "next to it"),
        ('{"weight_map": {"a": "gone.safetensors"}}', FileNotFoundError, r"names the file gone"),
        ('{"weight_map": {"a": "model-00001-of-00003.safetensors"}}', ValueError, "tensors that are not in"),
    ],
)
def test_an_index_that_does_not_fit(
    sharded: Path, state: dict[str, Tensor], index: str, error: type[Exception], text: str
) -> None:
    (sharded / "model.safetensors.index.json").write_text(index)
    with pytest.raises(error, match=text):
        apply_to_file(make_edit(state, "fc"), sharded, sharded.with_name("out"))
    assert not sharded.with_name("out").exists()


def test_damaged_shards(sharded: Path, state: dict[str, Tensor]) -> None:
    edit = make_edit(state, "fc")
    last = sharded / "model-00003-of-00003.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model-00003.*truncated"):
        apply_to_file(edit, sharded, sharded.with_name("out"))
    shutil.copy(sharded / "model-00001-of-00003.safetensors", last)
    with pytest.raises(ValueError, match=r"both .*have a tensor"):
        apply_to_file(edit, sharded, sharded.with_name("out"))
    shutil.copy(sharded / "model.safetensors.index.json", sharded / "model.fp16.safetensors.index.json")
    with pytest.raises(ValueError, match="several indexes"):
        apply_to_file(edit, sharded, sharded.with_name("out"))
    assert not sharded.with_name("out").exists()


def test_an_interrupted_folder_is_not_there(
    sharded: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    before = names(sharded)
    for out in (sharded.with_name("out"), sharded):
        with pytest.raises(KeyboardInterrupt):
            apply_to_file(make_edit(state, "fc"), sharded, out, overwrite=True)
    assert not sharded.with_name("out").exists()
    assert names(sharded) == before


# --- memory ---


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    size = 96 << 20
    state = {"l0.weight": torch.randn(size // 4096, 1024)}  # all of it is edited
    save_file(state, tmp_path / "model")
    make_edit(state, "l0").save(tmp_path / "edit")
    code = """
import resource, sys
from rledit.edits import Edit, apply_to_file
edit = Edit.load(sys.argv[1] + "/edit")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
apply_to_file(edit, sys.argv[1] + "/model", sys.argv[1] + "/out")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 0.8 * size  # 0.5 with the code that is loaded on first use
