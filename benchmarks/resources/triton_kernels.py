"""The Triton kernels, compiled ahead of time: exactly the launches that the ops would make."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from rledit.kernels import apply_lowrank, population_linear, score_tail, tally_logits
from rledit.kernels.launch import INTERPRETED
from rledit.ops import Candidates, EditRule, Layer, TailProblem, Wanted
from rledit.ops.gpu import member_bits

from .limits import ARCHITECTURES, Resources

BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64",
    torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TAILS = {
    "128-32-10, rank 4": ((128, 32, 10), (4, 0), ["correct"]),
    "16-2, rank 2, 50 groups": ((16, 2), (2,), ["correct", "histogram"]),
    "768-768-10, rank 8": ((768, 768, 10), (8, 0), ["correct", "loss"]),
    "1024-4096-1000, rank 8": ((1024, 4096, 1000), (8, 0), ["correct"]),
    "all of 64-64-32-5, rank 4": ((64, 64, 32, 5), (4, 4, 4), ["correct", "predicted", "confusion"]),
}


@dataclass(frozen=True)
class Launch:
    """One call of a kernel, with the block sizes that it could have."""

    kernel: Any
    arguments: dict[str, Any]
    configs: list[triton.Config]


class _Recorder:
    """Stands in a module for its kernel, and keeps what it is called with."""

    def __init__(self, tuned: Any) -> None:
        self.tuned = tuned
        self.launches: list[Launch] = []

    def __getitem__(self, grid: Any) -> Any:
        def record(*arguments: Any, **more: Any) -> None:
            named = dict(zip(self.tuned.arg_names, arguments, strict=False)) | more
            prune = self.tuned.early_config_prune
            configs = self.tuned.configs
            if prune is not None:
                configs = prune(configs, named)
            self.launches.append(Launch(self.tuned.fn, named, configs))

        return record


def launches(module: ModuleType, name: str, call: Any) -> list[Launch]:
    """What ``call()`` launches of a module's kernel, which is not run."""
    recorder = _Recorder(getattr(module, name))
    setattr(module, name, recorder)
    try:
        call()
    finally:
        setattr(module, name, recorder.tuned)
    return recorder.launches


def _type_of(value: Any) -> Any:
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}"
    if isinstance(value, tuple):
        return tuple(_type_of(item) for item in value)
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32"
    return "fp32"


