"""What the machine could do at most: the roofline of a score.

``limit = max(operations / peak, bytes / bandwidth)``, with peak and bandwidth measured in the same run by
loops that do nothing else, on all threads. The fraction of the limit is ``limit / our time``; no
program that does these operations can exceed 100%.

Operations, a multiplication and an addition counted as two, with S samples, I inputs, O outputs, C classes (0
where the edited layer gives the logits), N candidates of rank R:

- mask: ``2 N S (I O + O C)`` for the products, ``N O I (2 R + 2)`` for forming the weights;
- shift: the same, or ``2 S I O`` once for the product that the candidates share and ``2 N S (R (I + O) + O
  C)`` for the rest, whichever is less.

Comparing logits and counting is left out, and forming weights is taken at the rate of products, in bfloat16
too. Both make the limit stricter than the truth.

Bytes, each moved once: ``4 (S I + N R (I + O) + I O + O C)``. They are float32 in both precisions, because
that is what the scorer is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import rledit

from ..scoring import Shape

PROBED_BYTES = 256 << 20  # several times any last-level cache that the activations could hide in
PROBE_SECONDS = 0.3


@dataclass(frozen=True)
class Machine:
    """What was measured."""

    peak: dict[str, float]  # precision -> operations per second
    bandwidth: float  # bytes per second

    def limit(self, operations: int, moved: int, precision: str) -> float:
        """Seconds that it takes at least."""
        return max(operations / self.peak[precision], moved / self.bandwidth)

    def better(self, other: Machine) -> Machine:
        """The best of both: other programs can only make a machine look slower than it is."""
        return Machine(
            {precision: max(peak, other.peak[precision]) for precision, peak in self.peak.items()},
            max(self.bandwidth, other.bandwidth),
        )


def probe(precisions: Sequence[str], seconds: float) -> Machine:
    """Measure the machine; called again and again in a run, of which the best counts."""
    return Machine(
        {precision: rledit._native.probe_peak(precision, seconds) for precision in precisions},
        rledit._native.probe_bandwidth(PROBED_BYTES, seconds),
    )


def operations(shape: Shape, world: str) -> int:
    """Operations that the candidates of a shape take at least."""
    s, i, o, c, n, r = (
        shape.samples, shape.inputs, shape.outputs, shape.classes, shape.candidates, shape.rank
    )  # fmt: skip
    formed = 2 * n * s * (i * o + o * c) + n * o * i * (2 * r + 2)
    if world == "mask":
        return formed
    return min(formed, 2 * s * i * o + 2 * n * s * (r * (i + o) + o * c))


def moved_bytes(shape: Shape) -> int:
    """Bytes that a score reads at least."""
    s, i, o, c, n, r = (
        shape.samples, shape.inputs, shape.outputs, shape.classes, shape.candidates, shape.rank
    )  # fmt: skip
    return 4 * (s * i + n * r * (i + o) + i * o + o * c)
