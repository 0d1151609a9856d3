"""The backends for GPUs as tests have them: on a GPU where there is one, else Triton's interpreter, and the
CUDA sources compiled for the CPU over the shim in ``cuda_shim``."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rledit.ops import Backend, backend
from rledit.ops.cuda_backend import CudaKernels
from rledit.ops.gpu import GpuOps

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("triton", "cuda")

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *(f"csrc/cuda/{name}.cu" for name in ("score_tail", "tally_logits", "apply_lowrank")),
    "tests/cuda_shim/shim.cpp",
    "tests/cuda_shim/order.cpp",
    "csrc/bindings/cuda.cpp",
)
INCLUDES = ("tests/cuda_shim", "csrc/include", "csrc/cuda")


@cache
def gpu_backend(name: str) -> Backend:
    """Skips the test where the backend cannot be had."""
    if name == "triton":
        pytest.importorskip("triton")
        return backend("triton")
    if DEVICE == "cuda":
        try:
            return backend("cuda")
        except RuntimeError as error:
            pytest.skip(str(error))
    kernels = CudaKernels(cuda_on_host())
    return GpuOps("cuda", (torch.float32,), lambda: True, lambda: kernels)


@cache
def cuda_on_host() -> ModuleType:
    """``rledit._cuda`` for the CPU, compiled once for these very sources. ``RLEDIT_SHIM_FLAGS`` adds flags,
    such as those of a sanitizer."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("there is no C++ compiler for the CUDA sources")
    pybind11 = pytest.importorskip("pybind11")
    if not (ROOT / SOURCES[0]).is_file():
        pytest.skip(f"the CUDA sources are not here: {ROOT / SOURCES[0]} does not exist")
    flags = [
        "-std=c++17",
        "-O2",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-Wno-unknown-pragmas",
        "-U_FORTIFY_SOURCE",
        "-DRLEDIT_CUDA_BLOCKS=6",
    ]
    flags += shlex.split(os.environ.get("RLEDIT_SHIM_FLAGS", ""))
    folders = [
        *(str(ROOT / name) for name in INCLUDES),
        pybind11.get_include(),
        sysconfig.get_paths()["include"],
    ]
    digest = hashlib.sha256(" ".join([compiler, *flags, *folders]).encode())
    for folder in ("csrc", "tests/cuda_shim"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file():
                digest.update(path.read_bytes())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    built = (
        Path(tempfile.gettempdir())
        / f"rledit-shim-{os.getuid()}-{digest.hexdigest()[:16]}"
        / f"_cuda{suffix}"
    )
    if not built.exists():
        built.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
            partial = Path(scratch) / "_cuda.so"
            command = [compiler, *flags, *(f"-I{folder}" for folder in folders), "-x", "c++"]
            command += [*(str(ROOT / source) for source in SOURCES), "-o", str(partial)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            partial.rename(built)
    spec = importlib.util.spec_from_file_location("_cuda", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
