"""The page of a debiasing run in a browser, where one is installed: its width, sorting, and what may run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from debiasing_metrics import RUNS, metrics

from rledit.edits.edit import Edit
from rledit.experiments.history import History
from rledit.experiments.report import Finished, write_page
from rledit.recipes.debiasing.report import page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

A4 = 718
"""Pixels, within margins of a centimeter."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium"),
]

MEASURE = """
const seen = {width: innerWidth, needed: document.documentElement.scrollWidth, title: document.title};
const table = document.querySelector("table.groups"), heads = table.tHead.rows[0].cells;
const names = () => Array.from(table.tBodies[0].rows).map((row) => row.cells[0].textContent.trim());
seen.first = names();
for (const column of ["down", "up"]) { heads[3].click(); seen[column] = names(); }
heads[5].click();
seen.unknown = names();
heads[0].click(); heads[0].click();
seen.byName = names();
parent.document.getElementById("seen").textContent = JSON.stringify(seen);
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    edit = Edit({"fc1": (torch.zeros(4, 1), torch.ones(1, 6))}, "shift", 1.0, "sha256:0")
    finished = Finished(metrics(), History(["candidates"]), edit, {})
    made = page(finished, f"Debiasing {RUNS}", Path("a/run/in/a" + "/folder" * 30), "limits", ["fc1"])
    write_page(folder / "report.html", made, {"out": "x" * 300}, finished, ())
    return (folder / "report.html").read_text(encoding="utf-8")


def opened(source: str, folder: Path) -> str:
    """The document after its scripts have run."""
    path = folder / "page.html"
    path.write_text(source, encoding="utf-8")
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--disable-gpu", "--no-sandbox", f"--user-data-dir={folder / 'user'}"]
    command += ["--window-size=1400,2000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def measured(source: str, folder: Path, width: int) -> dict[str, Any]:
    """What a script finds that is put into the page, whose policy would not let it run. The page is in a
    frame, since Chromium's windows are 500 pixels wide and more."""
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert open_page != source
    inside = html.escape(open_page.replace("</body>", f"<script>{MEASURE}</script></body>"))
    frame = f'<iframe width="{width}" height="2000" style="border: 0" srcdoc="{inside}"></iframe>'
    found = opened(f'<!doctype html><pre id="seen"></pre>{frame}', folder)
    whole = re.search(r'<pre id="seen">(.*?)</pre>', found, re.DOTALL)
    assert whole is not None
    seen: dict[str, Any] = json.loads(html.unescape(whole[1]))
    return seen


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_no_wider_than_its_window_and_its_tables_sort(
    width: int, source: str, tmp_path: Path
) -> None:
    seen = measured(source, tmp_path, width)
    assert seen["width"] == width
    assert seen["needed"] <= width
    assert seen["title"] == f"Debiasing {RUNS}"  # no script of a group's name has changed it
    chinese, runs, arabic, long = seen["first"]  # the worst group first
    assert seen["down"] == [runs, chinese, arabic, long]  # by the false positive rate after the edit
    assert seen["up"] == [long, arabic, chinese, runs]
    assert seen["unknown"][-1] == long  # it has no BPSN AUC
    assert seen["byName"][0] == runs


def test_the_printed_page_is_no_wider_than_paper(source: str, tmp_path: Path) -> None:
    printed = source.replace("@media print", "@media all")
    assert printed != source
    assert measured(printed, tmp_path, A4)["needed"] <= A4


def test_only_the_pages_own_script_runs(source: str, tmp_path: Path) -> None:
    evil = "<script>document.body.dataset.ran = 1</script><img src=x onerror='document.body.dataset.ran = 1'>"
    found = opened(source.replace("</footer>", f"</footer>{evil}"), tmp_path)
    assert "data-ran" not in found
    assert re.search(r'<body class="[^"]*sorting', found)
