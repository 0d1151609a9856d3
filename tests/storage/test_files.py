"""Writes are all or nothing; reads refuse everything that is not a whole safetensors file."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rledit.storage import Staged, TensorFile, cache_folder
from rledit.storage import tensors as tensors_module
from rledit.storage.files import (
    Json,
    WriteError,
    read_tensors,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)
from rledit.storage.fingerprint import fingerprint

buffer = tensors_module._buffer
DTYPES = [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_replaces_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    assert names(tmp_path) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_follows_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    write_bytes(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "file").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("path", "text"), [("no/such/a", "folder does not exist"), (".", "a folder has that")]
)
def test_names_what_is_wrong_with_the_path(tmp_path: Path, path: str, text: str) -> None:
    with pytest.raises(WriteError, match=text) as info:
        write_bytes(tmp_path / path, b"x")
    assert info.value.errno is not None
    assert str(tmp_path) in str(info.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [1.0, float("nan")]}])
def test_json_refuses_what_json_cannot_express(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match=r"a\.json"):
        write_json(tmp_path / "a.json", value)
    assert names(tmp_path) == []


def test_json_is_stable(tmp_path: Path) -> None:
    value: dict[str, Json] = {"b": 1, "a": [0.1, None, "é"]}
    write_json(tmp_path / "a.json", value)
    first = (tmp_path / "a.json").read_bytes()
    write_json(tmp_path / "a.json", dict(value))
    assert (tmp_path / "a.json").read_bytes() == first


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    base = torch.arange(12).reshape(3, 4).to(dtype)
    tensors = {"strided": base.T[::2], "scalar": base[1, 1], "empty": base[:0], "same": base, "again": base}
    write_tensors(tmp_path / "a", tensors, {"key": "é"})
    back, metadata = read_tensors(tmp_path / "a")
    assert metadata == {"key": "é"}
    assert list(back) == sorted(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == dtype
        assert torch.equal(back[name], tensor)


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.ones(3, dtype=torch.int8),
        "a": torch.ones(2),
        "c": torch.ones(1, dtype=torch.float64),
    }
    metadata = {key: key for key in "qwertyuiop"}
    write_tensors(tmp_path / "1", tensors, metadata)
    write_tensors(tmp_path / "2", dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    data = (tmp_path / "1").read_bytes()
    assert data == (tmp_path / "2").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header.pop("__metadata__")) == sorted(metadata)
    ours = safetensors.torch.save(tensors)  # the package's order of tensors
    theirs = json.loads(ours[8 : 8 + int.from_bytes(ours[:8], "little")])
    assert list(header.items()) == list(theirs.items())


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), [1.0]])
def test_refuses_what_is_no_dense_tensor(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="'a'"):
        write_tensors(tmp_path / "a", {"a": value})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="metadata 'k'"):
        write_tensors(tmp_path / "a", {}, {"k": 1})  # type: ignore[dict-item]
    assert names(tmp_path) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """A disk on which no file can have more than 64 KiB."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_keeps_the_previous_version(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": torch.zeros(10)})
    with pytest.raises(WriteError, match="previous version of the file is intact") as error:
        write_tensors(path, {"a": torch.ones(100_000)})
    assert str(path) in str(error.value)
    assert torch.equal(read_tensors(path)[0]["a"], torch.zeros(10))
    assert names(tmp_path) == ["model.safetensors"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, bytes(300_000))
    random.seed(0)
    for _ in range(40):
        child = os.fork()
        if child == 0:  # only writes, until it is killed
            try:
                for k in range(1, 1 << 30):
                    write_bytes(path, bytes([k % 256]) * 300_000)
            finally:
                os._exit(1)
        time.sleep(random.uniform(0.001, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        data = path.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1
    assert len(names(tmp_path)) > 1  # some were killed while they wrote


def test_interrupt_removes_the_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_several_files_get_their_names_together(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with Staged() as staged:
        for name in "ab":
            with staged.open(tmp_path / name) as file:
                file.write(b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
        staged.commit()
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"new", b"new"]
    with Staged() as staged, staged.open(tmp_path / "a") as file:
        file.write(b"never committed")
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "small", {"a": torch.arange(2.0), "b": torch.ones(1)}, {"k": "v"})
    return tmp_path / "small"


def test_every_prefix_is_refused(small: Path, tmp_path: Path) -> None:
    data = small.read_bytes()
    for length in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut is not a readable safetensors file"):
            read_tensors(tmp_path / "cut")


def test_bit_flips_in_the_header_never_crash(small: Path, tmp_path: Path) -> None:
    data = small.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for bit in range(0, header * 8, 3):  # every position in a byte, as 3 does not divide 8
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "flip").write_bytes(flipped)
        with contextlib.suppress(ValueError):  # a flip in a name gives another valid file
            read_tensors(tmp_path / "flip")


def test_hints_at_pickles_and_never_reads_them(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "zip")
    torch.save({"a": torch.ones(1)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    (tmp_path / "raw").write_bytes(pickle.dumps({"a": 1}))
    for name in ("zip", "old", "raw"):
        with pytest.raises(ValueError, match="never reads pickles"):
            read_tensors(tmp_path / name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none")


def test_fingerprint_sees_bits_and_nothing_else() -> None:
    weight = torch.randn(4, 6)
    same = fingerprint({"a": weight, "b": weight[0]})
    assert same == fingerprint({"b": weight[0].clone(), "a": weight.T.contiguous().T})
    assert same.startswith("sha256:")
    assert len(same) == 7 + 64
    others = [
        {"a": weight, "c": weight[0]},
        {"a": weight},
        {"a": weight.reshape(6, 4), "b": weight[0]},
        {"a": weight.double(), "b": weight[0]},
        {"a": weight.nextafter(torch.tensor(9.0)), "b": weight[0]},
    ]
    assert same not in {fingerprint(other) for other in others}
    assert fingerprint({"a": torch.zeros(1)}) != fingerprint({"a": -torch.zeros(1)})
    nan = {"a": torch.tensor([float("nan")], dtype=torch.bfloat16), "e": torch.zeros(0, 3)}
    assert fingerprint(nan) == fingerprint(nan)
    with pytest.raises(TypeError, match=r"weights\['a'\]"):
        fingerprint({"a": torch.eye(2).to_sparse()})


def test_fingerprints_of_tensors_in_a_file(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4, 2).bfloat16(), "b": torch.randn(2_000_001), "c": torch.zeros(0, 3)}
    write_tensors(tmp_path / "a", tensors)
    with TensorFile(tmp_path / "a") as file:
        stored = {name: file.stored(name) for name in tensors}
        assert fingerprint(stored) == fingerprint(tensors)
        assert fingerprint(stored, torch.float16) == fingerprint({n: t.half() for n, t in tensors.items()})
        assert torch.equal(stored["a"][1:], tensors["a"][1:])
        assert torch.equal(stored["b"][1_999_999:5_000_000], tensors["b"][1_999_999:])
        assert b"".join(file.chunks("b")) == tensors["b"].numpy().tobytes()


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", {"a": torch.randn(100_000)})
    with TensorFile(tmp_path / "a") as file:
        os.truncate(tmp_path / "a", 2000)
        for read in (lambda: file.read("a"), lambda: list(file.chunks("a")), lambda: file.stored("a")[:]):
            with pytest.raises(ValueError, match="truncated while"):
                read()


def test_writing_copies_no_contiguous_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = torch.randn(1000)
    seen: list[int] = []
    monkeypatch.setattr(tensors_module, "_buffer", lambda t: (seen.append(t.data_ptr()), buffer(t))[1])
    write_tensors(tmp_path / "a", {"a": base, "b": base[10:], "again": base})
    assert seen == [base.data_ptr(), base.data_ptr(), base.data_ptr() + 40]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_the_cache_is_where_the_system_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rledit" / "activations"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "rledit" / "activations"
    assert cache_folder("~/x") == tmp_path / "x"
