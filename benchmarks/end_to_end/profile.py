"""How much of rledit's time is Python.

Method: cProfile around the loop of a run, scoring moved onto the profiled thread. cProfile sees every call
of a Python function and of a function written in C (torch, ``rledit._native``, NumPy, builtins) and keeps
the time spent in each itself. The own time of functions in C is native; that of Python functions is Python.
Sampling would not do: a sampler in Python needs the interpreter's lock, which native calls give up and
Python code does not, and a stack does not tell whether its topmost Python function is in a native call just
now. Three corrections:

- Operators on tensors (``a - b``, ``a[i]``, ``float(a)``) run in C without any call that the profiler is told
  of. While it runs, they are replaced by functions that do the same; the own time of those counts as native.
- The profiler's own time is measured on empty calls and subtracted, per call, half from the caller and half
  from the called, as far as these are Python. What it adds to native calls is left there.
- Shares are of the wall time of the same run without the profiler (same seed, same updates), scoring on the
  same thread as well. Torch has one thread in both, so that no call waits for a core that is busy elsewhere.

A call into C that the profiler is not told of (an attribute of a tensor, a class of C that is called)
counts as Python, so the shares are rather too large than too small.
"""

from __future__ import annotations

import cProfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import torch

import rledit
from rledit.runtime import one_thread

from .goal import Goal, Outcome

CALIBRATION_CALLS = 100_000

OPERATORS = (
    "__add__", "__radd__", "__iadd__", "__sub__", "__isub__", "__mul__", "__rmul__", "__imul__",
    "__truediv__", "__itruediv__", "__matmul__", "__neg__", "__abs__", "__invert__", "__and__", "__or__",
    "__xor__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__getitem__", "__setitem__",
    "__bool__", "__float__", "__int__", "__index__",
)  # fmt: skip

FOLDERS = {"rledit": Path(rledit.__file__).parent, "torch": Path(torch.__file__).parent}


@dataclass(frozen=True)
class Overhead:
    """Seconds that the profiler adds to the own time of Python functions.

    Attributes:
        python: with each call of a Python function, half of it in the caller.
        native: with each call of a C function, in the caller.
    """

    python: float
    native: float


@dataclass(frozen=True)
class FunctionTime:
    """A Python function's own time, corrected."""

    name: str
    group: str  # rledit, torch, or other
    calls: int
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the profiled time went. ``functions``: Python ones, the most expensive first."""

    functions: list[FunctionTime]
    native: float
    overhead: float

    def python(self, *groups: str) -> float:
        """Own seconds of the Python functions of these groups, or of all."""
        return sum(f.seconds for f in self.functions if not groups or f.group in groups)


def attribute(entries: Iterable[Any], overhead: Overhead, native_code: frozenset[CodeType]) -> Profile:
    """Sort the entries of ``cProfile.Profile.getstats()`` into Python and native.

    Args:
        native_code: code of Python functions that stand for something native.
    """
    functions = []
    native = subtracted = 0.0
    for entry in entries:
        if isinstance(entry.code, str) or entry.code in native_code:
            native += entry.inlinetime
            continue
        cost = 0.5 * overhead.python * entry.callcount
        for call in entry.calls or ():
            each = overhead.native if isinstance(call.code, str) else 0.5 * overhead.python
            cost += each * call.callcount
        subtracted += cost
        name, group = _name(entry.code)
        functions.append(FunctionTime(name, group, entry.callcount, entry.inlinetime - cost))
    functions.sort(key=lambda f: -f.seconds)
    return Profile(functions, native, subtracted)


def _name(code: CodeType) -> tuple[str, str]:
    path = Path(code.co_filename)
    qualified = getattr(code, "co_qualname", code.co_name)  # from Python 3.11
    for group, folder in FOLDERS.items():
        if path.is_relative_to(folder):
            return f"{path.relative_to(folder.parent).as_posix()}: {qualified}", group
    return f"{path.name}: {qualified}", "other"


def measure_overhead(calls: int = CALIBRATION_CALLS) -> Overhead:
    """What the profiler adds, from loops of empty calls with and without it; the least of five turns each."""

    def empty() -> None:
        pass

    def python_loop() -> None:
        for _ in range(calls):
            empty()

    native = "".isdigit  # does as good as nothing

    def native_loop() -> None:
        for _ in range(calls):
            native()

    def added(loop: Callable[[], None]) -> float:
        least = []
        for profiled in (False, True):
            turns = []
            for _ in range(5):
                profiler = cProfile.Profile()
                began = time.perf_counter()
                if profiled:
                    profiler.enable()
                loop()
                profiler.disable()
                elapsed = time.perf_counter() - began
                if profiled:  # only what lands in Python functions
                    elapsed = sum(
                        e.inlinetime for e in profiler.getstats() if e.code in (loop.__code__, empty.__code__)
                    )
                turns.append(elapsed)
            least.append(min(turns))
        return (least[1] - least[0]) / calls

    return Overhead(added(python_loop), max(0.0, added(native_loop)))


@contextmanager
def visible_operators() -> Iterator[frozenset[CodeType]]:
    """Tensor's operators as Python functions, whose code is given; those that are already are left alone."""
    before = [name for name in OPERATORS if name not in vars(torch.Tensor)]
    stand_ins = {name: _stand_in(getattr(torch.Tensor, name)) for name in before}
    try:
        for name, function in stand_ins.items():
            setattr(torch.Tensor, name, function)
        yield frozenset(function.__code__ for function in stand_ins.values())
    finally:
        for name in stand_ins:
            delattr(torch.Tensor, name)


