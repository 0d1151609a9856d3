"""The ops that everything else is built on.

``apply_lowrank_``, ``score_tail``, ``tally_logits`` and ``tally_features`` are registered torch ops
(``torch.ops.rledit.*``). Each is defined by a reference in plain PyTorch, which stands next to its schema in
the file of its name. A :class:`Backend` runs them in one way: :mod:`~rledit.ops.reference`,
:mod:`~rledit.ops.native` (C++ on the CPU), :mod:`~rledit.ops.cuda_backend` or
:mod:`~rledit.ops.triton_backend`. :mod:`~rledit.ops.tail` and :mod:`~rledit.ops.counts` name what they take
and give."""

from .apply_lowrank import apply_lowrank_, apply_lowrank_ref
from .backends import BACKENDS, Backend, PreparedProbe, PreparedTail, PreparedTally, backend
from .counts import TALLY_PARTS, Counts, Wanted, concordant_pairs
from .loss_ranks import LOSS_BINS, loss_bins, lower_loss_pairs
from .probe import CLASSIFIERS, PROBE_PARTS, Classifier, Probe, check_classifier, halves, places, strata
from .rules import KINDS, EditRule
from .score_tail import score_tail, score_tail_ref
from .tail import NONLINEARITIES, PRECISIONS, Candidates, Layer, TailProblem
from .tally_features import tally_features, tally_features_ref
from .tally_logits import tally_logits, tally_logits_ref

__all__ = [
    "BACKENDS",
    "CLASSIFIERS",
    "KINDS",
    "LOSS_BINS",
    "NONLINEARITIES",
    "PRECISIONS",
    "PROBE_PARTS",
    "TALLY_PARTS",
    "Backend",
    "Candidates",
    "Classifier",
    "Counts",
    "EditRule",
    "Layer",
    "PreparedProbe",
    "PreparedTail",
    "PreparedTally",
    "Probe",
    "TailProblem",
    "Wanted",
    "apply_lowrank_",
    "apply_lowrank_ref",
    "backend",
    "check_classifier",
    "concordant_pairs",
    "halves",
    "loss_bins",
    "lower_loss_pairs",
    "places",
    "score_tail",
    "score_tail_ref",
    "strata",
    "tally_features",
    "tally_features_ref",
    "tally_logits",
    "tally_logits_ref",
]
