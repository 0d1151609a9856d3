"""Methods that an edit is compared with."""

from .retrain import retrain

__all__ = ["retrain"]
