"""How many threads the core starts with: affinity and the quotas of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "import rledit; print(rledit.num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "1", done.stderr
