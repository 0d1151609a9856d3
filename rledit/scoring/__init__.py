"""Scoring: what a batch of candidates gets right on the samples.

``evaluator``       candidates' weights in, counts out: the protocol, and black boxes
``ways``            the evaluators of torch networks: tail, suffix, whole
``scorer``          checks what it is given, and scores with an evaluator
``editable``        what is edited: the protocol, and black boxes
``editable_model``  a torch model: its private copy, checked and cut
``copies``          private copies, and twins that share their weights
``halves``          half-precision weights that are computed with in float32
``half_arithmetic`` does a model compute in half precision?
``blocks``          large weights a part at a time
``hooks``           what becomes of the caller's hooks on a private copy
``checking``        is a model sound, and does a way to run candidates give what it gives?
``random_edits``    random edits of the targets, really made: what is checked with
``tracing``         cuts a network at its targets into a cached prefix and a suffix
``dataflow``        what depends on what in a traced graph
``network``         runs a cut network
``population``      runs a target for all candidates at once
``differentiable``  logits and features as differentiable functions of the targets' weights
``logits``          what a network's logits are counted as
``collected``       what depends on all samples at once: probes of features, ranks of losses
``tail``            recognizes suffixes that the fused op can run
``simplify``        takes work out of a suffix
"""

from ..targets import check_rank
from .checking import MismatchError
from .editable import Editable, EditableFunction, Factors
from .editable_model import EditableModel
from .evaluator import Evaluator, FunctionEvaluator, OneByOne
from .scorer import Scorer
from .tracing import RowsError, TracingError

__all__ = [
    "Editable",
    "EditableFunction",
    "EditableModel",
    "Evaluator",
    "Factors",
    "FunctionEvaluator",
    "MismatchError",
    "OneByOne",
    "RowsError",
    "Scorer",
    "TracingError",
    "check_rank",
]