def _stand_in(method: Callable[..., Any]) -> Any:
    def operator(*operands: Any) -> Any:
        return method(*operands)

    return operator


def profile(loop: Callable[[], None], overhead: Overhead) -> Profile:
    """Run something under the profiler."""
    with visible_operators() as native_code:
        profiler = cProfile.Profile()
        profiler.enable()
        try:
            loop()
        finally:
            profiler.disable()
    return attribute(profiler.getstats(), overhead, native_code)


def summarize(edit: Callable[..., Outcome], goal: Goal, turns: int = 5, top: int = 12) -> dict[str, Any]:
    """Profile rledit's run to the goal.

    Args:
        edit: :func:`benchmarks.end_to_end.ours.edit` with everything given but the goal.
        turns: runs with and without the profiler each, in turn; the fastest of each is taken.
        top: functions to list.
    """
    overhead = measure_overhead()
    walls: list[float] = []
    profiled_walls: list[float] = []
    profiles: list[Profile] = []

    def around(loop: Callable[[], None]) -> None:
        profiles.append(profile(loop, overhead))

    with one_thread():
        for _ in range(turns):
            plain = edit(goal, inline=True)
            walls.append(plain.seconds)
            outcome = edit(goal, around=around, inline=True)
            assert outcome.updates == plain.updates
            profiled_walls.append(outcome.seconds)
    wall, profiled_wall = min(walls), min(profiled_walls)
    best = profiles[profiled_walls.index(profiled_wall)]
    updates = outcome.updates
    return {
        "updates": updates,
        "wall_ms": 1e3 * wall / updates,
        "profiled_ms": 1e3 * profiled_wall / updates,
        "native_ms": 1e3 * best.native / updates,
        "python_ms": 1e3 * best.python() / updates,
        "subtracted_ms": 1e3 * best.overhead / updates,
        "overhead_ns": {"python": 1e9 * overhead.python, "native": 1e9 * overhead.native},
        "share": {
            "python": best.python() / wall,
            **{group: best.python(group) / wall for group in (*FOLDERS, "other")},
        },
        "functions": [
            {
                "function": f.name,
                "group": f.group,
                "calls": f.calls / updates,
                "ms": 1e3 * f.seconds / updates,
                "share": f.seconds / wall,
            }
            for f in best.functions[:top]
        ],
    }
