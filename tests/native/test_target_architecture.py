"""For which architecture the kernels are built, also where that is not the machine's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "cmake" / "target_architecture.cmake"

SCRIPT = f"""
include({MODULE})
rledit_target_architecture(found)
message("found ${{found}}")
"""


def cmake(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("cmake")
    if found is None:
        pytest.skip("there is no cmake")
    if not MODULE.is_file():
        pytest.skip(f"the build's files are not here: {MODULE} does not exist")
    script = folder / "script.cmake"
    script.write_text(SCRIPT)
    defined = [f"-D{name}={value}" for name, value in variables.items()]
    return subprocess.run([found, *defined, "-P", str(script)], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("processor", "apple", "architectures", "expected"),
    [
        ("x86_64", "", "", "x86_64"),
        ("AMD64", "", "", "x86_64"),
        ("aarch64", "", "", "other"),
        ("ppc64le", "", "", "other"),
        ("x86_64", "1", "", "x86_64"),
        ("arm64", "1", "", "other"),
        ("x86_64", "1", "arm64", "other"),
        ("arm64", "1", "x86_64", "x86_64"),
        ("arm64", "1", "x86_64h", "x86_64"),
        ("x86_64", "", "arm64", "x86_64"),  # means nothing on other systems
    ],
)
def test_architecture(tmp_path: Path, processor: str, apple: str, architectures: str, expected: str) -> None:
    done = cmake(
        tmp_path, CMAKE_SYSTEM_PROCESSOR=processor, APPLE=apple, CMAKE_OSX_ARCHITECTURES=architectures
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == f"found {expected}"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    done = cmake(tmp_path, CMAKE_SYSTEM_PROCESSOR="arm64", APPLE="1", CMAKE_OSX_ARCHITECTURES="arm64;x86_64")
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert "CMAKE_OSX_ARCHITECTURES: expected one architecture, got 'arm64;x86_64'" in message
    assert "Build a wheel for each" in message
