"""The page of a debiasing run says what was asked, spent and reached, of everybody, and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from debiasing_metrics import ARABIC, CHINESE, GROUPS, LONG, RUNS, WIDTH, metrics, set_figures

from rledit.edits.edit import Edit
from rledit.experiments.history import History
from rledit.experiments.report import Finished, write_page
from rledit.experiments.templating import TEMPLATES
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.debiasing.changes import changed, groups_of, keys_of, rises, sizes_of
from rledit.recipes.debiasing.charts import chart
from rledit.recipes.debiasing.limits import limits
from rledit.recipes.debiasing.report import as_typed, page, worse
from rledit.recipes.debiasing.summary import budget_label, summary

EDIT = Edit({"fc1": (torch.zeros(4, 1), torch.ones(1, 6))}, "shift", 1.0, "sha256:0")
CONFIG = DebiasConfig()


def written(folder: Path, known: dict[str, Any], run: Path = Path("runs/a run")) -> str:
    """The source of a page."""
    finished = Finished(known, History(["candidates"]), EDIT, {})
    made = page(finished, "Debiasing", run, limits(CONFIG, known, True), ["fc1"])
    write_page(folder / "report.html", made, {"seed": 0}, finished, ())
    return (folder / "report.html").read_text(encoding="utf-8")


def words_of(source: str) -> str:
    """What a reader sees, in one line, with plain minus signs."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", source, flags=re.DOTALL)
    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
    return text.replace("\N{MINUS SIGN}", "-")


def test_the_sentence() -> None:
    assert str(summary(metrics())) == (
        "Asked: less bias for at most 0.005 of utility AUC and 2 points of any group's false negative rate; "
        "achieved: BPSN AUC 0.600 to 0.900 (+0.300 [0.280, 0.320]) and FPED 2.000 to 0.400 (-1.600 [-1.620, "
        "-1.580]); spent on test: 0.010 [-0.010, 0.030] of utility AUC and 1.5 points [0.5, 2.5] of any "
        "group's false negative rate; held: no (utility AUC)."
    )
    known = metrics()
    known["budgets"][0]["held"] = True
    assert str(summary(known)).endswith("held: yes.")


def test_the_sentence_of_a_run_that_knows_no_budgets_or_found_nothing() -> None:
    assert str(summary(metrics(budgets=None))).startswith("Achieved: BPSN AUC")
    assert summary(metrics(budgets=None)).held is None
    assert "achieved: nothing within this budget" in str(summary(metrics(origin="no edit")))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("utility_auc", "utility AUC"),
        ("f1", "utility F1"),
        ("fnr", "false negative rate"),
        ("fpr.worst", "any group's false positive rate"),
        ("subgroup_auc.worst", "any group's subgroup AUC"),
    ],
)
def test_names_of_budgets(name: str, said: str) -> None:
    assert budget_label(name) == said


def test_who_got_worse() -> None:
    found = rises(set_figures())
    assert [(rise.group, rise.figure.key) for rise in found] == [
        (CHINESE, "false_negative_rate"),
        (RUNS, "false_negative_rate"),
        (CHINESE, "false_positive_rate"),
    ]
    assert found[0].figure.change == pytest.approx(0.1)
    assert [rise.figure.beyond for rise in found] == [True, True, False]
    assert {rise.figure.beyond for rise in rises(set_figures(with_change=False))} == {None}
    said = words_of(worse(set_figures()))
    assert "rose in 2 groups, by 10.0 points [8.0, 12.0] at most; beyond its interval in 2 of them" in said
    assert "not known" in words_of(worse(set_figures(with_change=False)))
    better = set_figures()
    better["after"] = better["before"]
    assert "No group's false positive or false negative rate rose" in worse(better)


def test_the_worst_group_is_first() -> None:
    # by the larger error rate: 0.3, 0.2, 0.1, 0
    assert groups_of(set_figures()) == [CHINESE, RUNS, ARABIC, LONG]
    assert keys_of(set_figures()) == ["false_positive_rate", "false_negative_rate", "bpsn_auc"]


def test_verdicts_follow_the_direction_of_a_metric() -> None:
    test = set_figures()
    assert changed(test, "fped").verdict == "better"
    assert changed(test, "utility_auc").verdict == "worse"
    assert changed(test, "utility_auc").beyond is False
    assert changed(test, "bpsn_auc", RUNS).verdict == "better"
    lacking = changed(test, "bpsn_auc", LONG)
    assert (lacking.change, lacking.verdict, lacking.beyond) == (None, "", None)


def test_sizes_of_newer_and_older_runs() -> None:
    assert sizes_of(metrics(), "test")[RUNS] == [30, 12]
    older = metrics(test={**set_figures(with_change=False), "other": {}})
    assert sizes_of(older, "test") == {ARABIC: [30, 12]}
    del older["data"]
    assert sizes_of(older, "test") == {}


