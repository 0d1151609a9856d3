"""Writes are all or nothing; reads refuse everything that is not a whole safetensors file."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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

DTYPES = [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool]


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


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


def test_equal_tensors_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from rledit.storage.files import write_tensors\n"
        "write_tensors(sys.argv[1], {'a': torch.ones(3)}, {k: k for k in 'qwertyuiop'})"
    )
    for name in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True, env=child_environment())
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), [1.0]])
def test_refuses_what_is_no_dense_tensor(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="'a'"):
        write_tensors(tmp_path / "a", {"a": value})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="metadata 'k'"):
        write_tensors(tmp_path / "a", {}, {"k": 1})  # type: ignore[dict-item]
    assert names(tmp_path) == []


def test_full_disk_keeps_the_previous_version(tmp_path: Path) -> None:
    code = """
import resource, sys, torch
from rledit.storage.files import read_tensors, write_tensors
path = sys.argv[1]
write_tensors(path, {"a": torch.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_tensors(path, {"a": torch.ones(100_000)})
except OSError as error:
    print(error)
assert torch.equal(read_tensors(path)[0]["a"], torch.zeros(10))
"""
    path = tmp_path / "model.safetensors"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, done.stderr
    assert "previous version of the file is intact" in done.stdout
    assert str(path) in done.stdout
    assert names(tmp_path) == ["model.safetensors"]


def test_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    # A fork that only writes is up in milliseconds, so that many kills fit into a short test.
    code = """
import os, signal, sys, time, random
from rledit.storage.files import write_bytes
path = sys.argv[1]
random.seed(0)
for i in range(60):
    pid = os.fork()
    if pid == 0:
        k = 0
        while True:
            k += 1
            write_bytes(path, bytes([k % 256]) * 300_000)
    time.sleep(random.uniform(0.002, 0.02))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if os.path.exists(path):
        data = open(path, "rb").read()
        assert len(data) == 300_000 and len(set(data)) == 1, (i, len(data))
assert os.path.exists(path)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, done.stderr


def test_interrupt_removes_the_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "small", {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}, {"k": "v"})
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
    for bit in range(header * 8):
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
