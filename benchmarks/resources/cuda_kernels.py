"""The CUDA kernels, compiled by nvcc."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from .. import ROOT
from .limits import ARCHITECTURES, Resources

SOURCES = ("score_tail", "tally_logits", "apply_lowrank")
WARPS = 4
# What a launch asks for: the size of each file's struct Shared, printed by a program that includes the file.
SIZES = """
#include "{source}.cu"
#include <cstdio>
int main() {{ {prints} }}
"""
PRINTS = {
    "score_tail": "using namespace rledit::cuda; using P = rledit::Precision; "
    'std::printf("%zu %zu %zu\\n", sizeof(Shared<ProductTiles<P::float32>>), '
    "sizeof(Shared<ProductTiles<P::bfloat16>>), sizeof(Shared<HopperTiles>));",
    "tally_logits": 'std::printf("%zu\\n", sizeof(rledit::cuda::Shared));',
    "apply_lowrank": 'std::printf("%zu\\n", sizeof(rledit::cuda::LeftFactors));',
}
PRECISIONS = ("float32", "bfloat16")


def compiler() -> str | None:
    """nvcc, if it is installed."""
    return shutil.which("nvcc")


def resources(capabilities: Iterable[int] = tuple(ARCHITECTURES)) -> Iterator[Resources]:
    """What every kernel needs on each of these architectures."""
    for source in SOURCES:
        shared = _shared_bytes(source)
        for capability in capabilities:
            yield from _of(source, capability, shared)


def _shared_bytes(source: str) -> list[int]:
    """Bytes of shared memory by precision, where the kernel has one; then those of the one for Hopper."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "sizes.cpp"
        program.write_text(SIZES.format(source=source, prints=PRINTS[source]))
        folders = [f"-I{ROOT / name}" for name in ("tests/cuda_shim", "csrc/include", "csrc/cuda")]
        command = ["c++", "-std=c++17", "-w", *folders, str(program), str(ROOT / "tests/cuda_shim/shim.cpp")]
        subprocess.run([*command, "-o", f"{scratch}/sizes"], check=True)
        return [int(size) for size in subprocess.check_output([f"{scratch}/sizes"], text=True).split()]


@cache
def compiled(source: str, capability: int) -> tuple[str, dict[str, str]]:
    """What ptxas says of a source, and the machine code of each of its functions."""
    from .triton_kernels import BIN

    nvcc = compiler()
    assert nvcc is not None
    with tempfile.TemporaryDirectory() as scratch:
        cubin = Path(scratch) / "kernel.cubin"
        suffix = "a" if capability == 90 else ""
        command = [nvcc, "-std=c++17", f"-arch=sm_{capability}{suffix}", "-cubin", "-Xptxas", "-v"]
        command += ["-o", str(cubin), f"-I{ROOT / 'csrc/include'}", str(ROOT / "csrc/cuda" / f"{source}.cu")]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        disassemble = [str(BIN / "nvdisasm"), "-c", str(cubin)]
        code = subprocess.run(disassemble, capture_output=True, text=True, check=True).stdout
    # ptxas says so where products could not run beside other work.
    assert "serialized" not in report, report
    parts = re.split(r"\.section\s+\.text\.(\w+)", code)
    return report, dict(zip(parts[1::2], parts[2::2], strict=True))


def _of(source: str, capability: int, shared: list[int]) -> Iterator[Resources]:
    report, code = compiled(source, capability)
    matrix = {name: len(re.findall(r"\bH(?:G)?MMA\b", body)) for name, body in code.items()}
    entries = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        report,
        re.DOTALL,
    )
    assert entries, report
    for name, stores, loads, registers in entries:
        # The template argument of the mangled name; kernels without one have one size of shared memory.
        found = re.search(r"PrecisionE(\d)E", name)
        kind = int(found[1]) if found else 0
        hopper = "HopperTiles" in name
        if hopper and capability < 90:
            continue  # the same as the others
        yield Resources(
            f"{source} (CUDA)", (PRECISIONS[kind] if found else "float32") + (", wgmma" if hopper else ""),
            ARCHITECTURES[capability], int(registers), shared[kind + 2 * hopper], int(stores) + int(loads),
            WARPS, matrix.get(name, 0), source == "score_tail",
        )  # fmt: skip
