"""A run folder is never mixed up, never shared by two writers, and always resumable."""

from __future__ import annotations

import csv
import errno
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import Program
from torch import Tensor

from rledit.experiments import (
    CheckpointError,
    History,
    RunBusyError,
    RunFolder,
    load_checkpoint,
    save_checkpoint,
)
from rledit.storage.files import TEMPORARY_SUFFIX, read_tensors, write_tensors

CONFIG: dict[str, Any] = {"world": "mask", "rank": 4, "forget": (7,), "ppo": {"lr": 5e-4, "clip": 0.2}}
OUTPUTS = [
    "model.safetensors",
    "edit.safetensors",
    "history.csv",
    "report.html",
    "metrics.json",
    "checkpoint.safetensors",
]


def tree(folder: Path) -> dict[str, bytes]:
    """All files but the lock."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with files of the user among its own."""
    path = tmp_path / "run"
    RunFolder(path, CONFIG).close()
    for name in OUTPUTS:
        (path / name).write_text("old")
    for name in ("tensorboard/events.out.tfevents.1", "tensorboard/mine", "plots/edit_fc1.png", "notes.txt"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("old")
    return path


def test_new_nested_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "a" / "b", tmp_path / "empty"):
        with RunFolder(path, CONFIG) as folder:
            assert not folder.resumed
            assert folder.config.is_file()
        assert visible(path) == ["config.json"]
        assert folder.edit == path / "edit.safetensors"


def test_paths_survive_a_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RunFolder("run", CONFIG) as folder:
        monkeypatch.chdir("/")
        assert folder.config.is_file()


def test_an_existing_run_is_refused_untouched(run: Path) -> None:
    before = tree(run)
    with pytest.raises(FileExistsError, match=r"--resume.*--overwrite"):
        RunFolder(run, CONFIG)
    assert tree(run) == before


def test_resume_keeps_everything(run: Path) -> None:
    before = tree(run)
    with RunFolder(run, CONFIG, resume=True) as folder:
        assert folder.resumed
    assert tree(run) == before


def test_resume_with_another_config_lists_the_keys(run: Path) -> None:
    before = tree(run)
    other = {**CONFIG, "rank": 8, "ppo": {"lr": 1e-3, "clip": 0.2}, "new": 1}
    with pytest.raises(ValueError, match="another config") as info:
        RunFolder(run, other, resume=True)
    for text in (
        "rank: the folder has 4, asked for 8",
        "ppo.lr: the folder has 0.0005",
        "new: the folder has '(abs",
    ):
        assert text in str(info.value)
    assert "clip" not in str(info.value)
    assert tree(run) == before


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        RunFolder(tmp_path / "none", CONFIG, resume=True)
    assert not (tmp_path / "none").exists()
    # Killed before its first write: a run was asked for here, so it starts.
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / ".lock").write_text("999999999\n")
    (tmp_path / "early" / f".config.json.1-2{TEMPORARY_SUFFIX}").write_text("{")
    with RunFolder(tmp_path / "early", CONFIG, resume=True) as folder:
        assert not folder.resumed
    assert visible(tmp_path / "early") == ["config.json"]


def test_overwrite_deletes_our_files_and_no_others(run: Path) -> None:
    with RunFolder(run, {"rank": 1}, overwrite=True) as folder:
        assert not folder.resumed
    assert sorted(tree(run)) == ["config.json", "notes.txt", "tensorboard/mine"]
    assert '"rank": 1' in folder.config.read_text()
    with RunFolder(run.parent / "new", CONFIG, overwrite=True) as folder:
        assert folder.config.is_file()


def test_overwrite_does_not_follow_links(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_text("mine")
    for path in (run / "plots").iterdir():
        path.unlink()
    (run / "plots").rmdir()
    (run / "plots").symlink_to(tmp_path / "mine")
    RunFolder(run, CONFIG, overwrite=True).close()
    assert (tmp_path / "mine" / "a.png").read_text() == "mine"


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
@pytest.mark.parametrize("content", [None, '{"architectures": ["Bert"]}', "[]", "{"])
def test_foreign_folders_are_refused(tmp_path: Path, flag: str, content: str | None) -> None:
    # a downloaded model also has config.json and model.safetensors
    (tmp_path / "model.safetensors").write_text("precious")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=f"refused to {flag}.*not a run folder"):
        RunFolder(tmp_path, CONFIG, **{flag: True})
    assert tree(tmp_path) == before


