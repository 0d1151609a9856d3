"""Audits: is the class gone, or only its name? What accuracies of the model itself do not show.

``base``              what every audit is and reads, and how a list of them is run
``estimates``         figures with their 95% intervals
``readings``          one pass of a model that all audits share
``probing``           what all probes share

``linear_probe``      what a fresh classifier still recalls from features
``class_mean``        what the nearest class mean does
``mlp_probe``         what a classifier with a hidden layer does; in no reward
``few_shot``          relearning from 1 to 10 images per class
``relearning``        steps of fine-tuning until the class is back
``membership``        telling members of the forget set from samples never seen
``leakage``           which classes the forgotten samples are called instead
``agreement``         how far a model is from the retrained one
``retained_classes``  the retained class that fares worst
``calibration``       whether the model is as sure as it is right
``rounding``          the edit after rounding the weights
``pruning``           the edit after magnitude pruning; ``altered``, what both share
``shadow_models``     the likelihood ratio attack of many models; in no reward and in no report
``shadow_training``   those models, each trained on a random half of the samples

``levels``            what probes find in a reference network: levels for an edit to keep
``unlearning``        the audits of an edit that forgets: the lists that recipe, report and command follow

A figure says little without that of the unedited and of the retrained model: ask all three.
"""

from ..heads import last_features
from .agreement import Agreement
from .base import Audit, AuditData, intervals, run_audits
from .calibration import Calibration, calibration_error
from .class_mean import ClassMean
from .estimates import Estimate
from .few_shot import FewShot
from .leakage import Leakage
from .levels import levels_of
from .linear_probe import LinearProbe, linear_probe
from .membership import Membership
from .mlp_probe import MLPProbe
from .pruning import Pruning
from .relearning import Relearning
from .retained_classes import RetainedClasses
from .rounding import Rounding
from .shadow_models import (
    likelihood_ratio_attack,
    likelihood_ratios,
    scaled_confidence,
    shadow_confidences,
)
from .shadow_training import train_shadow_models

__all__ = [
    "Agreement",
    "Audit",
    "AuditData",
    "Calibration",
    "ClassMean",
    "Estimate",
    "FewShot",
    "Leakage",
    "LinearProbe",
    "MLPProbe",
    "Membership",
    "Pruning",
    "Relearning",
    "RetainedClasses",
    "Rounding",
    "calibration_error",
    "intervals",
    "last_features",
    "levels_of",
    "likelihood_ratio_attack",
    "likelihood_ratios",
    "linear_probe",
    "run_audits",
    "scaled_confidence",
    "shadow_confidences",
    "train_shadow_models",
]
