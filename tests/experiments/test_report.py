"""The report is one file that shows the numbers, hides nothing and runs nothing."""

from __future__ import annotations

import base64
import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
import torch
from markupsafe import Markup

from rledit.edits.edit import Edit
from rledit.experiments import History, write_figures, write_report
from rledit.experiments.plots import Plot, block_extremes, plots

WEIGHTS = {"fc1": torch.randn(32, 300), "body.conv": torch.randn(6, 2, 3, 3)}
FACTORS = {
    "fc1": (torch.randn(32, 4), torch.randn(4, 300)),
    "body.conv": (torch.randn(6, 2), torch.randn(2, 18)),
}
EDIT = Edit(FACTORS, "mask", 0.1, "sha256:0")


def metrics(classes: int = 10) -> dict[str, Any]:
    def row(forget: float, retain: float) -> dict[str, Any]:
        accuracies = [retain] * (classes - 1) + [forget]
        return {"forget_accuracy": forget, "retain_accuracy": retain, "per_class_accuracy": accuracies}

    return {
        "test": {"before": row(0.98054, 0.98951), "after": row(0.0, 0.98903)},
        "validation": {"before": row(0.97, 0.98), "after": row(0.01, 0.98)},
        "seconds": {"pretrain": 31.2, "edit": 12.3, "score": 4.0, "policy": 6.0},
        "candidates": 6400,
        "baselines": {"retrain": {"test": row(0.0, 0.9906)}},
    }


def history(rows: int) -> History:
    made = History(["candidates", "reward_mean", "reward_best", "forget_accuracy", "retain_accuracy"])
    for i in range(rows):
        values = (128 * i, 0.1 * i, float("nan") if i == 1 else 0.2 * i, 1 / (i + 1), 0.99)
        made.append(dict(zip(made.columns, values, strict=True)))
    return made


@cache
def drawn() -> tuple[Plot, ...]:
    """The figures of the default arguments below, for tests of something else."""
    edit = {"edit": EDIT, "weights": WEIGHTS, "classes": [str(i) for i in range(10)]}
    return tuple(plots(metrics=metrics(), history=history(20), baselines={}, **edit))


