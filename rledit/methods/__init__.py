"""Methods of unlearning that an edit is compared with, behind one protocol.

``base``     what a method is given and gives back, and the register of all
``tuning``   settings are tried on the validation split
``descent``  training by epochs; ``layers``, ``importance`` and ``data`` are what several methods share
others       a method or several that are alike, each with its paper and published settings
"""

# The order of imports is that of tables.
# isort: off
from .base import METHODS, Budget, Method, MethodResult, UnlearningProblem, method
from .logit_mask import logit_mask
from .retrain import retrain, retraining
from .finetuning import finetune, finetune_last, l1_sparse
from .ascent import gradient_ascent, neggrad_plus
from .random_labels import random_labels, salun
from .distillation import bad_teacher, scrub
from .fisher import fisher
from .ssd import ssd
from .unsir import unsir
from .projection import projection
from .prototype_projection import prototype_projection
from .edits import (
    edit_method,
    rledit_mask,
    rledit_mask_gradient,
    rledit_mask_levels,
    rledit_shift,
    rledit_shift_es,
    rledit_shift_gradient,
    rledit_shift_levels,
)
# isort: on

__all__ = [
    "METHODS",
    "Budget",
    "Method",
    "MethodResult",
    "UnlearningProblem",
    "bad_teacher",
    "edit_method",
    "finetune",
    "finetune_last",
    "fisher",
    "gradient_ascent",
    "l1_sparse",
    "logit_mask",
    "method",
    "neggrad_plus",
    "projection",
    "prototype_projection",
    "random_labels",
    "retrain",
    "retraining",
    "rledit_mask",
    "rledit_mask_gradient",
    "rledit_mask_levels",
    "rledit_shift",
    "rledit_shift_es",
    "rledit_shift_gradient",
    "rledit_shift_levels",
    "salun",
    "scrub",
    "ssd",
    "unsir",
]
