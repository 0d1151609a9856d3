"""Edits: the chosen candidate, applied to a model or its files, reverted, saved and loaded."""

from .edit import Edit
from .file import EditFileError
from .ledger import Ledger, Removal
from .ledger_file import LedgerFileError
from .model_files import EditedFiles, apply_to_file
from .requests import InTurn, forget_in_turn

__all__ = [
    "Edit",
    "EditFileError",
    "EditedFiles",
    "InTurn",
    "Ledger",
    "LedgerFileError",
    "Removal",
    "apply_to_file",
    "forget_in_turn",
]
