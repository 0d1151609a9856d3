"""``rledit audit``: its table, what it leaves in the run, and what it says of wrong input."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from in_process import rledit
from rich.console import Console
from safetensors.torch import save_file

from rledit.audits import ClassMean, Leakage
from rledit.cli import main
from rledit.cli.audit import table
from rledit.zoo.models import MnistCNN


def test_a_figure_stands_beside_its_interval() -> None:
    networks = {
        "unedited": {"forget_accuracy": 0.98, "intervals": {"forget_accuracy": [0.97, 0.99]}},
        "edited": {"forget_accuracy": None, "relearn_steps": 3.0, "intervals": {}},
    }
    shown = io.StringIO()
    Console(file=shown, width=120).print(table("title", networks))
    rows = [" ".join(line.replace("│", " ").split()) for line in shown.getvalue().splitlines()]
    assert "forget accuracy 98.00% (97.00 to 99.00) n/a" in rows
    assert "steps of relearning n/a 3.0" in rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["."], "has no config.json that rledit wrote"),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rledit", "audit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


AUDITS = "rledit.recipes.unlearning.audit_run"


@pytest.fixture
def few_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{AUDITS}.AUDITS", (Leakage(),))
    monkeypatch.setattr(f"{AUDITS}.THOROUGH", (Leakage(), ClassMean(layers=True)))


def audited_rows(run: Path) -> dict[str, list[str]]:
    """The section on audits: figure -> what it is for each network, and of "figure" their names."""
    section = (run / "report.html").read_text().split("<h2>Audits</h2>")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    cells = [[re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
    return {name: figures for name, *figures in cells}


@pytest.mark.usefixtures("few_audits")
def test_the_report_shows_what_was_measured(run: Path, tmp_path: Path) -> None:
    metrics = (run / "metrics.json").read_bytes()
    torch.manual_seed(1)
    save_file(MnistCNN().state_dict(), tmp_path / "other.safetensors")
    first = audited_rows(run)
    assert first["figure"] == ["before", "after"]
    done = rledit("audit", run, "--thorough", "--retrained", tmp_path / "other.safetensors")
    assert done.returncode == 0, done.said
    rows = audited_rows(run)
    assert rows["figure"] == ["before", "after", "retrain"]
    found = json.loads((run / "audits.json").read_text())["models"]
    new = {key for key in found["edited"] if "class_mean" in key and found["edited"][key] is not None}
    assert len(new) >= 2  # of the last features and of a layer
    assert len(rows) - len(first) >= len(new)
    shown = [row for name, row in rows.items() if name not in first]
    for key in new:
        wanted = [f"{100 * found[name][key]:.2f}" for name in ("unedited", "edited", "retrained")]
        assert any([cell.split()[0] for cell in row] == wanted for row in shown), key
    assert "Measured after the run, by rledit audit." in (run / "report.html").read_text()
    assert (run / "metrics.json").read_bytes() == metrics
    assert rledit("verify", run).returncode == 0  # the record names the new report, and the audits
    assert rledit("audit", run).returncode == 0  # the short list again: no figure of the long one is left
    assert set(audited_rows(run)) < set(rows)
    (run / "audits.json").write_text("{}")
    assert "DIFFERS    audits.json: not the file that was recorded" in rledit("verify", run).said


@pytest.mark.usefixtures("few_audits")
def test_an_audit_makes_no_changed_record_good(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    record["search"]["way"] = "magic"
    (run / "record.json").write_text(json.dumps(record))
    assert rledit("audit", run).returncode == 0
    done = rledit("verify", run)
    assert done.returncode == 1
    lines = [line for line in done.said.splitlines() if line.startswith("DIFFERS")]
    assert len(lines) == 1
    assert lines[0].startswith("DIFFERS    record: recorded sha256:")


@pytest.mark.usefixtures("few_audits")
@pytest.mark.parametrize("lost", ["metrics.json", "history.csv"])
def test_audits_are_kept_where_the_report_cannot_be_written(run: Path, lost: str) -> None:
    (run / lost).unlink()
    report = (run / "report.html").read_bytes()
    done = rledit("audit", run)
    assert done.returncode == 0, done.said
    assert json.loads((run / "audits.json").read_text())["models"]["edited"]["forget_accuracy"] is not None
    assert (run / "report.html").read_bytes() == report
    assert ("could not be written" in done.said) is (lost == "history.csv")


@pytest.mark.usefixtures("few_audits")
def test_figures_for_another_file_leave_the_run_as_it_is(run: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert rledit("audit", run, "--out", tmp_path / "figures.json").returncode == 0
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
