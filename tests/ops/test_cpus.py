"""How many threads the core starts with: environment, affinity and the quotas of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import programs
import pytest

from rledit import _native


def files(root: Path, contents: dict[str, str]) -> str:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("membership", "contents", "cpus"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),  # the parent binds
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "300000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),  # inside a container the own group is the root
        ("0::/\n", {"cpu.max": "max 100000\n"}, 0),
        ("0::/a\n", {}, 0),
        (
            "5:cpu,cpuacct:/a\n1:name=systemd:/\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 0),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "nonsense", "cpu/cpu.cfs_period_us": "0"}, 0),
        ("rubbish\n:\n::\n", {}, 0),
    ],
)
def test_quotas(tmp_path: Path, membership: str, contents: dict[str, str], cpus: int) -> None:
    listed = tmp_path / "membership"
    listed.write_text(membership)
    assert _native._quota_cpus(str(listed), files(tmp_path / "root", contents)) == cpus


def test_without_control_groups() -> None:
    assert _native._quota_cpus("/nowhere/cgroup", "/nowhere") == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks on this system")
def test_the_affinity_mask_counts() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});" + CORE
    assert run(code + "print(core.num_threads())") == "1"


# The core without the package around it, which imports torch and takes long.
CORE = f"""
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
loader = ExtensionFileLoader("rledit._native", {_native.__file__!r})
core = module_from_spec(spec_from_loader("rledit._native", loader))
loader.exec_module(core)
"""


def run(code: str, check: bool = True, **variables: str) -> str:
    """What a program prints, and raises where it may fail, in an environment with these variables alone."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment | variables
    )
    assert not check or done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).strip()


OWN, OPENMP = "RLEDIT_NUM_THREADS", "OMP_NUM_THREADS"


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({OPENMP: "7"}, 7),
        ({OPENMP: " 7 "}, 7),
        ({OPENMP: "7,3,2"}, 7),
        ({OPENMP: "100000"}, 1024),  # more than the core ever starts
        ({OWN: "5"}, 5),
        ({OWN: "1024"}, 1024),
        ({OWN: "5", OPENMP: "7"}, 5),
        ({OWN: "5", OPENMP: "x"}, 5),
        ({OWN: "", OPENMP: "7"}, 7),
    ],
    ids=str,
)
def test_the_environment_counts(variables: dict[str, str], threads: int) -> None:
    printed = run(
        CORE + "print(core.num_threads()); core.set_num_threads(3); print(core.num_threads())", **variables
    )
    assert printed.split() == [str(threads), "3"]  # whatever it says, a program's own word is the last


def test_what_is_no_number_of_openmp_is_passed_over() -> None:
    code = CORE + "print(core.num_threads())"
    usual = run(code)
    for wrong in ("", "0", "-3", "x", "2.5", "4x", "0x10", ",4", "+4", "1 2"):
        assert run(code, **{OPENMP: wrong}) == usual, wrong


@pytest.mark.parametrize("wrong", ["0", "-3", "x", "2.5", "4,2", "1025", "99999999999999999999"])
def test_what_is_no_number_of_ours_is_an_error(wrong: str) -> None:
    message = f"ValueError: RLEDIT_NUM_THREADS: expected a number of threads, 1..1024, got '{wrong}'"
    printed = run(CORE + "core.num_threads()", check=False, **{OWN: wrong})
    assert printed.endswith(message)


def test_an_error_of_the_environment_is_raised_at_import() -> None:
    printed = programs.run("import rledit", variables={OWN: "many"}).stderr.strip()
    assert printed.endswith("RLEDIT_NUM_THREADS: expected a number of threads, 1..1024, got 'many'")
    assert "ImportError" not in printed