def test_bad_arguments(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is a file"):
        RunFolder(tmp_path / "file", CONFIG)
    with pytest.raises(ValueError, match="at most one"):
        RunFolder(tmp_path / "a", CONFIG, resume=True, overwrite=True)
    with pytest.raises(ValueError, match="JSON compliant"):
        RunFolder(tmp_path / "a", {"lr": float("nan")})
    with pytest.raises(ValueError, match="reserved"):
        RunFolder(tmp_path / "a", {"rledit_version": "9"})
    with pytest.raises(OSError, match="file"):
        RunFolder(tmp_path / "file" / "below", CONFIG)
    assert not (tmp_path / "a").exists()


HOLD = """
import sys, time
from rledit.experiments import RunFolder
folder = RunFolder(sys.argv[1], {"a": 1})
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Program]:
    program = Program(HOLD, tmp_path / "held")
    try:
        while program.runs() and program.said() != "locked\n":
            time.sleep(0.01)
        assert program.runs(), program.said("err")
        yield program
    finally:
        program.process.kill()
        program.wait()


def test_two_writers_and_a_dead_one(tmp_path: Path, holder: Program) -> None:
    for flags in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(RunBusyError, match=f"process {holder.process.pid}"):
            RunFolder(tmp_path / "held", {"a": 1}, **flags)
    (tmp_path / "held" / ".lock-owner").unlink()  # as where the disk was full
    with pytest.raises(RunBusyError, match="another process"):
        RunFolder(tmp_path / "held", {"a": 1}, resume=True)
    holder.send_signal(signal.SIGKILL)
    holder.process.join()
    assert (tmp_path / "held" / ".lock").exists()  # stale
    with RunFolder(tmp_path / "held", {"a": 1}, resume=True) as folder:
        with pytest.raises(RunBusyError, match="this process already"):
            RunFolder(tmp_path / "held", {"a": 1}, resume=True)
        assert folder.resumed
    RunFolder(tmp_path / "held", {"a": 1}, resume=True).close()


def test_a_lock_is_given_back_by_any_thread(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a", CONFIG)
    closing = threading.Thread(target=folder.close)
    closing.start()
    closing.join()
    RunFolder(tmp_path / "a", CONFIG, resume=True).close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *more, **named)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OSError, match="Read-only file system") as info:
        RunFolder(tmp_path / "run", CONFIG)
    assert str(tmp_path / "run") in str(info.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user")
def test_someone_elses_folder_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(OSError, match=re.escape(name)):
                RunFolder(name, CONFIG)
        finally:
            os.seteuid(0)


def test_a_run_can_be_extended_but_not_cut_short(tmp_path: Path) -> None:
    config = {"candidates": 100, "rank": 4, "nested": {"candidates": 1}}
    RunFolder(tmp_path / "run", config, extendable=["candidates"]).close()
    with RunFolder(
        tmp_path / "run", config | {"candidates": 300}, resume=True, extendable=["candidates"]
    ) as f:
        assert f.resumed
        assert '"candidates": 300' in f.config.read_text()
    for change in ({"candidates": 200}, {"candidates": 400, "rank": 5}, {"candidates": 400.0}):
        with pytest.raises(ValueError, match="another config"):
            RunFolder(
                tmp_path / "run",
                config | {"candidates": 300} | change,
                resume=True,
                extendable=["candidates"],
            )
    with pytest.raises(ValueError, match="candidates: the folder has 300"):
        RunFolder(tmp_path / "run", config | {"candidates": 400}, resume=True)
    assert '"candidates": 300' in (tmp_path / "run" / "config.json").read_text()


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_history_is_on_disk_after_every_row(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(["update", "reward, mean"], path)
    assert not path.exists()
    for i in range(3):
        history.append({"update": i, "reward, mean": i / 3})
        assert [float(row[1]) for row in read(path)[1:]] == history.column("reward, mean")
    assert read(path)[0] == ["update", "reward, mean"]
    assert read(path)[1] == ["0", "0"]
    assert len(history) == 3


def test_history_after_a_resume_holds_the_rows_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    columns = ["update", "reward_mean", "kl"]
    history = History(columns, path)
    rows = [{"update": i, "reward_mean": 0.1 * i, "kl": float("nan")} for i in range(5)]
    for row in rows[:3]:
        history.append(row)
    for row in rows[3:]:
        history.append(row)
    whole = path.read_bytes()
    with open(path, "ab") as file:
        file.write(b"5,0.")  # killed within a row

    resumed = History(columns, path, rows=rows[:3])
    assert resumed.columns == columns
    assert resumed.column("reward_mean") == [row["reward_mean"] for row in rows[:3]]
    for row in rows[3:]:
        resumed.append(row)
    assert path.read_bytes() == whole
    resumed.rewrite(tmp_path / "copy.csv")
    assert (tmp_path / "copy.csv").read_bytes() == whole


def test_history_of_no_rows(tmp_path: Path) -> None:
    again = History(["a", "b"], tmp_path / "h.csv")
    again.rewrite()
    assert (tmp_path / "h.csv").read_text() == "a,b\n"
    again.append({"a": 1, "b": 2.5})
    assert (tmp_path / "h.csv").read_text() == "a,b\n1,2.5\n"


def test_history_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unique"):
        History(["a", "a"])
    with pytest.raises(ValueError, match=r"missing \['b'\], unknown \['c'\]"):
        History(["a", "b"]).append({"a": 1, "c": 2})
    with pytest.raises(ValueError, match="expected one of"):
        History(["a"]).column("b")
    history = History(["a"], tmp_path / "no" / "h.csv")
    with pytest.raises(OSError, match="folder does not exist"):
        history.append({"a": 1})
    assert len(history) == 0


def test_history_on_a_full_disk_keeps_whole_rows(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "history.csv"
    history = History(["update", "reward_mean"], path)
    history.append({"update": 1, "reward_mean": 0.5})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, hard))  # three bytes of the next row fit
    try:
        with pytest.raises(OSError, match=r"previous version of the file is intact.*history\.csv"):
            history.append({"update": 2, "reward_mean": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    history.append({"update": 2, "reward_mean": 0.75})
    assert history.column("reward_mean") == [0.5, 0.75]
    assert path.read_bytes() == before + b"2,0.75\n"


def test_tensorboard_mirror(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    history = History(["update", "reward_mean"], None, tmp_path / "tensorboard")
    history.append({"update": 3, "reward_mean": 0.5})
    history.close()
    history.close()
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"reward_mean" in events.read_bytes()


def test_tensorboard_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "rledit\[tensorboard\]"'):
        History(["a"], None, "board")


TENSORS: dict[str, Tensor] = {
    "u": torch.arange(5, dtype=torch.uint8),
    "i": torch.tensor(2**62),
    "f": torch.tensor([[0.1, float("nan"), -0.0, float("inf")]]),
    "d": torch.randn(3, 2, dtype=torch.float64).T,
    "empty": torch.zeros(0, 4),
}


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "update": 3,
        "lr": 0.1 + 0.2,
        "names": ["a", None, True],
        "nested": {"é": 1e-300, "big": 2**80},
    }
    save_checkpoint(tmp_path / "c", TENSORS, state)
    tensors, back = load_checkpoint(tmp_path / "c")
    assert back == state
    assert sorted(tensors) == sorted(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert tensors[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    save_checkpoint(tmp_path / "c2", dict(reversed(TENSORS.items())), state)
    assert (tmp_path / "c").read_bytes() == (tmp_path / "c2").read_bytes()


def test_every_flipped_byte_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"a": torch.randn(4), "b": torch.tensor(7)}, {"update": 12})
    data = (tmp_path / "c").read_bytes()
    text = data.rstrip()
    for byte in range(len(data)):
        flipped = bytearray(data)
        flipped[byte] ^= 1 << byte % 8
        (tmp_path / "flip").write_bytes(flipped)
        with pytest.raises(CheckpointError, match="flip"):
            load_checkpoint(tmp_path / "flip")
    for length in range(0, len(text), 11):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="cut"):
            load_checkpoint(tmp_path / "cut")


def test_checkpoint_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match="JSON compliant"):
        save_checkpoint(tmp_path / "c", {}, {"best": float("-inf")})
    write_tensors(tmp_path / "c", {"a": torch.ones(1)})
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "c")
    save_checkpoint(tmp_path / "c", {}, {})
    tensors, metadata = read_tensors(tmp_path / "c")
    write_tensors(tmp_path / "c", tensors, {**metadata, "format_version": "2"})
    with pytest.raises(CheckpointError, match="format version 1, got 2"):
        load_checkpoint(tmp_path / "c")
