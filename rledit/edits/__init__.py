"""Edits: the chosen candidate, applied to a model or its files, reverted, saved and loaded."""

from .edit import Edit
from .file import EditFileError
from .model_files import EditedFiles, apply_to_file

__all__ = ["Edit", "EditFileError", "EditedFiles", "apply_to_file"]