def compile_for(launch: Launch, config: triton.Config, capability: int) -> Any:
    """Compile as the just-in-time compiler would: aligned pointers, constants folded in."""
    kernel = launch.kernel
    values = launch.arguments | config.kwargs
    signature: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
            continue
        signature[parameter.name] = _type_of(value)
        if isinstance(value, Tensor):
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, tuple):
            for position, item in enumerate(value):
                if isinstance(item, Tensor):
                    attributes[(index, position)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def _tool(path: str, *arguments: str) -> str:
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def resources(kernel: str, case: str, launch: Launch, config: triton.Config, capability: int) -> Resources:
    """What ptxas says of a compiled launch, and the matrix instructions of its machine code."""
    compiled = compile_for(launch, config, capability)
    with tempfile.TemporaryDirectory() as scratch:
        ptx, cubin = Path(scratch) / "kernel.ptx", Path(scratch) / "kernel.cubin"
        ptx.write_text(compiled.asm["ptx"])
        cubin.write_bytes(compiled.asm["cubin"])
        suffix = "a" if capability == 90 else ""
        report = _tool(
            get_ptxas(capability).path,
            "-v",
            f"--gpu-name=sm_{capability}{suffix}",
            str(ptx),
            "-o",
            "/dev/null",
        )
        machine_code = _tool(str(BIN / "nvdisasm"), str(cubin))
    registers = re.search(r"Used (\d+) registers", report)
    assert registers is not None, report
    spills = sum(int(number) for number in re.findall(r"(\d+) bytes spill", report))
    operand = launch.arguments.get("OPERAND")
    blocks = ", ".join(f"{name} {value}" for name, value in config.kwargs.items())
    return Resources(
        kernel,
        f"{case}, {blocks}",
        ARCHITECTURES[capability],
        int(registers[1]),
        compiled.metadata.shared,
        spills,
        config.num_warps,
        len(re.findall(r"\b(?:HMMA|HGMMA)\b", machine_code)),
        operand is not None and operand != tl.float32,
    )


def cases(quick: bool = False) -> Iterator[tuple[str, str, Launch]]:
    """Kernel, case, launch: the shapes of the CPU's benchmarks, every dtype, both worlds.

    Args:
        quick: float32 and bfloat16 in one world each.
    """
    if INTERPRETED:
        raise RuntimeError("TRITON_INTERPRET is set: the interpreter's kernels cannot be compiled")
    pairs = [(torch.float32, ["mask"]), (torch.bfloat16, ["shift"])]
    for dtype, worlds in pairs if quick else [(dtype, ["shift", "mask"]) for dtype in DTYPES]:
        for world in worlds:
            yield from _tails(dtype, world)
            yield from _edits(dtype, world)
        yield from _suffixes(dtype)
    yield from _tallies()


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tails(dtype: torch.dtype, world: str) -> Iterator[tuple[str, str, Launch]]:
    samples, candidates = 256, 4
    for name, (sizes, ranks, wanted) in TAILS.items():
        groups = 50 if "groups" in name else 2
        weights = [torch.empty(o, i, dtype=dtype) for i, o in pairwise(sizes)]
        lefts = [torch.empty(candidates, len(w), r, dtype=dtype) if r else None
                 for w, r in zip(weights, ranks, strict=True)]  # fmt: skip
        rights = [torch.empty(candidates, r, w.shape[1], dtype=dtype) if r else None
                  for w, r in zip(weights, ranks, strict=True)]  # fmt: skip
        functions = ["relu"] * (len(weights) - 1) + ["identity"]
        layers = tuple(
            Layer(weight, torch.empty(len(weight), dtype=dtype), function)
            for weight, function in zip(weights, functions, strict=True)
        )
        masks = torch.zeros(groups, samples, dtype=torch.bool)
        problem = TailProblem(
            torch.empty(samples, sizes[0], dtype=dtype),
            layers,
            torch.zeros(samples, dtype=torch.int64),
            masks,
        )
        batch = Candidates(candidates, EditRule(world), lefts, rights, [None] * len(layers))
        call = partial(score_tail.score_tail, problem, member_bits(masks), batch, Wanted(wanted))

        for launch in launches(score_tail, "score_tail_kernel", call):
            yield "score_tail", f"{name}, {world}, {_short(dtype)}", launch


def _edits(dtype: torch.dtype, world: str) -> Iterator[tuple[str, str, Launch]]:
    weight = torch.empty(4, 768, 768, dtype=dtype)
    left, right = torch.empty(4, 768, 8, dtype=dtype), torch.empty(4, 8, 768, dtype=dtype)
    for launch in launches(
        apply_lowrank,
        "apply_lowrank_kernel",
        lambda: apply_lowrank.apply_lowrank_(weight, left, right, EditRule(world)),
    ):
        yield "apply_lowrank_", f"768x768, rank 8, {world}, {_short(dtype)}", launch


def _suffixes(dtype: torch.dtype) -> Iterator[tuple[str, str, Launch]]:
    shared, reduced = torch.empty(256, 768, dtype=dtype), torch.empty(256, 4, 8, dtype=dtype)
    left = torch.empty(4, 768, 8, dtype=dtype)
    for launch in launches(
        population_linear,
        "population_linear_kernel",
        lambda: population_linear.population_linear(shared, reduced, left, 1.0),
    ):
        yield "population_linear", f"768 outputs, rank 8, {_short(dtype)}", launch


def _tallies() -> Iterator[tuple[str, str, Launch]]:
    for classes, groups, wanted in (
        (10, 2, ["correct", "loss"]),
        (2, 50, ["histogram"]),
        (1000, 2, ["loss"]),
    ):
        labels, masks = torch.zeros(256, dtype=torch.int64), torch.zeros(groups, 256, dtype=torch.bool)
        logits = torch.empty(4, 256, classes)

        call = partial(tally_logits.tally_logits, logits, labels, member_bits(masks), groups, Wanted(wanted))
        for launch in launches(tally_logits, "tally_logits_kernel", call):
            yield "tally_logits", f"{classes} classes, {groups} groups", launch
