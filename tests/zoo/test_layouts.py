"""Public data sets in the columns of their publishers, a few rows of each made here."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rledit.zoo.data import read_table
from rledit.zoo.data.layouts import LAYOUT_NAMES, LAYOUTS, LayoutName

pytest.importorskip("pandas")


def csv_file(path: Path, rows: Sequence[Mapping[str, Any]], separator: str = ",") -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def jigsaw(folder: Path) -> Path:
    rows = [
        {"id": 7 + i, "target": target, "comment_text": f"comment, {i}", "severe_toxicity": 0.0, "male": male,
         "female": "", "black": black, "psychiatric_or_mental_illness": 0.0, "funny": 9,
         "identity_annotator_count": 4}
        for i, (target, male, black) in enumerate(
            [("0.5", "0.5", ""), ("0.49", "", ""), ("1.0", "0.0", "1.0"), ("0.0", "0.4", "0.6")]
        )
    ]  # fmt: skip
    return csv_file(folder / "train.csv", rows)


def civil(folder: Path) -> Path:
    rows = [
        {"text": f"a {who} comment {i}", "toxicity": i / 4, "obscene": 0.0}
        for i, who in enumerate(["muslim", "kind", "muslim", "gay"])
    ]
    return csv_file(folder / "civil.csv", rows)


def toxigen(folder: Path) -> Path:
    rows = [
        {"text": f"statement {i}", "target_group": group, "framing": "x", "intent": 1.0, "toxicity_ai": 5.0,
         "toxicity_human": score}
        for i, (group, score) in enumerate([("women", 3.0), ("asian", 2.67), ("women", 1.0), ("latino", 5.0)])
    ]  # fmt: skip
    return csv_file(folder / "annotated_test.csv", rows)


def hatecheck(folder: Path) -> Path:
    rows = [
        {"": i, "functionality": "derog_neg_emote_h", "case_id": i, "test_case": f"case {i}",
         "label_gold": label, "target_ident": group, "direction": "general", "ref_case_id": "",
         "templ_id": 10 + i // 2}
        for i, (label, group) in enumerate(
            [("hateful", "women"), ("non-hateful", "trans people"), ("hateful", "women"), ("non-hateful", "")]
        )
    ]  # fmt: skip
    return csv_file(folder / "test_suite_cases.csv", rows)


def edos(folder: Path) -> Path:
    rows = [
        {"rewire_id": f"sexism2022_english-{i}", "text": f"these women, {i}", "label_sexist": label,
         "label_category": "none", "label_vector": "none", "split": "train"}
        for i, label in enumerate(["sexist", "not sexist", "not sexist", "sexist"])
    ]  # fmt: skip
    return csv_file(folder / "edos_labelled_aggregated.csv", rows)


def ethos(folder: Path) -> Path:
    rows = [
        {"comment": f"gay, {i}" if i < 2 else f"others, {i}", "isHate": share}
        for i, share in enumerate(["1.0", "0.5", "0.49", "0.0"])
    ]
    return csv_file(folder / "Ethos_Dataset_Binary.csv", rows, ";")


def davidson(folder: Path) -> Path:
    rows = [
        {"": i, "count": 3, "hate_speech": 0, "offensive_language": 3, "neither": 0, "class": label,
         "tweet": f"black, {i}"}
        for i, label in enumerate([0, 1, 2, 2])
    ]  # fmt: skip
    return csv_file(folder / "labeled_data.csv", rows)


def hatexplain(folder: Path) -> Path:
    def post(number: int, *answers: tuple[str, list[str]]) -> dict[str, Any]:
        annotators = [
            {"label": label, "annotator_id": i, "target": target} for i, (label, target) in enumerate(answers)
        ]
        return {"post_id": f"{number}_gab", "annotators": annotators, "rationales": [[0, 1]],
                "post_tokens": ["post", "number", str(number)]}  # fmt: skip

    posts = [
        post(0, ("hatespeech", ["Women"]), ("offensive", ["Women", "Islam"]), ("normal", ["None"])),
        post(1, ("normal", ["None"]), ("normal", ["None"]), ("offensive", ["Islam"])),
        post(2, ("normal", ["Islam"]), ("normal", ["Islam"]), ("normal", ["Women"])),
    ]
    path = folder / "dataset.json"
    path.write_text(json.dumps({each["post_id"]: each for each in posts}))
    return path


FILES = {
    "jigsaw-unintended-bias": (
        jigsaw,
        [1, 0, 1, 0],
        {"male": [0], "black": [2, 3], "female": []},
        "comment, 0",
    ),
    "civil-comments": (civil, [0, 0, 1, 1], {"muslim": [0, 2], "gay": [3]}, "a muslim comment 0"),
    "toxigen": (toxigen, [1, 0, 0, 1], {"women": [0, 2], "asian": [1], "latino": [3]}, "statement 0"),
    "hatecheck": (hatecheck, [1, 0, 1, 0], {"women": [0, 2], "trans people": [1]}, "case 0"),
    "edos": (edos, [1, 0, 0, 1], {"women": [0, 1, 2, 3]}, "these women, 0"),
    "ethos": (ethos, [1, 1, 0, 0], {"gay": [0, 1]}, "gay, 0"),
    "davidson": (davidson, [1, 1, 0, 0], {"black": [0, 1, 2, 3]}, "black, 0"),
    "hatexplain": (hatexplain, [1, 0, 0], {"Women": [0], "Islam": [2]}, "post number 0"),
}


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_layout(layout: LayoutName, tmp_path: Path) -> None:
    make, labels, groups, first = FILES[layout]
    path = make(tmp_path)
    assert LAYOUTS[layout].fits(names(path))
    comments = read_table(path, LAYOUTS[layout].of)
    assert comments.labels.tolist() == labels
    assert comments.texts[0] == first
    found = {group: mask.nonzero().flatten().tolist() for group, mask in comments.identities.items()}
    assert {group: found[group] for group in groups} == groups
    assert not any(members for group, members in found.items() if group not in groups)
    assert bool(comments.templates) == (layout == "hatecheck")


def names(path: Path) -> list[str]:
    if path.suffix == ".json":
        return list(next(iter(json.loads(path.read_text()).values())))
    with open(path, encoding="utf-8") as file:
        line = file.readline().strip()
    return line.split(";" if ";" in line else ",")


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_no_layout_is_taken_for_a_file_of_another_publisher(layout: LayoutName, tmp_path: Path) -> None:
    there = names(FILES[layout][0](tmp_path))
    fitting = [each for each in LAYOUT_NAMES if LAYOUTS[each].fits(there)]
    # Jigsaw's file holds Civil Comments with other columns, too.
    assert fitting == ([*LAYOUT_NAMES[:2]] if layout == "jigsaw-unintended-bias" else [layout])


def test_hatexplain_as_a_folder_of_datasets_has_it(tmp_path: Path) -> None:
    """There, annotators are one object of lists, and labels are numbers of classes."""
    row = {
        "id": "a",
        "annotators": {
            "label": [0, 2, 1],
            "annotator_id": [1, 2, 3],
            "target": [["Women"], ["Women"], ["None"]],
        },
        "post_tokens": ["some", "words"],
    }
    other = {**row, "id": "b", "annotators": {"label": [1, 1, 0], "target": [["None"], ["None"], ["Women"]]}}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, (row, other))))
    comments = read_table(path, LAYOUTS["hatexplain"].of)
    assert comments.labels.tolist() == [1, 0]
    assert {group: mask.tolist() for group, mask in comments.identities.items()} == {"Women": [True, False]}
