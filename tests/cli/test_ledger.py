"""``rledit ledger`` on files: what it adds, shows, removes and applies, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from in_process import rledit
from safetensors.torch import load_file, save_file

from rledit.edits import Edit
from rledit.storage import fingerprint


def ledger(*arguments: object) -> tuple[int, str]:
    """Status and everything that was said."""
    done = rledit("ledger", *arguments)
    return done.returncode, done.said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of zeros with two edits, the second on top of the first; each adds a number everywhere."""
    weight = torch.zeros(3, 4)
    save_file({"fc.weight": weight, "fc.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    for name, number in (("one", 1.0), ("two", 2.0)):
        factors = {"fc": (torch.full((3, 1), number), torch.ones(1, 4))}
        Edit(factors, "shift", 1.0, fingerprint({"fc": weight})).save(tmp_path / f"{name}.safetensors")
        weight = weight + number
    return tmp_path


def add(folder: Path, name: str, *more: object) -> tuple[int, str]:
    edit, model = folder / f"{name}.safetensors", folder / "model.safetensors"
    return ledger("add", folder / "book", "--edit", edit, "--name", name, "--model", model, *more)


def applied(folder: Path, *more: object) -> float:
    out = folder / "out.safetensors"
    status, said = ledger(
        "apply", folder / "book", "--model", folder / "model.safetensors", "--out", out, *more
    )
    assert status == 0, said
    value: float = load_file(out)["fc.weight"].unique().item()  # type: ignore[assignment]
    return value


def test_add_show_remove_apply(folder: Path) -> None:
    assert add(folder, "one") == (0, f"'one' is edit 1 of {folder / 'book'}.\n")
    assert add(folder, "two")[0] == 0
    assert applied(folder) == 3
    status, said = ledger("show", folder / "book")
    assert status == 0
    assert "1. one (" in said
    assert "2. two (" in said
    model = ["--model", folder / "model.safetensors"]
    status, said = ledger("remove", folder / "book", "--name", "one", *model)
    assert status == 2
    assert "'two': learned on weights that included 'one'" in said
    assert "--force" in said
    status, said = ledger("remove", folder / "book", "--name", "one", "--force", *model)
    assert status == 0, said
    assert "fc.weight: changes by 3.464" in said
    assert "learned on weights that included it: two" in said
    assert applied(folder, "--overwrite") == 2
    assert "displaced" in ledger("show", folder / "book")[1]


def test_what_is_refused(folder: Path) -> None:
    book, model = folder / "book", folder / "model.safetensors"
    status, said = add(folder, "two")
    assert (status, book.exists()) == (2, False)
    assert "does not fit" in said
    assert add(folder, "one")[0] == 0
    for arguments, message in [
        (["add", book, "--model", model, "--name", "x"], "rledit ledger add needs --edit"),
        (["remove", book, "--model", model], "rledit ledger remove needs --name"),
        (["remove", book, "--name", "one"], "rledit ledger remove needs --model"),
        (["remove", book, "--name", "x", "--model", model], "has no edit 'x', only one"),
        (["apply", book, "--model", model], "rledit ledger apply needs --out"),
        (["apply", book, "--model", model, "--out", model], "--overwrite replaces it"),
        (["apply", book, "--model", model, "--out", book, "--overwrite"], "unless it is the ledger"),
        (["apply", book, "--model", folder / "one.safetensors", "--out", folder / "x"], "expected the model"),
        (["show", folder / "none"], "No such file"),
        (["show", model], "not a ledger"),
    ]:
        status, said = ledger(*arguments)
        assert status == 2, arguments
        assert message in said
        assert "Traceback" not in said
