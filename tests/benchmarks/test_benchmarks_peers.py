"""The peers that rledit is compared to compute what it computes, and the limit is what its docstring says."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import rledit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for the benchmarks; rledit, imported above, stays the installed one
try:
    from benchmarks.peers import __main__ as command
    from benchmarks.peers import limit, opponents_jax, opponents_torch, search, turns
    from benchmarks.peers.reference import Truth, tolerance, truth
    from benchmarks.peers.search import Setting
    from benchmarks.peers.shapes import PRECISIONS, WORLDS, Problem, make
    from benchmarks.scoring import Shape
finally:
    if str(ROOT) in sys.path:
        sys.path.remove(str(ROOT))

TINY = [Shape(301, 20, 12, 5, 7, 3), Shape(301, 16, 2, 0, 7, 2)]  # few things divide each other
ROWS, COLUMNS = Setting(4, 1, "rows"), Setting(3, 7, "columns")


@pytest.fixture(
    scope="module", params=[(s, w) for s in TINY for w in WORLDS], ids=lambda p: f"{p[0]}, {p[1]}"
)
def problem(request: pytest.FixtureRequest) -> Problem:
    return make(*request.param)


@pytest.fixture(scope="module")
def known(problem: Problem) -> Truth:
    return truth(problem)


def agree(problem: Problem, known: Truth, precision: str, opponent: search.Opponent) -> None:
    allowed = tolerance(problem, precision)
    assert known.band(allowed) < (1e-3 if precision == "float32" else 0.2)
    for setting in (ROWS, COLUMNS) if opponent.varies else (Setting(),):
        if "layout" not in opponent.varies:
            setting = replace(setting, layout="rows")
        counts = opponent.configure(setting)(problem.shape.candidates)
        assert counts.dtype == torch.int64
        known.check(f"{opponent.name}, {precision}, {setting}", counts, allowed)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_torch_opponents_count_what_float64_counts(problem: Problem, known: Truth, precision: str) -> None:
    opponents = opponents_torch.opponents(problem, precision)
    assert len(opponents) == (4 if problem.world == "shift" else 3)
    for opponent in opponents:
        agree(problem, known, precision, opponent)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_jax_counts_what_float64_counts(problem: Problem, known: Truth, precision: str) -> None:
    pytest.importorskip("jax")
    assert opponents_jax.missing() == ""
    for opponent in opponents_jax.opponents(problem, precision):
        agree(problem, known, precision, opponent)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rledit_counts_what_float64_counts(problem: Problem, known: Truth, precision: str) -> None:
    scorer = problem.task().scorer("native", precision=precision)
    tally = scorer.score({"fc1": (problem.left, problem.right)}, problem.world, problem.scale)
    known.check("rledit", tally.counts.correct, tolerance(problem, precision))


def test_both_ways_of_counting_agree(problem: Problem, known: Truth) -> None:
    opponent = opponents_torch.Batched("batched", problem, "float32")
    for setting in (ROWS, COLUMNS):
        counts = opponent.configure(replace(setting, counting="argmax"))(problem.shape.candidates)
        known.check("argmax", counts, tolerance(problem, "float32"))


def test_the_check_finds_another_edit(problem: Problem, known: Truth) -> None:
    """The problem is made so that edits count differently: a check that any edit passes would be none."""
    counts = known.counts
    known.check("itself", counts, 0.0)
    for precision in PRECISIONS:
        allowed = tolerance(problem, precision)
        with pytest.raises(SystemExit, match="the counts of"):
            known.check("unedited", known.masks.sum(0).long().expand(len(counts), -1), allowed)
        with pytest.raises(SystemExit, match="the counts of"):
            known.check("shuffled", counts.roll(1, 0), tolerance(problem, "float32"))


def test_the_limit_by_hand() -> None:
    shape = Shape(samples=100, inputs=8, outputs=4, classes=3, candidates=5, rank=2)
    # mask: products 2 * 5 * 100 * (32 + 12) = 44,000, forming 5 * 4 * 8 * 6 = 960
    assert limit.operations(shape, "mask") == 44_960
    # shift: shared 2 * 100 * 32 = 6,400, the rest 2 * 5 * 100 * (2 * 12 + 12) = 36,000
    assert limit.operations(shape, "shift") == 42_400
    # 800 activations, 5 * 2 * 12 = 120 of factors, 32 + 12 of weights
    assert limit.moved_bytes(shape) == 4 * 964
    machine = limit.Machine({"float32": 44_960.0, "bfloat16": 449_600.0}, bandwidth=38_560.0)
    assert machine.limit(44_960, 4 * 964, "float32") == 1.0  # arithmetic
    assert machine.limit(44_960, 8 * 964, "bfloat16") == pytest.approx(0.2)  # memory
    faster = machine.better(limit.Machine({"float32": 9e4, "bfloat16": 9e4}, bandwidth=1e4))
    assert faster == limit.Machine({"float32": 9e4, "bfloat16": 449_600.0}, bandwidth=38_560.0)
    # Without a tail and where edited weights are cheaper: 2 * 7 * 1000 * 32 and 7 * 2 * 16 * 6.
    assert limit.operations(Shape(1000, 16, 2, 0, 7, 2), "shift") == 448_000 + 1_344


class Sleeper:
    """An opponent that is fastest in columns, four candidates at a time."""

    name = "sleeper"
    varies = frozenset({"chunk", "layout"})
    start = None

    def configure(self, setting: Setting) -> search.Run:
        cost = (1 if setting.layout == "columns" else 4) * (1 + abs(setting.chunk.bit_length() - 3))

        def run(candidates: int) -> torch.Tensor:
            time.sleep(cost * 2e-4 * candidates)
            return torch.zeros(candidates, 2, dtype=torch.int64)

        return run


def test_the_search_finds_the_best_setting() -> None:
    best = search.tune(Sleeper(), Shape(100, 8, 4, 3, 16, 2), seconds=5.0, moment=0.01)
    assert best.setting == Setting(chunk=4, layout="columns")


def test_turns_rest_the_slow() -> None:
    runs = {
        "ours": partial(time.sleep, 0.12),
        "near": partial(time.sleep, 0.11),
        "far": partial(time.sleep, 0.4),
    }
    taken = turns.take_turns(runs, {"ours"}, least=2, most=2, deadline=0.0, moment=0.1)
    assert len(taken) == 2
    assert turns.median_ratio(taken, "near", "ours") == pytest.approx(0.11 / 0.12, rel=0.2)
    if max(turn.others for turn in taken) <= turns.QUIET:
        assert sum("far" in turn.times for turn in taken) == 1
    assert turns.median_seconds(taken, "far") == pytest.approx(0.4, rel=0.2)


@pytest.mark.slow
def test_the_command_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(rledit._native, "probe_peak", lambda precision, seconds: 1e11, raising=False)
    monkeypatch.setattr(rledit._native, "probe_bandwidth", lambda size, seconds: 1e10, raising=False)
    command.main(quick=True, compiled=False)
    out = capsys.readouterr().out
    assert "Smallest ratio" in out
    assert "plain inference" in out
