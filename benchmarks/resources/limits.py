"""What a streaming multiprocessor has, and how many blocks of a kernel fit into it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """Limits from NVIDIA's CUDA C++ Programming Guide, table "Technical Specifications per Compute
    Capability".

    Attributes:
        shared: bytes of shared memory that a block may use at most, and a multiprocessor has (with the KiB
            that the system takes of every block).
        warps: resident on a multiprocessor.
    """

    name: str
    capability: int
    shared_of_block: int
    shared: int
    warps: int
    registers: int = 65_536
    blocks: int = 32

    def occupancy(self, registers: int, shared: int, warps: int) -> float:
        """Share of a multiprocessor's warps that blocks of ``warps`` warps keep resident."""
        # Registers are given to warps in pieces of 256, shared memory to blocks with 1 KiB on top.
        of_warp = -(-max(1, registers) * 32 // 256) * 256
        by_registers = self.registers // (of_warp * warps)
        by_shared = self.shared // (shared + 1024)
        blocks = min(self.blocks, by_registers, by_shared, self.warps // warps)
        return blocks * warps / self.warps


A100 = Architecture("sm_80", 80, 163 * 1024, 164 * 1024, 64)
H100 = Architecture("sm_90", 90, 227 * 1024, 228 * 1024, 64)
ARCHITECTURES = {80: A100, 90: H100}


@dataclass(frozen=True)
class Resources:
    """What one kernel needs, compiled for one architecture.

    Attributes:
        case: shapes, dtype and block sizes.
        shared: bytes, static and dynamic.
        spills: bytes stored and loaded because registers did not suffice.
        matrix: matrix instructions in the machine code.
        wants_matrix: whether there must be some.
    """

    kernel: str
    case: str
    architecture: Architecture
    registers: int
    shared: int
    spills: int
    warps: int
    matrix: int
    wants_matrix: bool

    @property
    def occupancy(self) -> float:
        return self.architecture.occupancy(self.registers, self.shared, self.warps)

    def faults(self) -> list[str]:
        """What is wrong: spills, too much shared memory, no matrix instruction where one is wanted."""
        found = []
        where = f"{self.kernel}, {self.case}, {self.architecture.name}"
        if self.spills:
            found.append(f"{where}: spills {self.spills} bytes")
        if self.shared > self.architecture.shared_of_block:
            found.append(
                f"{where}: {self.shared} bytes of shared memory, at most {self.architecture.shared_of_block}"
            )
        if self.wants_matrix and not self.matrix:
            found.append(f"{where}: no matrix instruction")
        if self.occupancy == 0.0:
            found.append(f"{where}: no block fits")
        return found
