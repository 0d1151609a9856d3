"""The ops that have kernels, as :class:`rledit.ops.gpu.Kernels`."""

from .apply_lowrank import apply_lowrank_
from .score_tail import score_tail
from .tally_logits import tally_logits

__all__ = ["apply_lowrank_", "score_tail", "tally_logits"]
