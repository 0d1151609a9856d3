"""The Python in the documents runs, page by page, and the commands in them take the options shown."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "how-to").glob("*.md"))
    if "```python" in path.read_text()
)
COMMANDS = sorted(
    {
        line.strip()
        for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
        for block in re.findall(r"^```\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line.strip().startswith("rledit ")
    }
)

GIVEN = """
import torch
from torch import nn
import rledit

torch.manual_seed(0)
labels = torch.arange(200) % 10
inputs = torch.randn(10, 32)[labels] + torch.randn(200, 32)
masks = {"all": labels >= 0, "a": labels < 5, "b": labels >= 5}
samples = held_out = rledit.Samples(inputs, labels, {**rledit.forget_groups(labels, 7), **masks})
"""
"""What a reader of any page has."""
NAMED = """
model = nn.Sequential()
model.add_module("fc1", nn.Linear(32, 16))
model.add_module("relu", nn.ReLU())
model.add_module("fc2", nn.Linear(16, 10))
left, right = torch.randn(256, 16, 4), torch.randn(256, 4, 32)
"""
NUMBERED = """
model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
classifier = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))
task = rledit.Task(model, ["2"], samples, rledit.Unlearning())
rledit.ShiftWorld(task, rank=1).edit(torch.zeros(1, 96)).save("edit.safetensors")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(GIVEN + (NAMED if '"fc1"' in "".join(blocks) else NUMBERED), names)
    for block in blocks:
        tenth = block.replace("12_800", "1_280").replace("1_100", "110")  # of a real budget
        exec(compile(tenth, page, "exec"), names)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from rledit.cli import main

    _, name, *arguments = shlex.split(command)
    monkeypatch.setattr("sys.argv", ["rledit", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    offered = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert {argument for argument in arguments if argument.startswith("--")} <= offered
