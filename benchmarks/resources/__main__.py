"""The command."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ..record import write
from . import issue_slots
from .limits import ARCHITECTURES, Resources


def main(check: bool = False, quick: bool = False) -> int:
    """Compile every kernel and report.

    Args:
        check: write nothing; exit status 1 if a kernel spills, needs more shared memory than there is or has
            no matrix instruction where there should be some.
        quick: the first block sizes of each kernel, fewer dtypes, the newest GPU: a twentieth of the time.
    """
    from . import cuda_kernels
    from .triton_kernels import cases, resources

    console = Console(stderr=True)
    capabilities = list(ARCHITECTURES)[-1:] if quick else list(ARCHITECTURES)
    jobs = [
        (kernel, case, launch, config, capability)
        for kernel, case, launch in cases(quick)
        for config in (launch.configs[:1] if quick else launch.configs)
        for capability in capabilities
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = list(
            track(pool.map(lambda job: resources(*job), jobs), "compiling", len(jobs), console=console)
        )
    if cuda_kernels.compiler() is None:
        console.print("no nvcc: the CUDA kernels are left out", highlight=False)
    else:
        found += cuda_kernels.resources(capabilities)
    faults = [fault for each in found for fault in each.faults()]
    for fault in faults:
        console.print(fault, style="red", highlight=False)
    if not check and cuda_kernels.compiler() is not None:
        rows = [{**asdict(each), "architecture": each.architecture.name} for each in found]
        slots = {ARCHITECTURES[c].name: issue_slots.issue_slots(c) for c in ARCHITECTURES}
        data = {"kernels": rows, "instructions of a slice": slots}
        write("gpu-resources", "python -m benchmarks.resources", _table(found), data, "", _slots(slots))
    console.print(f"{len(found)} kernels, {len(faults)} faults", highlight=False)
    return 1 if faults else 0


def _table(found: list[Resources]) -> Table:
    table = Table(title="What the GPU kernels need, as compiled")
    for header in ("kernel", "case", "for"):
        table.add_column(header)
    for header in ("registers", "shared bytes", "spilled bytes", "warps", "occupancy", "matrix instructions"):
        table.add_column(header, justify="right")
    for each in found:
        table.add_row(
            each.kernel, each.case, each.architecture.name, str(each.registers), f"{each.shared:,}",
            str(each.spills), str(each.warps), f"{each.occupancy:.0%}", str(each.matrix),
        )  # fmt: skip
    return table


def _slots(slots: dict[str, dict[str, int]]) -> Table:
    table = Table(title="Instructions of score_tail (CUDA), rank 8")
    for header in ("for", "products"):
        table.add_column(header)
    shape = (4_096, 768, 768, 64)
    table.add_column("instructions of a warp per slice", justify="right")
    table.add_column("least ms for 64 candidates, 4,096 x 768 -> 768", justify="right")
    for capability, architecture in ARCHITECTURES.items():
        for name, count in slots[architecture.name].items():
            least = issue_slots.milliseconds(count, capability, *shape)
            table.add_row(architecture.name, name, f"{count:,}", f"{least:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
