"""``rledit apply``: apply an edit to a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..edits import Edit, apply_to_file

_TIED = {"auto": None, "yes": True, "no": False}


def apply(
    edit: Path,
    model: Path,
    out: Path,
    force: bool = False,
    cast: bool = False,
    tied: Literal["auto", "yes", "no"] = "auto",
    overwrite: bool = False,
) -> None:
    """Apply an edit to a model's safetensors file, or to a folder of shards, and write the edited model.

    Args:
        edit: The edit.safetensors of a run.
        model: The model's safetensors file; or the folder of a sharded model, as Hugging Face writes it. It
            must hold a weight for every layer that the edit changes.
        out: Where the edited model goes: a file for a file, a folder for a folder.
        force: Apply the edit even if these are not the weights that it was learned for.
        cast: Apply the edit to the same weights in another precision, such as bfloat16. That they are the
            same is checked.
        tied: What to do with tensors that have the same values as an edited one, as tied weights do. auto and
            yes edit them as well, but auto stops where the values are so simple (all zero, say) that they
            could be the same by chance. no leaves them as they are.
        overwrite: Replace what is at out, which may be the model itself.
    """
    if out.exists() and edit.exists() and out.samefile(edit):
        raise ValueError(f"out: {out} is the edit itself, which would be lost")
    loaded = Edit.load(edit)
    done = apply_to_file(loaded, model, out, force=force, cast=cast, tied=_TIED[tied], overwrite=overwrite)
    print(f"{loaded!r} applied: {out}")
    for target, key in done.keys.items():
        if key != f"{target}.weight":
            print(f"The weights of {target} were found as {key}.")
        for other in done.tied[target]:
            print(f"{other} holds the same tensor as {key} and was edited as well.")
