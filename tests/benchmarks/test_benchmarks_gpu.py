"""The GPU benchmark, as far as it goes without one: its refusal, its opponents, its comparison and its
table."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_backends import DEVICE, NAMES, gpu_backend

from rledit.ops import Candidates, EditRule, backend

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the benchmarks; rledit, imported above, stays the installed one
try:
    from benchmarks.gpu import __main__ as command
    from benchmarks.gpu import steps
    from benchmarks.gpu.checks import sanitize, undecided_share, usable
    from benchmarks.gpu.exercise import exercise
    from benchmarks.gpu.problems import OPPONENTS, SHIFT_ONLY, WANTED, Problem, Shape, in_chunks
finally:
    if str(ROOT) in sys.path:
        sys.path.remove(str(ROOT))

SMALL = [Shape(65, 21, 9, 4, 5, 3), Shape(40, 16, 2, 0, 3, 2)]


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_it_refuses_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main() == 2
    assert "there is no GPU here" in capsys.readouterr().err.replace("\n", " ")


def test_unknown_dtypes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(dtypes=("float8",)) == 2
    assert "got float8" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_opponents_count_what_the_reference_counts(shape: Shape, world: str) -> None:
    problem = Problem(shape, world, torch.float32, DEVICE)
    expected = backend("reference").prepare_tail(problem.tail).score(problem.candidates, WANTED).correct
    for name, count in OPPONENTS.items():
        if world == "mask" and name in SHIFT_ONLY:
            continue
        for chunk in (1, 2, 16):
            assert torch.equal(in_chunks(count, problem, chunk), expected), name


class OtherRule(Problem):
    """Its candidates are scored by another rule than its world's."""

    @property
    def candidates(self) -> Candidates:
        return super().candidates._replace(rule=EditRule("shift"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_parity_passes_for_what_is_right_and_fails_for_what_is_not(name: str) -> None:
    ops = gpu_backend(name)
    problem = Problem(SMALL[0], "mask", torch.float32, DEVICE)
    assert undecided_share(ops, problem) < 0.05
    with pytest.raises(AssertionError, match="candidate 0"):
        undecided_share(ops, OtherRule(SMALL[0], "mask", torch.float32, DEVICE))


def wall(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - started)


def test_comparison_and_table() -> None:
    backends = [gpu_backend(name) for name in NAMES]
    rows = []
    for world in ("shift", "mask"):
        problem = Problem(SMALL[1], world, torch.float32, DEVICE)
        rows.append({"dtype": "float32", **command.compare(problem, backends, wall, compiled=False)})
    assert set(rows[0]["times"]) == {"triton", "cuda", "eager", "low-rank", "expand"}
    assert set(rows[1]["times"]) == {"triton", "cuda", "eager"}
    table = command.table(rows)
    assert [list(column.cells)[1] for column in table.columns][:3] == [str(SMALL[1]), "float32", "mask"]
    assert list(table.columns[6].cells)[1] == "eager"


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_whole_steps(name: str) -> None:
    if DEVICE != "cuda" and name == "cuda":
        pytest.skip("the shim is not a backend that a task can name")
    gpu_backend(name)
    rows = steps.measure(wall, name, DEVICE, SMALL)
    assert [row["world"] for row in rows] == ["shift", "mask", "shift", "mask"]
    assert all(row["plain step"] > 0 and row["plain update"] > 0 for row in rows)
    assert [next(iter(column.cells)) for column in steps.table(rows).columns][:3] == [
        str(SMALL[0]), "shift", name,
    ]  # fmt: skip


def test_what_cannot_be_used_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    names = [ops.name for ops in usable()]
    assert set(names) <= set(NAMES)
    if "cuda" not in names:
        assert "cuda: left out" in capsys.readouterr().err


def test_the_sanitizer_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert sanitize("triton") == "not installed"


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_what_the_sanitizer_watches_runs(name: str) -> None:
    exercise(gpu_backend(name), DEVICE)
