"""``rledit apply`` as a user meets it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rledit import Edit
from rledit.cli import main
from rledit.storage import fingerprint, fingerprints


def apply(*arguments: object) -> tuple[int, str]:
    """Exit status, and what was said."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setenv("COLUMNS", "400")
        patch.setattr("sys.argv", ["rledit", "apply", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


@pytest.fixture
def weight(tmp_path: Path) -> torch.Tensor:
    weight = torch.randn(4, 3)
    save_file({"fc.weight": weight, "head.weight": weight.clone()}, tmp_path / "model")
    save_file({"fc.weight": weight.bfloat16()}, tmp_path / "half")
    save_file({"fc.weight": weight + 1}, tmp_path / "other")
    torch.save({"fc.weight": weight}, tmp_path / "pickle")
    Edit(
        {"fc": (torch.ones(4, 1), torch.ones(1, 3))},
        "shift",
        1.0,
        fingerprint({"fc": weight}),
        casts=fingerprints({"fc": weight}),
    ).save(tmp_path / "edit")
    return weight


def arguments(folder: Path, model: str = "model", out: str = "out") -> list[object]:
    return ["--edit", folder / "edit", "--model", folder / model, "--out", folder / out]


def test_edits_every_name_and_says_so(tmp_path: Path, weight: torch.Tensor) -> None:
    status, said = apply(*arguments(tmp_path))
    assert status == 0, said
    assert "head.weight holds the same tensor as fc.weight and was edited as well" in said
    assert all(torch.equal(value, weight + 1) for value in load_file(tmp_path / "out").values())
    status, said = apply(*arguments(tmp_path), "--tied", "no", "--overwrite")
    assert (status, "head.weight" in said) == (0, False)
    assert torch.equal(load_file(tmp_path / "out")["head.weight"], weight)


@pytest.mark.parametrize(
    ("model", "out", "flag", "text"),
    [
        ("model", "model", "--overwrite", "is the model itself"),
        ("half", "out", "--cast", "cast to bfloat16"),
        ("other", "out", "--force", "learned for other weights"),
    ],
)
def test_refusals_that_name_a_way(
    tmp_path: Path, weight: torch.Tensor, model: str, out: str, flag: str, text: str
) -> None:
    status, said = apply(*arguments(tmp_path, model, out))
    assert status == 2
    assert text in said
    assert flag in said
    assert "Traceback" not in said
    before = load_file(tmp_path / model)["fc.weight"]
    assert apply(*arguments(tmp_path, model, out), flag)[0] == 0
    assert torch.equal(load_file(tmp_path / out)["fc.weight"], (before.float() + 1).to(before.dtype))


@pytest.mark.parametrize(
    ("model", "out", "text"),
    [
        ("none", "out", "there is no file or folder"),
        ("pickle", "out", "never reads pickles"),
        ("edit", "out", "no tensor 'fc.weight'"),
        ("model", "none/out", "the folder"),
        ("model", "edit", "is the edit itself"),
    ],
)
def test_refusals(tmp_path: Path, weight: torch.Tensor, model: str, out: str, text: str) -> None:
    status, said = apply(*arguments(tmp_path, model, out), "--overwrite", "--force")
    assert status == 2
    assert text in said
    assert Edit.load(tmp_path / "edit").targets == ["fc"]
    assert not (tmp_path / "out").exists()


def test_help_is_plain() -> None:
    status, said = apply("--help")
    assert status == 0
    assert "`" not in said
    assert "shards" in said
