"""What depends on the clock, and so on a quiet machine.

``pytest benchmarks/test_clock.py`` (seconds). What of it does not depend on the clock is in tests/.
"""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import torch

from rledit import ops, set_num_threads

from .end_to_end.profile import measure_overhead, profile

SAMPLES, CANDIDATES = 20_000, 400


def test_python_goes_on_meanwhile() -> None:
    labels = torch.randint(0, 10, (SAMPLES,))
    arguments = (
        torch.randn(SAMPLES, 128).relu(), [torch.randn(32, 128), torch.randn(10, 32)],
        [torch.randn(32), torch.randn(10)], ["relu", "identity"], labels, torch.stack([labels == 7]),
        [torch.randn(CANDIDATES, 32, 4), None], [torch.randn(CANDIDATES, 4, 128), None], "shift", 0.1,
        "float32", ["correct"],
    )  # fmt: skip
    set_num_threads(1)
    worker = threading.Thread(target=ops.score_tail, args=arguments)
    times = [time.perf_counter()]
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        times.append(time.perf_counter())
    # With the GIL held, the whole call would be one gap.
    assert max(b - a for a, b in pairwise(times)) < 0.5 * (times[-1] - times[0])


def test_the_profile_of_python_takes_its_time() -> None:
    def python() -> int:
        total = 0
        for i in range(300_000):
            total += i * i
        return total

    began = time.perf_counter()
    python()
    alone = time.perf_counter() - began
    overhead = measure_overhead(20_000)
    assert 0 < overhead.python < 1e-5
    assert 0 <= overhead.native < 1e-5
    assert 0.3 * alone < profile(python, overhead).python() < 3 * alone
