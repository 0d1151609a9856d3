"""``rledit ledger``: keep several edits of one model, and take any of them out again."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import tyro

from ..edits import Edit, Ledger
from ..storage import read_tensors, write_tensors

T = TypeVar("T")


def ledger(
    action: tyro.conf.Positional[Literal["add", "remove", "show", "apply"]],
    file: tyro.conf.Positional[Path],
    model: Path | None = None,
    edit: Path | None = None,
    name: str | None = None,
    out: Path | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> None:
    """Keep several edits of one model in a file: add one, remove one, show them, or apply them all.

    Args:
        action: add (needs model, edit and name; begins the file if there is none), remove (model and name),
            show, or apply (model and out).
        file: The ledger.
        model: The safetensors file of the model before any edit.
        edit: The edit.safetensors of a run that began with the model as the ledger leaves it.
        name: Name of the edit in the ledger.
        out: Where the edited model goes.
        force: With add, take an edit that was learned for other weights; with remove, take out an edit on
            which later ones were learned, and apply those to what is left.
        overwrite: Replace what is at out.
    """
    if action == "show":
        _show(Ledger.load(file))
        return
    base, metadata = read_tensors(_needed("model", model, action))
    if action == "add":
        path, called = _needed("edit", edit, action), _needed("name", name, action)
        book = Ledger.load(file) if file.exists() else Ledger(base)
        book.append(Edit.load(path), called, base, force=force)
        book.save(file)
        print(f"{called!r} is edit {len(book)} of {file}.")
    elif action == "remove":
        called, book = _needed("name", name, action), Ledger.load(file)
        if called not in book.names:
            raise ValueError(f"name: {file} has no edit {called!r}, only {', '.join(book.names) or 'none'}")
        print(book.remove(called, base, force=force))
        book.save(file)
    else:
        target = _needed("out", out, action)
        if target.exists() and (not overwrite or target.samefile(file)):
            raise FileExistsError(f"out: {target} exists; --overwrite replaces it, unless it is the ledger")
        book = Ledger.load(file)
        write_tensors(target, book.apply_to_state_dict(base), metadata)
        print(f"{len(book)} edits applied: {target}")


def _show(book: Ledger) -> None:
    print(f"base {book.base}")
    for place, entry in enumerate(book.entries, 1):
        displaced = "; displaced: learned on an edit that was removed" if entry.displaced else ""
        print(f"{place}. {entry.name} ({entry.when}): {entry.edit!r}{displaced}")


def _needed(option: str, value: T | None, action: str) -> T:
    if value is None:
        raise ValueError(f"{option}: rledit ledger {action} needs --{option}")
    return value
