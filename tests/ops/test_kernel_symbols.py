"""Kernel objects of different instruction sets share no function: the linker would keep one for everybody."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "csrc/cpu/kernels/kernels.cpp"

# Lanes, rows, bfloat16 products and flags as CMakeLists.txt has them. The emulated tiles compile everywhere.
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mpopcnt"]
KERNELS: dict[str, tuple[int, int, int, list[str]]] = {
    "portable": (4, 6, 0, []),
    "amx_emulated": (4, 16, 3, []),
}
if platform.machine() in ("x86_64", "AMD64"):
    KERNELS |= {
        "avx2": (8, 6, 0, ["-mavx2", "-mfma", "-mpopcnt"]),
        "avx512_bf16": (16, 12, 1, [*AVX512, "-mavx512bf16"]),
    }


def defined_symbols(isa: str, folder: Path, compiler: str, nm: str) -> set[str]:
    """What an object without any inlining offers to others: weak or global, functions or data."""
    lanes, rows, bf16, flags = KERNELS[isa]
    built = folder / f"{isa}.o"
    numbers = {"ISA": isa, "LANES": lanes, "ROWS": rows, "BF16": bf16}
    command = [compiler, "-std=c++17", "-O0", "-c", "-Wno-psabi", *flags, str(SOURCE), "-o", str(built)]
    command += [f"-DRLEDIT_{name}={value}" for name, value in numbers.items()]
    command += [f"-I{ROOT / 'csrc/include'}", f"-I{ROOT / 'csrc/cpu'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0 and flags and "unrecognized" in done.stderr:
        pytest.skip(f"{compiler} does not know {flags}")
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [nm, "--extern-only", "--defined-only", str(built)], capture_output=True, text=True, check=True
    )
    return {line.split()[-1] for line in listed.stdout.splitlines() if line.strip()}


@pytest.mark.exhaustive
def test_kernel_objects_share_no_symbol(tmp_path: Path) -> None:
    compiler, nm = shutil.which(os.environ.get("CXX", "g++")), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("needs a C++ compiler, such as g++, and nm")
    if not SOURCE.is_file():
        pytest.skip(f"the kernels' source is not here: {SOURCE} does not exist")
    found = {isa: defined_symbols(isa, tmp_path, compiler, nm) for isa in KERNELS}
    for isa, symbols in found.items():
        assert any(isa in name and name.endswith("5tableE") for name in symbols), (
            symbols
        )  # nm shows what it should
        # Mangled, a name holds each namespace with its length, so that avx512 is not found in avx512_bf16.
        assert [name for name in symbols if f"{len(isa)}{isa}" not in name] == []
    for isa, symbols in found.items():
        others = set().union(*(theirs for other, theirs in found.items() if other != isa))
        assert symbols & others == set()
