"""Audits: is the class gone, or only its name?"""

from .linear_probe import last_features, linear_probe

__all__ = ["last_features", "linear_probe"]
