"""The kernels for GPUs compile for sm_80 and sm_90, without spills and within shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT))  # for the benchmarks
try:
    from benchmarks.resources.issue_slots import RANK, milliseconds, of_slice
    from benchmarks.resources.limits import A100, H100, Architecture, Resources
finally:
    if str(ROOT) in sys.path:
        sys.path.remove(str(ROOT))


@pytest.mark.exhaustive
def test_every_kernel_compiles_and_fits() -> None:
    """In a process of its own: here Triton's interpreter may have taken the kernels' place."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT)],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Not "python -m benchmarks.resources": it would import rledit from the source tree.
PROGRAM = """
import sys
import rledit
sys.path.append(sys.argv[1])
from benchmarks.resources.__main__ import main
sys.exit(main(check=True, quick=True))
"""


@pytest.mark.parametrize(
    ("architecture", "registers", "shared", "warps", "expected"),
    # By NVIDIA's occupancy calculator.
    [
        (A100, 32, 0, 4, 1.0),
        (A100, 168, 38_144, 4, 0.1875),
        (A100, 255, 0, 4, 0.125),
        (H100, 64, 100_000, 8, 0.25),
    ],
)
def test_occupancy(
    architecture: Architecture, registers: int, shared: int, warps: int, expected: float
) -> None:
    assert architecture.occupancy(registers, shared, warps) == expected


def test_faults_are_found() -> None:
    good = Resources("k", "case", A100, 64, 1000, 0, 4, 8, True)
    assert good.faults() == []
    for changes, message in [
        ({"spills": 4}, "spills 4 bytes"),
        ({"shared": 200_000}, "200000 bytes of shared memory"),
        ({"matrix": 0}, "no matrix instruction"),
    ]:
        found = Resources(**{**good.__dict__, **changes}).faults()
        assert any(message in fault for fault in found), found


SLICE = """
.L_x_1:
        /*0000*/                   MOV R1, R2 ;
.L_x_2:
        /*0010*/                   LDGSTS.E.BYPASS.128 [R1], [R2.64] ;
        /*0020*/                   BRA `(.L_x_2) ;
.L_x_3:
        /*0030*/                   LDGSTS.E [R1], [R2.64] ;
        /*0040*/                   BRA `(.L_x_3) ;
.L_x_4:
        /*0050*/                   IADD3 R1, R2, R3, RZ ;
.L_x_5:
        /*0060*/                   LDG.E R1, [R2.64] ;
        /*0070*/                   BRA `(.L_x_5) ;
.L_x_6:
        /*0080*/                   LDS.128 R4, [R2] ;
        /*0090*/              @!P0 BRA `(.L_x_6) ;
        /*00a0*/                   STS [R1], R2 ;
        /*00b0*/              @!P0 BRA `(.L_x_4) ;
.L_x_7:
        /*00c0*/                   HMMA.1688.F32.TF32 R4, R8, R10, R4 ;
        /*00d0*/              @!P0 BRA `(.L_x_7) ;
        /*00e0*/              @!P0 BRA `(.L_x_1) ;
        /*00f0*/                   EXIT ;
"""


def test_instructions_of_a_slice() -> None:
    """Once, copies four times, weights twice, their ranks each time, products four times."""
    assert of_slice(SLICE) == 2 + 4 * 2 + 2 * (3 + RANK * 2) + 4 * 2
    assert milliseconds(1000, 90, 64, 32, 64, 132 * 1_755) == 1.0


def test_a_loop_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match="nobody knows"):
        of_slice(SLICE.replace("LDS.128 R4, [R2]", "NOP"))
