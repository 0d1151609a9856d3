"""The three ops that everything else is built on.

``apply_lowrank_``, ``score_tail`` and ``tally_logits`` are registered torch ops (``torch.ops.rledit.*``).
Each is defined by a reference in plain PyTorch, which stands beside its schema in the file of its name;
:mod:`rledit.ops.native` runs it in C++ on the CPU, and :mod:`rledit.ops.backends` picks by name.
"""

from .apply_lowrank import apply_lowrank_, apply_lowrank_ref
from .backends import BACKENDS, Backend, backend
from .counts import TALLY_PARTS, Counts, concordant_pairs
from .score_tail import NONLINEARITIES, score_tail, score_tail_ref
from .tally_logits import tally_logits, tally_logits_ref

__all__ = [
    "BACKENDS",
    "NONLINEARITIES",
    "TALLY_PARTS",
    "Backend",
    "Counts",
    "apply_lowrank_",
    "apply_lowrank_ref",
    "backend",
    "concordant_pairs",
    "score_tail",
    "score_tail_ref",
    "tally_logits",
    "tally_logits_ref",
]
