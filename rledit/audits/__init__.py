"""Audits: is the class gone, or only its name? What accuracies of the model itself do not show.

``base``          what every audit is and reads
``features``      what the head of a network reads
``linear_probe``  what a fresh classifier still recalls from these features
``unlearning``    the audits of an edit that forgets: the one list that recipe, report and tables follow
"""

from .base import Audit, AuditData, run_audits
from .features import last_features
from .linear_probe import LinearProbe, linear_probe

__all__ = ["Audit", "AuditData", "LinearProbe", "last_features", "linear_probe", "run_audits"]