def test_the_page_has_everything(tmp_path: Path) -> None:
    source = written(tmp_path, metrics())
    said = words_of(source)
    at = [
        said.index(part)
        for part in (
            "Asked: less bias for at most 0.005 of utility AUC",
            "held: no (utility AUC)",
            "Warning: this classifier is of no use: it is no good",
            "Budgets",
            "Result",
            "(%) ↑ better 90.0 [88.0, 92.0] 89.7 [87.7, 91.7] -0.3 [-2.3, 1.7] worse, within noise",
            "500 harmless and 400 toxic sentences",
            "false negative rate (%) ↓ better",
            "Groups",
            "<b>few</b>",
            "Who got worse",
            "Error rates of every group",
            "Sentences of other kinds",
            "Words that the edit acts on",
            "What the run had",
            "rledit apply --edit 'runs/a run/edit.safetensors'",
            "rledit predict --run 'runs/a run' --texts FILE",
            "edit.revert_(model)",
            "Terms",
            "4 of 4 groups have fewer than 20 test sentences of a label",
            "25% of the test's bias sentences have no word",
        )
    ]
    assert at == sorted(at)
    assert source.count("other &amp; set") >= 2  # error bars of the other set, too
    assert f'title="{LONG}"' in source
    assert "4.0 to -0.5 -4.5 98 to 38" in said
    assert "\N{MINUS SIGN}4.5" in source


def test_nothing_that_is_data_runs(tmp_path: Path) -> None:
    source = written(tmp_path, metrics())
    scripts = re.findall(r"<script>(.*?)</script>", source, flags=re.DOTALL)
    assert scripts == [(TEMPLATES / "sort.js").read_text(encoding="utf-8")]
    assert html.escape(RUNS, quote=True).replace("&#x27;", "&#39;") in source
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', source)
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in html.unescape(policy[1])
    assert "default-src 'none'" in html.unescape(policy[1])
    assert not re.search(r"url\(|@import|https?:|javascript:|<[^>]* on\w+=", source)


def test_scripts_that_read_from_the_right_stand_by_themselves(tmp_path: Path) -> None:
    source = written(tmp_path, metrics())
    for name in (ARABIC, CHINESE):
        assert re.search(rf'<bdi class="name" title="{name}">\s*{name}\s*</bdi>', source)


def test_what_older_runs_lack_is_left_out(tmp_path: Path) -> None:
    older = metrics(budgets=None, data=None, words=None)
    older["test"] = {**set_figures(with_change=False), "other": {}}
    source = written(tmp_path, older)
    said = words_of(source)
    for heading in ("Budgets", "Words that", "What the run had", "Sentences of other kinds", "within noise"):
        assert heading not in said
    assert "Warning" not in said
    assert "Who got worse" in said
    assert "No other set was read" in said
    bare = metrics(words=[], words_left_out="the classifier reads no new texts: why")
    assert "Not known: the classifier reads no new texts: why" in words_of(written(tmp_path, bare))


def test_limits_are_those_of_the_run() -> None:
    synthetic = limits(CONFIG, metrics(), True)
    assert "made by a program" in synthetic
    comments = replace(CONFIG, dataset=("jigsaw",))
    templates = limits(comments, metrics(), True)
    assert "sentences made from templates" in templates
    own = limits(comments, metrics(), False)
    assert "template" not in own
    assert "texts that mention the groups" in own
    assert "other & set" in own


def test_error_bars() -> None:
    made = chart("test", set_figures())
    assert made is not None
    assert made.ends == {"false_positive_rate": 1.0, "false_negative_rate": 0.5}
    assert list(made.rows) == groups_of(set_figures())
    dot = made.rows[CHINESE]["false_negative_rate"].after
    assert dot is not None
    assert (dot.low, dot.at, dot.high) == pytest.approx((0.6 - 2 * WIDTH, 0.6, 0.6 + 2 * WIDTH))
    assert made.rows[LONG]["false_negative_rate"].after is None
    assert "n/a before" in made.rows[LONG]["false_negative_rate"].said
    zero = made.rows[LONG]["false_positive_rate"].after
    assert zero is not None
    assert zero.low == zero.at == 0.0
    nothing: dict[str, Any] = {when: {"per_group": {}} for when in ("before", "after")}
    assert chart("test", nothing) is None


def test_every_group_is_in_the_chart() -> None:
    made = chart("test", set_figures())
    assert made is not None
    assert set(made.rows) == set(GROUPS)


def test_folders_as_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_typed(tmp_path / "runs" / "a") == Path("runs/a")
    assert as_typed(tmp_path) == tmp_path
    assert as_typed(Path("/elsewhere")) == Path("/elsewhere")