class Page(HTMLParser):
    """Text, tags, image sources; fails on tags that are not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.images: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "img":
            assert dict(attrs)["alt"]
            self.images.append(dict(attrs)["src"] or "")
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def write(path: Path, **changes: Any) -> Page:
    arguments: dict[str, Any] = {
        "title": "Forget 7",
        "config": {"world": "mask", "ppo": {"lr": 5e-4}, "forget": [7, 8]},
        "metrics": metrics(),
        "history": history(20),
        "edit": EDIT,
        "weights": WEIGHTS,
        "classes": [str(i) for i in range(10)],
    }
    write_report(path / "report.html", **(arguments | changes))
    assert [p.name for p in path.iterdir()] == ["report.html"]
    return Page(path / "report.html")


def test_shows_the_numbers(tmp_path: Path) -> None:
    fine_tune = {"test": {"forget_accuracy": 0.5, "retain_accuracy": 0.125}}
    page = write(tmp_path, baselines={"fine-tune": fine_tune}, figures=drawn())
    assert "before 98.05 98.95 after 0.00 98.90 retrain 0.00 99.06 fine-tune 50.00 12.50" in page.text
    assert "the features no longer carry it." in page.text
    for text in ("ppo.lr 0.0005", "forget 7, 8", "pretrain 31.20 s", "candidates 6,400", "1,600", "rank 4"):
        assert text in page.text
    assert len(page.images) == 5


def test_is_self_contained(tmp_path: Path) -> None:
    page = write(tmp_path, figures=drawn())
    assert not page.tags & {"script", "link", "iframe", "object"}
    policy = next(
        value for name, value in page.attributes if name == "content" and "default-src" in str(value)
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'none'"
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.images)
    assert not re.search(r"url\(|@import|https?:", page.source)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for source in page.images:
        svg = base64.b64decode(source.partition(",")[2])
        root = ElementTree.fromstring(svg)
        links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href")]
        assert all(link.startswith(("#", "data:")) for link in links)


@pytest.mark.slow
def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    small = {"edit": None, "history": history(3)}
    assert write(tmp_path, **small).source == write(tmp_path, **small).source


def test_everything_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('&\"$x^2$')</script>"
    edit = Edit({evil: FACTORS["fc1"]}, "shift", 1.0, "sha256:0")
    page = write(
        tmp_path,
        title=evil,
        config={evil: evil, "nested": {evil: [evil]}},
        metrics={**metrics(), "seconds": {evil: 1.0}, "baselines": {evil: metrics()["baselines"]["retrain"]}},
        edit=edit,
        weights={evil: WEIGHTS["fc1"]},
        classes=[evil] * 10,
    )
    assert "script" not in page.tags
    assert evil in page.text
    assert len(page.images) == 4


def test_sections_are_rendered_ones(tmp_path: Path) -> None:
    write(tmp_path, figures=(), sections=[Markup("<h2>ours</h2>")])
    with pytest.warns(DeprecationWarning, match="sections of plain text"):
        page = write(tmp_path, figures=(), sections=["<h2>theirs</h2>"])
    assert "theirs" in page.text


def test_an_opening_stands_in_place_of_the_table(tmp_path: Path) -> None:
    opening = [Markup("<p>the most important</p>"), Markup("<p>the rest</p>")]
    page = write(tmp_path, figures=(), opening=opening, script="document.title < 1")
    at = [page.text.index(part) for part in ("the most important", "6,400 candidates scored", "the rest")]
    assert at == sorted(at)
    assert "Result" not in page.text
    assert "<script>document.title < 1</script>" in page.source
    assert "script-src 'sha256-" in str([value for name, value in page.attributes if name == "content"])


@pytest.mark.parametrize("rows", [0, 1])
def test_interrupted_runs(tmp_path: Path, rows: int) -> None:
    partial = {"test": {"before": metrics()["test"]["before"]}, "seconds": {"pretrain": None}}
    page = write(tmp_path, metrics=partial, history=history(rows), edit=None)
    assert "before 98.05 98.95" in page.text
    assert len(page.images) == 1 + 2 * rows
    page = write(tmp_path, metrics={}, history=history(rows), edit=None, weights={}, classes=[], config={})
    assert "interrupted" in page.text
    assert len(page.images) == 2 * rows


def test_other_metrics_and_unknown_values(tmp_path: Path) -> None:
    test = {"before": {"bpsn_auc": 0.594, "utility": 0.9}, "after": {"bpsn_auc": float("nan")}}
    page = write(tmp_path, metrics={"test": test}, history=History(["loss"]), figures=())
    assert "BPSN AUC utility before 0.5940 0.9 after n/a n/a" in page.text


def figures(**changes: Any) -> dict[str, bytes]:
    arguments: dict[str, Any] = {
        "metrics": metrics(),
        "history": history(3),
        "edit": EDIT,
        "weights": WEIGHTS,
        "classes": list(range(10)),
        "baselines": {},
    }
    return {plot.name: plot.png for plot in plots(**(arguments | changes))}


def test_figures_as_files(tmp_path: Path) -> None:
    names = ["learning_reward", "learning_accuracy", "per_class_accuracy", "edit_fc1", "edit_body.conv"]
    made = drawn()
    paths = write_figures(tmp_path / "plots", made)
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        write_figures(tmp_path / "file", made)


@pytest.mark.slow
def test_awkward_data() -> None:
    bars = {"history": history(0), "edit": None}
    assert "per_class_accuracy" in figures(metrics=metrics(200), classes=["c" * 50] * 200, **bars)
    assert "per_class_accuracy" not in figures(classes=["a"], **bars)  # the lengths do not match
    many = {f"baseline {i}": metrics()["baselines"]["retrain"] for i in range(6)}
    assert "per_class_accuracy" in figures(baselines=many, **bars)
    nothing = Edit({"fc1": (torch.zeros(32, 1), torch.ones(1, 300))}, "shift", 1.0, "sha256:0")
    assert list(figures(edit=nothing, history=history(0), metrics={})) == ["edit_fc1"]
    assert figures(weights={}, history=history(0), metrics={}) == {}


@pytest.mark.slow
def test_global_state_is_left_alone() -> None:
    before = dict(mpl.rcParams)
    with mpl.rc_context({"axes.facecolor": "black", "text.color": "white"}):
        styled = figures(edit=None)
    assert dict(mpl.rcParams) == before
    assert styled == figures(edit=None)
    assert "rledit.experiments.plots" in sys.modules
    source = Path(sys.modules["rledit.experiments.plots"].__file__ or "").read_text()
    assert "import matplotlib.pyplot" not in source


@pytest.mark.parametrize("shape", [(3, 5), (256, 257), (1000, 7), (1, 5000)])
def test_block_extremes_keep_the_largest_change_and_its_sign(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)
    matrix[shape[0] // 2, shape[1] // 2] = -50.0
    small = block_extremes(matrix, 256)
    assert small.shape <= (256, 256)
    assert max(small.shape) <= 256
    assert small.min() == -50
    assert set(small.flatten().tolist()) <= set(matrix.flatten().tolist())
