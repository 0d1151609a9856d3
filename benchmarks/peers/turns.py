"""Who is timed when: turn by turn, so that a slow minute of the machine is everybody's."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RESTS_AT = 2.0  # times the fastest
QUIET = 0.1  # of the machine may be taken by other programs


@dataclass(frozen=True)
class Turn:
    times: dict[str, float]  # contender -> seconds of one call, of those that took part
    others: float  # the share of the machine that other programs took meanwhile


def take_turns(
    contenders: dict[str, Callable[[], object]],
    never_rest: set[str],
    least: int,
    most: int,
    deadline: float,
    moment: float,
) -> list[Turn]:
    """Time everybody turn by turn, and return the turns that count.

    Turns that other programs disturbed are repeated while there is time, because they do not slow everybody
    alike: programs whose threads meet at barriers suffer most. At least ``least`` turns are taken, and up to
    ``most`` quiet ones before the deadline. The quiet ones count, or where they are too few the quietest.

    After the first quiet turn, a contender that needs over twice as long as the fastest of them rests: its
    figure is that one turn's. Each turn starts with another contender, so that nobody always follows one.
    """
    turns: list[Turn] = []
    names = list(contenders)
    quiet = 0
    while quiet < most and (len(turns) < least or time.perf_counter() < deadline):
        at = len(turns) % len(names)
        with Others() as others:
            times = {name: seconds(contenders[name], moment) for name in names[at:] + names[:at]}
        turns.append(Turn(times, others.share or 0.0))
        quiet += turns[-1].others <= QUIET
        if quiet == 1 and turns[-1].others <= QUIET:
            fastest = min((times[name] for name in names if name not in never_rest), default=0.0)
            names = [name for name in names if name in never_rest or times[name] <= RESTS_AT * fastest]
    return sorted(turns, key=lambda turn: turn.others)[: max(min(least, len(turns)), quiet)]


def median_seconds(turns: list[Turn], name: str) -> float:
    return statistics.median(turn.times[name] for turn in turns if name in turn.times)


def median_ratio(turns: list[Turn], slow: str, fast: str) -> float:
    """The median of the turns' own ratios: both sides of each were measured in the same moment."""
    return statistics.median(
        turn.times[slow] / turn.times[fast] for turn in turns if slow in turn.times and fast in turn.times
    )


def seconds(run: Callable[[], object], moment: float) -> float:
    """Seconds of one call. Calls shorter than a moment fill one; the first does not count: threads wake."""
    started = time.perf_counter()
    run()
    first = time.perf_counter() - started
    if first > moment:
        return first
    started = time.perf_counter()
    calls = 0
    while calls == 0 or time.perf_counter() - started < moment:
        run()
        calls += 1
    return (time.perf_counter() - started) / calls


class Others:
    """The share of the machine that other programs took while this one measured; None where it is not known.

    with Others() as others: ...
    print(others.share)
    """

    share: float | None = None

    def __enter__(self) -> Others:
        self._before = (_busy(), time.process_time(), time.perf_counter())
        return self

    def __exit__(self, *_: object) -> None:
        before, own, started = self._before
        after = _busy()
        if before is None or after is None:
            return
        wall = (time.perf_counter() - started) * (os.cpu_count() or 1)
        self.share = max(0.0, (after - before - (time.process_time() - own)) / wall)


def _busy() -> float | None:
    """Seconds of all processors that were not idle, stolen ones among them."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
