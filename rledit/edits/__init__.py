"""Edits: the chosen candidate, applied to a model, reverted, saved and loaded."""

from .edit import Edit
from .file import EditFileError

__all__ = ["Edit", "EditFileError"]
