"""Scoring: what a batch of candidates makes of the samples.

``tracing``     cuts a network at its targets into a cached prefix and a suffix
``population``  runs a target for all candidates at once
``network``     the two ways to run a suffix: traced, or the whole module
``tail``        recognises suffixes that the fused op can run
``simplify``    takes work out of a suffix
``editable``    a private copy of a model, cut, with its targets
``checking``    compares a way to run candidates with the network itself
``ways``        scores a population on cached activations: by the tail, or by the suffix
``scorer``      caches the prefix, checks itself, scores
"""

from .editable import EditableModel, Factors
from .scorer import Scorer

__all__ = ["EditableModel", "Factors", "Scorer"]
