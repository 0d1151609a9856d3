"""Commands that print every figure of the README, and write it to benchmarks/results.

``python -m benchmarks.NAME`` from the root of a checkout measures the *installed* rledit: the checkout
itself, whose ``rledit`` folder has no compiled core, is taken off the import path here.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
