"""How many instructions a warp of CUDA's score_tail issues for one slice: 64 samples, 64 outputs, 32 inputs.

From the disassembly: a loop of the machine code is told by what is in it, and counts as often as the source
says it runs. Waiting is not counted, so the number is a lower bound."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .cuda_kernels import compiled

RANK = 8
MULTIPROCESSORS = {80: (108, 1.41e9), 90: (132, 1.755e9)}
"""How many an A100 and an H100 SXM have, and their boost clock in Hz (NVIDIA's white papers)."""

KERNELS = {
    "float32, wmma": ("ProductTiles", 0),
    "float32, wgmma": ("HopperTiles", None),
    "bfloat16, wmma": ("ProductTiles", 1),
}


@dataclass(frozen=True)
class Loop:
    first: int
    last: int

    def holds(self, at: int) -> bool:
        return self.first <= at <= self.last


def issue_slots(capability: int) -> dict[str, int]:
    """Instructions of a warp for a slice at rank 8, by kernel."""
    _, code = compiled("score_tail", capability)
    found = {}
    for name, (tiles, precision) in KERNELS.items():
        if tiles == "HopperTiles" and capability < 90:
            continue
        for function, body in code.items():
            of_precision = precision is None or f"PrecisionE{precision}" in function
            if "score_tail_kernel" in function and tiles in function and of_precision:
                found[name] = of_slice(body)
    return found


def of_slice(body: str) -> int:
    """Instructions of a warp for a slice, from one function's disassembly."""
    code: list[str] = []
    labels: dict[str, int] = {}
    for line in map(str.strip, body.splitlines()):
        if label := re.match(r"\.(L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif instruction := re.match(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            code.append(instruction[1])
    loops = []
    for at, instruction in enumerate(code):
        target = re.search(r"BRA.*`\(\.(L_x_\d+)\)", instruction)
        if target and labels.get(target[1], len(code)) <= at:
            loops.append(Loop(labels[target[1]], at))

    def count(loop: Loop, pattern: str) -> int:
        return sum(re.search(pattern, line) is not None for line in code[loop.first : loop.last + 1])

    products = r"\bHG?MMA"
    whole = min(
        (loop for loop in loops if count(loop, products) and count(loop, "LDGSTS")),
        key=lambda loop: loop.last - loop.first,
    )
    inner = [loop for loop in loops if loop != whole and whole.holds(loop.first) and whole.holds(loop.last)]

    def trips(loop: Loop) -> int:
        if count(loop, products):
            return 4  # of 8 inputs each
        if count(loop, "LDGSTS"):
            return 4 if count(loop, r"LDGSTS\S*\.128\b") else 0  # copies of 16 bytes; of 4 where they must be
        if count(loop, "STS"):
            return 2  # form: eight of a thread's sixteen weights
        if count(loop, "LDS"):
            return RANK  # left factors out of shared memory
        if count(loop, "LDG"):
            return 0  # and out of global memory, for larger ranks
        raise ValueError("a loop that nobody knows: has the source changed?")

    total = 0
    for at in range(whole.first, whole.last + 1):
        times = 1
        for loop in inner:
            if loop.holds(at):
                times *= trips(loop)
        total += times
    return total


def milliseconds(
    slots: int, capability: int, samples: int, inputs: int, outputs: int, candidates: int
) -> float:
    """The least time that issuing takes for one layer: of a block's four warps each has its own scheduler."""
    slices = candidates * -(-samples // 64) * -(-outputs // 64) * -(-inputs // 32)
    multiprocessors, clock = MULTIPROCESSORS[capability]
    return 1e3 * slices * slots / (multiprocessors * clock)
