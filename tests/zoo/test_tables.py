"""rledit.zoo.data's tables: every kind of file, labels, groups and weights of any form, and what is
refused."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import rledit
from rledit.zoo.data import Columns, Comments, read_table
from rledit.zoo.data.cells import groups_of
from rledit.zoo.data.columns import find_columns

pandas = pytest.importorskip("pandas")

ROWS = [
    {"body": "one, with\na line", "hate": "yes", "who": "women|men", "w": 1.5},
    {"body": "two ¿?", "hate": "no", "who": None, "w": 0.0},
    {"body": "three", "hate": "no", "who": "Women", "w": 2.0},
]
COLUMNS = Columns(text="body", label="hate", group="who", weight="w")


def write(folder: Path, content: str | bytes, name: str = "some.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def groups(comments: Comments) -> dict[str, list[int]]:
    return {group: mask.nonzero().flatten().tolist() for group, mask in comments.identities.items()}


# --- kinds of files ---


def delimited(folder: Path, name: str, separator: str) -> Path:
    path = folder / name
    pandas.DataFrame(ROWS).to_csv(path, sep=separator, index=False)
    return path


def parquet(folder: Path) -> Path:
    pytest.importorskip("pyarrow")
    pandas.DataFrame(ROWS).to_parquet(folder / "some.parquet")
    return folder / "some.parquet"


def stream(path: Path, table: Any) -> None:
    arrow = pytest.importorskip("pyarrow")
    with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def datasets_folder(folder: Path) -> Path:
    """As Dataset.save_to_disk writes it: Arrow streams, and two files that describe them."""
    arrow = pytest.importorskip("pyarrow")
    folder = folder / "some"
    folder.mkdir()
    table = arrow.Table.from_pandas(pandas.DataFrame(ROWS), preserve_index=False)
    for number, part in enumerate((table[:2], table[2:])):
        stream(folder / f"data-{number:05}-of-00002.arrow", part)
    state = {"_data_files": [{"filename": f"data-{number:05}-of-00002.arrow"} for number in range(2)]}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"body": {"dtype": "string"}}}))
    return folder


def zipped(path: Path) -> Path:
    return write(path.parent, gzip.compress(path.read_bytes()), f"{path.name}.gz")


KINDS: dict[str, Any] = {
    "commas": lambda folder: delimited(folder, "some.csv", ","),
    "tabs": lambda folder: delimited(folder, "some.tsv", "\t"),
    "semicolons": lambda folder: delimited(folder, "some.csv", ";"),
    "JSON lines": lambda folder: write(folder, "\n\n".join(map(json.dumps, ROWS)), "some.jsonl"),
    "JSON lines called JSON": lambda folder: write(folder, "\n".join(map(json.dumps, ROWS)), "some.json"),
    "a list": lambda folder: write(folder, json.dumps(ROWS), "some.json"),
    "columns": lambda folder: write(
        folder, json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}), "some.json"
    ),
    "rows by id": lambda folder: write(
        folder, json.dumps({f"id {i}": row for i, row in enumerate(ROWS)}), "some.json"
    ),
    "Parquet": parquet,
    "a folder": datasets_folder,
    "commas, zipped": lambda folder: zipped(KINDS["commas"](folder)),
    "JSON lines, zipped": lambda folder: zipped(KINDS["JSON lines"](folder)),
    "Parquet, zipped": lambda folder: zipped(parquet(folder)),
    "a mark": lambda folder: write(folder, b"\xef\xbb\xbf" + KINDS["commas"](folder).read_bytes()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_reads_alike(kind: str, tmp_path: Path) -> None:
    comments = read_table(KINDS[kind](tmp_path), COLUMNS)
    assert comments.name == "some"
    assert comments.texts == tuple(row["body"] for row in ROWS)
    assert comments.labels.tolist() == [1, 0, 0]
    assert groups(comments) == {"women": [0, 2], "men": [0]}
    assert comments.weights is not None
    assert comments.weights.tolist() == [1.5, 0, 2]


def test_names_of_classes_in_a_folder(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"text": ["a", "b"], "label": [1, 0], "who": [0, -1]})
    for split in ("train", "test"):
        folder = tmp_path / split
        folder.mkdir()
        stream(folder / "data.arrow", table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        features = {"label": {"names": ["fine", "hate"]}, "who": {"names": ["women"]}}
        (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    comments = read_table(tmp_path / "train", Columns(positive=("fine",), group="who"))
    assert comments.labels.tolist() == [0, 1]
    assert groups(comments) == {"women": [0]}
    assert read_table(tmp_path / "train", Columns(group="who")).labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match="expected the folder of one split; it has test, train"):
        read_table(tmp_path)


# --- labels ---


@pytest.mark.parametrize(
    ("cells", "columns", "labels"),
    [
        ("1 0", {}, [1, 0]),
        ("1.0 0.0", {}, [1, 0]),
        ("True False", {}, [1, 0]),
        ("TOXIC nontoxic", {}, [1, 0]),
        ("0.5 0.49", {}, [1, 0]),
        ("0.5 0.8", {"threshold": 0.7}, [0, 1]),
        ("4.5 2", {"threshold": 3}, [1, 0]),
        ("Hateful offensive none", {"positive": ("hateful", "Offensive")}, [1, 1, 0]),
        ("0 1 2", {"positive": ("0", "1")}, [1, 1, 0]),
        ("0.0 1.0 2.0", {"positive": ("2",)}, [0, 0, 1]),
        ("0.2 0.9", {"positive": ("hateful",)}, [0, 1]),  # words of another file
    ],
)
def test_labels_of_any_form(cells: str, columns: dict[str, Any], labels: list[int], tmp_path: Path) -> None:
    lines = [f"{chr(97 + i)},{cell}" for i, cell in enumerate(cells.split())]
    path = write(tmp_path, "\n".join(["text,label", *lines]))
    assert read_table(path, Columns(**columns)).labels.tolist() == labels


# --- groups ---


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        *((nothing, ()) for nothing in (None, float("nan"), "", "nan", "None", " null ", "[]", "<NA>")),
        ("a|b | a", ("a", "b")),
        ("a, b;c", ("a", "b", "c")),
        ('["a", "b, c"]', ("a", "b, c")),
        ("['a', None, 'nan']", ("a",)),
        ("['a' 'b']", ("a", "b")),  # as NumPy prints arrays ("('a',)", ("a",)),
        ("(gay people)", ("(gay people)",)),
        (["a", "None", "b"], ("a", "b")),
        ([["a"], ["a", "b"], ["c"]], ("a",)),  # three annotators
        ("--label", ("--label",)),
    ],
)
def test_names_of_groups_in_a_cell(cell: object, names: tuple[str, ...]) -> None:
    assert groups_of(cell) == names


@pytest.mark.parametrize("cell", ["[a", "[a]", "[__import__('os')]", "{'a': 1}", "[" * 9_000 + "]" * 900])
def test_a_list_is_read_and_never_run(cell: str) -> None:
    if cell.endswith(("]", "}")):
        with pytest.raises(ValueError, match="expected a list of names, got"):
            groups_of(cell)
    else:
        assert groups_of(cell) == (cell,)


def test_columns_of_groups(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label,a,b,c\nx,1,1,0.5,\ny,0,False,0.49,\nz,0,true,nan,None\n")
    assert groups(read_table(path, Columns(groups=("a", "B", "c")))) == {"a": [0, 2], "B": [0], "c": []}
    assert read_table(path, Columns(groups=("gone",)), with_groups=False).identities == {}


def test_columns_without_annotations_leave_it_to_the_terms(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "text,label,a\nx cat,1,\ny,0,nan\n")
    for columns in (Columns(groups=("a",)), Columns(group="a")):
        caplog.clear()
        assert groups(read_table(path, columns, terms={"cats": ["cat"]})) == {"cats": [0]}
        assert "groups are found by terms" in caplog.text
    assert groups(read_table(path, terms={"cats": ["cat"]})) == {"cats": [0]}


# --- several files, many rows, ids ---


def test_files_that_differ_are_one_set(tmp_path: Path) -> None:
    first = write(tmp_path, "body,y,who\na,1,men\nb,1,\n", "first.csv")
    second = write(tmp_path, "phrase;label;who\nc;0;women\n", "second.csv")
    comments = read_table([first, second], Columns(text="body|phrase", label="y|label", group="who"))
    assert (comments.name, comments.texts) == ("first+second", ("a", "b", "c"))
    assert comments.labels.tolist() == [1, 1, 0]
    assert groups(comments) == {"men": [0], "women": [2]}


def test_a_sample_is_drawn_from_all_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rledit.zoo.data.frames.CHUNK", 100)
    lines = [f"text {i},{i % 4 == 0:d}" for i in range(1000)]
    path = write(tmp_path, "\n".join(["text,label", *lines]))
    comments = read_table(path, sample=200, seed=1)
    rows = [int(text.split()[1]) for text in comments.texts]
    assert rows == sorted(set(rows))
    assert len(rows) == 200
    assert all(70 <= sum(low <= row < low + 500 for row in rows) <= 130 for low in (0, 500))
    assert comments.labels.tolist() == [int(row % 4 == 0) for row in rows]
    assert "200 of 1,000 rows are drawn" in caplog.text
    assert read_table(path, sample=200, seed=1).texts == comments.texts
    assert read_table(path, sample=200, seed=2).texts != comments.texts
    assert len(read_table(path, sample=5000)) == len(read_table(path)) == 1000


def test_very_many_rows_name_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rledit.zoo.data.tables.MANY", 3)
    path = write(tmp_path, "text,label\na,1\nb,0\nc,0\n")
    read_table(path)
    assert "3 rows are read; with --sample 100000" in caplog.text


def test_rows_that_repeat_an_id_or_have_no_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "id,text,label,t\n1,a,1,u\n2,b,0,v\n1,c,0,w\n,d,0,x\n,e,1,\n3, ,1,z\n")
    with caplog.at_level(logging.WARNING, logger="rledit"):
        comments = read_table(path, Columns(id="id", template="t"))
    assert comments.texts == ("a", "b", "d", "e")
    assert comments.templates == ("u", "v", "x", "")
    assert "1 rows repeat the id" in caplog.text
    other = write(tmp_path, "id,text,label,t\n1,f,1,u\n", "other.csv")
    assert read_table([path, other], Columns(id="id")).texts[-1] == "f"  # its rows have numbers of their own
    assert "1 of 5 comments are empty" in caplog.text


# --- what is refused ---


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("", {}, "the first row, got an empty file"),
        ("text,label\n", {}, "expected comments, got none$"),
        ("text,label\n,1\n ,0\n", {}, "expected comments, got none but 2 empty ones"),
        ("text,label\na,1\nb,1\n", {}, "got 2 that are all toxic; --label-column, --positive"),
        ("text,label\na,0.1\n", {}, "all not toxic"),
        ("text,label\na,1\nb\n", {}, "line 3: expected 2 fields, got 1"),
        ("text,label\na,1\nb,c,0\n", {}, "line 3: expected 2 fields, got 3"),
        ("text,label\nb,c,0\na,1\n", {}, "line 2: expected 2 fields, got 3"),
        ("text,label,x\na,1,\nb\n", {}, "line 3: expected 3 fields, got 1"),
        ('text,label\na,1\n"b,0\nc,1\n', {}, "line 3"),
        (b"text,label\ncaf\xe9,1\nb,0\n", {}, "expected UTF-8, got 0xe9"),
        ("text,label\na,1\nb,maybe\n", {}, "column 'label', row 2: .*got 'maybe'. Say which .* --positive"),
        ("text,label\na,1\nb,\n", {}, "column 'label', row 2: .*got an empty cell"),
        ("text,label\na,1\nb,nan\n", {}, "column 'label', row 2: .*got an empty cell"),
        ("text,label\na,1\nb,4\n", {}, "column 'label', row 2: .*got '4'. .*--threshold"),
        ("text,label\na,x\nb,y\n", {"positive": ("z",)}, "none of the labels .* z, is there; it has x, y"),
        ("text,label\na,x\nb,\n", {"positive": ("x",)}, "row 2: expected a label, got an empty cell"),
        ("txt,label\na,1\n", {}, "no column of the text, such as .*has 'txt', 'label'. .*--text-column"),
        ("text,lab\na,1\n", {}, "no column of the label, .*--label-column"),
        ("text,toxic,label\na,1,0\n", {}, "'toxic' and 'label' could all be .*with --label-column"),
        ("text,comment,label\na,b,0\n", {}, "'text' and 'comment' could all be .*--text-column"),
        ("text,label\na,1\n", {"text": "texts"}, "no column 'texts', the closest is 'text'; "),
        ("text,label\na,1\n", {"groups": ("who",)}, "no column 'who'; .*--group-columns"),
        ("text,label\na,1\n", {"group": "who"}, "no column 'who'; .*--group-column"),
        ("text,label\na,1\n", {"text": "label"}, "expected different columns for text and label"),
        ("text,text,label\na,b,1\n", {"text": "text"}, "expected one column 'text', got 2"),
        ("text,label,g\na,1,x\nb,0,\n", {"groups": ("g",)}, "column 'g', row 1: .*got 'x'.*--group-column"),
        ("text,label,g\na,1,3\nb,0,\n", {"groups": ("g",)}, "column 'g', row 1: .*got '3'"),
        ("text,label,w\na,1,1\nb,0,-2\n", {"weight": "w"}, "'weight', row 2: .*at least 0, got '-2'"),
        ("text,label,w\na,1,1\nb,0,inf\n", {"weight": "w"}, "'weight', row 2: .*got 'inf'"),
        ("text,label,w\na,1,1\nb,0,\n", {"weight": "w"}, "'weight', row 2: .*got an empty cell"),
        ("text,label,g\na,1,['x\nb,0,[x]\n", {"group": "g"}, "'group', row 2: expected a list of names"),
    ],
)
def test_bad_tables_are_named(content: str, columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"(?s)some\.csv.*{message}"):
        read_table(write(tmp_path, content), Columns(**columns))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("some.jsonl", '{"text": "a", "label": 1}\n{"text": ', "line 2: not JSON"),
        ("some.jsonl", '{"text": "a", "label": 1}\n[1]\n', "line 2: expected an object, got list"),
        ("some.json", "[1, 2]", "expected a list of objects"),
        ("some.json", '{"text": ["a"], "label": [1, 0]}', "of one length, got 'text' with 1, 'label' with 2"),
        ("some.json", "[" * 100_000, "not JSON"),
        ("some.parquet", "text,label", "not Parquet"),
        ("some.csv.gz", gzip.compress(b"text,label\na,1\nb,0\n", mtime=0)[:-9], "damaged gzip"),
        ("some.parquet.gz", b"\x1f\x8b damaged", "damaged gzip"),
    ],
)
def test_damaged_files_are_named(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"some\..*{message}"):
        read_table(write(tmp_path, content, name))


def test_other_wrong_arguments(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\na,1\nb,0\n")
    for arguments, message in (
        ({"threshold": float("nan")}, "threshold: expected a finite number"),
        ({"groups": ("a", "a")}, "group_columns: expected each column once"),
        ({"groups": ("a",), "group": "b"}, "group_columns, group_column: expected one of them"),
        ({"separator": "||"}, "separator: expected one character"),
    ):
        with pytest.raises(ValueError, match=message):
            Columns(**arguments)
    with pytest.raises(ValueError, match="path: expected at least one file"):
        read_table([])
    with pytest.raises(ValueError, match="sample: expected at least 0"):
        read_table(path, sample=-1)
    with pytest.raises(OSError, match="absent"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"a folder of datasets with state\.json; it has none"):
        read_table(tmp_path / "folder")


def test_a_column_name_that_differs_in_case_alone() -> None:
    for names, found in ((("Text ", "LABEL"), "Text "), (("text", "Text", "label"), "text")):
        assert find_columns(Columns(text="text"), names, "x").single["text"] == (found, ())
    with pytest.raises(ValueError, match="no column 'TEXT'"):
        find_columns(Columns(text="TEXT"), ("text", "Text", "label"), "x")


def test_without_pandas_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(rledit.MissingExtraError, match=r'needs the package pandas.*"rledit\[data\]"'):
        read_table(write(tmp_path, "text,label\na,1\nb,0\n"))


def test_a_group_of_one_and_groups_named_like_options(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label,who\na,1,--out\nb,0,utility\nc,0,--out|bias\n")
    comments = read_table(path, Columns(group="who"))
    assert groups(comments) == {"--out": [0, 2], "utility": [1], "bias": [2]}
    assert comments.labels.dtype == torch.int64
