"""``rledit apply``: apply an edit to a model file."""

from __future__ import annotations

from pathlib import Path

from ..edits.edit import Edit
from ..storage.files import read_tensors, write_tensors


def apply(edit: Path, model: Path, out: Path, force: bool = False, overwrite: bool = False) -> None:
    """Apply an edit to a safetensors state dict and write the edited one.

    Args:
        edit: the edit.safetensors of a run.
        model: safetensors file with <module>.weight for every target of the edit.
        out: where the edited state dict goes.
        force: apply to other weights than the edit was learned for.
        overwrite: replace the file at out.

    Raises:
        FileExistsError: if out exists, unless overwrite.
        ValueError: for a file that is no edit or no safetensors, or other weights, unless force.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; --overwrite replaces it")
    loaded = Edit.load(edit)
    state, metadata = read_tensors(model)
    edited = loaded.apply_to_state_dict(state, force=force)
    write_tensors(out, edited, metadata)
    print(f"{loaded!r} applied: {out}")
