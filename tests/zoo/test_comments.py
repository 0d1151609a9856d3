"""rledit.zoo.data's comments: containers, splits without leaks, identity terms, files good and damaged."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rledit.zoo.data import (
    DEFAULT_TERMS,
    IDENTITY_TERMS,
    Comments,
    find_identities,
    hold_out_templates,
    load_comments,
    read_comments,
    read_terms,
    split_comments,
)
from rledit.zoo.data.comment_files import IDENTITY_COLUMNS
from rledit.zoo.data.comments import distinct, normalize
from rledit.zoo.data.identities import extended


def toy(count: int = 6, name: str = "toy") -> Comments:
    return Comments(
        name,
        tuple(f"comment {i} of {name}" for i in range(count)),
        torch.arange(count) % 2,
        {"first": torch.arange(count) < 2, "none": torch.zeros(count, dtype=torch.bool)},
    )


def labeled(*pairs: tuple[str, int]) -> Comments:
    return Comments(
        "pairs", tuple(text for text, _ in pairs), torch.tensor([label for _, label in pairs]), {}
    )


# --- the container ---


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"texts": ["a", "b"]}, TypeError, "texts: expected a tuple of strings, got list"),
        ({"texts": ("a", 3)}, TypeError, "texts: expected strings, got int in row 1"),
        ({"labels": torch.tensor([0.0, 1.0])}, TypeError, "labels: expected dtype int64"),
        ({"labels": torch.tensor([[0, 1]])}, ValueError, r"labels: expected shape \[S\], got \[1, 2\]"),
        ({"labels": torch.tensor([0, 1, 1])}, ValueError, "one for each of the 2 texts, got 3"),
        ({"labels": torch.tensor([0, 3])}, ValueError, "labels: expected 0 or 1, got 3 in row 1"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, "got -1 in row 0"),
        ({"identities": [torch.tensor([True, True])]}, TypeError, "identities: expected a dict"),
        ({"identities": {"g": torch.tensor([1, 0])}}, TypeError, r"identities\['g'\]: expected a bool mask"),
        ({"identities": {"g": torch.tensor([True])}}, ValueError, r"expected shape \[2\].*got \[1\]"),
        (
            {"templates": ("t",)},
            ValueError,
            "templates: expected none, or one for each of the 2 texts, got 1",
        ),
        ({"templates": ["t", "t"]}, TypeError, "templates: expected a tuple of strings, got list"),
        ({"weights": torch.ones(2)}, TypeError, "weights: expected dtype float64, got torch.float32"),
        ({"weights": torch.ones(3).double()}, ValueError, r"weights: expected shape \[2\].*got \[3\]"),
        ({"weights": torch.tensor([1, -1.0]).double()}, ValueError, "of at least 0, got -1.0 in row 1"),
        ({"weights": torch.tensor([torch.nan, 1]).double()}, ValueError, "got nan in row 0"),
        ({"weights": torch.tensor([torch.inf, 1]).double()}, ValueError, "got inf in row 0"),
    ],
)
def test_comments_are_checked(change: dict[str, object], error: type[Exception], message: str) -> None:
    good: dict[str, object] = {
        "name": "x",
        "texts": ("a", "b"),
        "labels": torch.tensor([0, 1]),
        "identities": {"g": torch.tensor([True, False])},
        "templates": ("t", "u"),
    }
    assert len(Comments(**good)) == 2  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        Comments(**(good | change))  # type: ignore[arg-type]


def test_subset_takes_everything_along() -> None:
    comments = Comments(
        "x",
        ("a", "b", "c"),
        torch.tensor([0, 1, 1]),
        {"g": torch.tensor([True, False, True])},
        ("s", "t", "u"),
    )
    part = comments.subset(torch.tensor([2, 0]))
    assert (part.name, part.texts, part.labels.tolist()) == ("x", ("c", "a"), [1, 0])
    assert part.identities["g"].tolist() == [True, True]
    assert part.templates == ("u", "s")
    masked = comments.subset(comments.labels == 1)
    assert (masked.texts, masked.templates) == (("b", "c"), ("t", "u"))
    assert masked.identities["g"].tolist() == [False, True]
    assert toy().subset(torch.tensor([0])).templates == ()
    nothing = comments.subset(torch.tensor([], dtype=torch.int64))
    assert len(nothing) == 0
    assert list(nothing.identities) == ["g"]
    for indices, error in (
        (torch.tensor([3]), IndexError),
        (torch.tensor([-1]), IndexError),
        (torch.tensor([1.0]), TypeError),
        (torch.tensor([True, False]), ValueError),
        (torch.tensor([[1]]), ValueError),
    ):
        with pytest.raises(error, match="indices: expected"):
            comments.subset(indices)


def test_join_keeps_order_and_unites_groups() -> None:
    a = Comments("a", ("x",), torch.tensor([1]), {"g": torch.tensor([True])})
    b = Comments("b", ("y", "z"), torch.tensor([0, 1]), {"h": torch.tensor([True, False])}, ("t", "u"))
    both = Comments.join(a, b)
    assert (both.name, both.texts, both.labels.tolist()) == ("a+b", ("x", "y", "z"), [1, 0, 1])
    assert {group: mask.tolist() for group, mask in both.identities.items()} == {
        "g": [True, False, False],
        "h": [False, True, False],
    }
    assert both.templates == ("", "t", "u")
    assert a.join(a).name == "a"
    assert a.join(a).templates == ()
    whole = toy(7)
    again = Comments.join(*(whole.subset(torch.tensor([i])) for i in range(7)))
    assert again.texts == whole.texts
    assert torch.equal(again.identities["first"], whole.identities["first"])


def test_weights_go_along() -> None:
    plain = toy(3)
    weighted = replace(plain, weights=torch.tensor([0.5, 2, 3], dtype=torch.float64))
    part = weighted.subset(torch.tensor([2, 0]))
    assert part.weights is not None
    assert part.weights.tolist() == [3, 0.5]
    both = plain.join(weighted)
    assert both.weights is not None
    assert both.weights.tolist() == [1, 1, 1, 0.5, 2, 3]
    assert plain.join(plain).weights is None
    assert plain.subset(torch.tensor([1])).weights is None


# --- copies ---


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Can't  stop!", "cant stop"),
        ("A\tb\n c", "a_b-c"),
        ("STRASSE", "straße"),
        ("cafe\u0301", "Caf\u00e9"),
        ("\uff46\uff55\uff4c\uff4c", "full"),
        ("  !? ", "!?"),
    ],
)
def test_copies_have_one_key(a: str, b: str) -> None:
    assert normalize(a) == normalize(b)


def test_different_sentences_have_different_keys() -> None:
    texts = ("a b", "a c", "ab1", "!", "?", ":-)", "\u4f60\u597d", "\u4f60", "")
    assert len({normalize(text) for text in texts}) == len(texts)
    key = normalize("\u0130stanbul, \ufb01ne \u00bd \u1e9e!")
    assert normalize(key) == key


def test_distinct_takes_the_majority_and_leaves_ties_out() -> None:
    comments = labeled(
        ("Good day", 1),  # outvoted
        ("good DAY", 0),  # the first of the majority
        ("only once", 1),
        ("good day!", 0),
        ("so or so", 0),  # a tie
        ("so, or so", 1),
    )
    assert distinct(comments).tolist() == [1, 2]


def test_split_comments_is_stratified_disjoint_and_reproducible() -> None:
    sentences = [f"sentence number {i}" for i in range(300)]
    # Every third sentence occurs again, written otherwise, with the same label.
    texts = sentences + [f"  Sentence,  NUMBER {i}!" for i in range(0, 300, 3)]
    labels = torch.tensor([int(i % 5 == 0) for i in range(300)] + [int(i % 5 == 0) for i in range(0, 300, 3)])
    comments = Comments("x", tuple(texts), labels, {"even": torch.arange(400) % 2 == 0})
    parts = split_comments(comments, [0.5, 0.3, 0.2], seed=1)
    assert [len(part) for part in parts] == [150, 90, 60]
    assert [int(part.labels.sum()) for part in parts] == [30, 18, 12]
    keys = [normalize(text) for part in parts for text in part.texts]
    assert len(keys) == len(set(keys)) == 300
    label_of = dict(zip(texts, labels.tolist(), strict=True))
    even_of = dict(zip(texts, comments.identities["even"].tolist(), strict=True))
    for part in parts:
        assert [label_of[text] for text in part.texts] == part.labels.tolist()
        assert [even_of[text] for text in part.texts] == part.identities["even"].tolist()
    again = split_comments(comments, [0.5, 0.3, 0.2], seed=1)
    other = split_comments(comments, [0.5, 0.3, 0.2], seed=2)
    assert [part.texts for part in parts] == [part.texts for part in again]
    assert set(parts[0].texts) != set(other[0].texts)
    assert [len(part) for part in split_comments(comments, [7, 11], seed=0)] == [7, 11]
    with pytest.raises(ValueError, match="sum of at most 300 samples, got 301"):
        split_comments(comments, [200, 101], seed=0)
    with pytest.raises(ValueError, match=r"expected at least one sentence .* got none among 2 comments"):
        split_comments(labeled(("a", 0), ("a", 1)), [0.5], seed=0)
    with pytest.raises(ValueError, match="got none among 0 comments"):
        split_comments(toy(0), [0.5], seed=0)


def test_hold_out_templates() -> None:
    comments = Comments(
        "x", ("a", "b", "c", "d"), torch.tensor([0, 1, 0, 1]), {}, ("first", "second", "first", "third")
    )
    seen, unseen = hold_out_templates(comments, ["second", "third"])
    assert seen.tolist() == [True, False, True, False]
    assert torch.equal(unseen, ~seen)
    assert hold_out_templates(comments, "first")[1].tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match="templates: expected some of first, second, third, got 'forth'"):
        hold_out_templates(comments, ["forth"])
    for templates in ([], ["first", "second", "third"]):
        with pytest.raises(ValueError, match=f"some but not all .* got {len(templates)} of 3"):
            hold_out_templates(comments, templates)
    with pytest.raises(ValueError, match="'toy' has none"):
        hold_out_templates(toy(), ["first"])


# --- identity terms ---


def found(text: str, terms: dict[str, list[str]] | None = None) -> set[str]:
    groups = find_identities([text], IDENTITY_TERMS if terms is None else terms)
    return {group for group, mask in groups.items() if bool(mask)}


def test_the_published_terms() -> None:
    assert len(IDENTITY_TERMS) == 50
    for group, terms in IDENTITY_TERMS.items():
        assert group in terms
        assert found(f"a {group} person") == {group}
    with pytest.raises(TypeError):
        IDENTITY_TERMS["x"] = ("x",)  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("African American and proud", {"african american"}),
        ("an AFRICAN-american,\nan American", {"african american", "american"}),
        ("African \u2011 American", {"african american"}),
        ("middle_aged", {"middle aged"}),
        ("the LGBTQ group, not lgbt-q", {"lgbtq", "lgbt"}),
        ("blackboard, Whitehall, oldest, females, straighten", set()),
        ("black/white; (older) \u201cblind\u201d", {"black", "white", "older", "blind"}),
        ("\uff27\uff21\uff39", {"gay"}),
        ("As\u0131an, \u212aing, \u0130ndian", set()),
        ("millennial", {"millenial"}),
        ("", set()),
    ],
)
def test_find_identities(text: str, groups: set[str]) -> None:
    assert found(text) == groups


HATECHECK = {
    "women": ("women", "a woman"),
    "trans": ("trans people", "a trans person", "trans"),
    "gay": ("gay people", "a gay person", "gays", "gay"),
    "black": ("black people", "a black person", "blacks", "black"),
    "disabled": ("disabled people", "a disabled person", "people with a disability", "disabled"),
    "muslim": ("Muslims", "a Muslim", "Muslim"),
    "immigrants": ("immigrants", "an immigrant", "immigrant"),
}


@pytest.mark.parametrize("group", HATECHECK)
def test_the_default_terms_have_what_hatechecks_groups_are_called(group: str) -> None:
    for name in HATECHECK[group]:
        masks = find_identities([f"I have met {name} today."])
        assert {each for each, mask in masks.items() if bool(mask)} == {group}, name


def test_the_default_terms_keep_the_published_groups() -> None:
    assert list(DEFAULT_TERMS)[:50] == list(IDENTITY_TERMS)
    for group, terms in IDENTITY_TERMS.items():
        assert DEFAULT_TERMS[group][: len(terms)] == terms
    owners = Counter(term for terms in DEFAULT_TERMS.values() for term in terms)
    assert set(owners.values()) == {1}  # else a mention would count for two groups
    masks = find_identities(["black women and gay men", "an old man's girl"])
    assert {group: mask.tolist() for group, mask in masks.items() if bool(mask.any())} == {
        "gay": [True, False],
        "black": [True, False],
        "old": [False, True],
        "women": [True, True],
        "men": [True, True],
    }


def test_terms_that_extend_the_default() -> None:
    terms = extended({"women": ("woman", "frau"), "cats": ("cat",)})
    assert list(terms) == [*DEFAULT_TERMS, "cats"]
    assert terms["women"] == (*DEFAULT_TERMS["women"], "frau")
    assert terms["gay"] == DEFAULT_TERMS["gay"]


def test_find_identities_with_own_terms() -> None:
    terms = {
        "plus": ["c++ user", "c++"],
        "woman": ["woman", "Frau"],
        "person": ["woman", "STRASSE", "\u00e9t\u00e9"],
    }
    assert found("a C++ - user", terms) == {"plus"}
    assert found("c+ + user, womanly, Frauen", terms) == set()
    assert found("A WOMAN", terms) == {"woman", "person"}
    assert found("die Stra\u00dfe", terms) == {"person"}
    assert found("E\u0301te\u0301 !", terms) == {"person"}
    masks = find_identities(("woman", "none", "Frau"), terms)
    assert list(masks) == ["plus", "woman", "person"]
    assert masks["woman"].tolist() == [True, False, True]
    assert masks["plus"].dtype == torch.bool
    assert find_identities([], terms)["plus"].shape == (0,)
    with pytest.raises(TypeError, match="texts: expected several strings, got one"):
        find_identities("woman", terms)
    with pytest.raises(TypeError, match=r"terms\['g'\]: expected a list of strings, got str"):
        find_identities(["x"], {"g": "woman"})


def test_many_comments() -> None:
    text = "It is a long way from here to there, and a black cat, some teenage dogs and a bird are on it. "
    masks = find_identities([f"{text}{i}" * 3 for i in range(2_000)])
    assert bool(masks["teenage"].all())
    assert not bool(masks["gay"].any())


def test_read_terms(tmp_path: Path) -> None:
    path = tmp_path / "terms.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"b": ["x y", "z"], "a": ["w"]}).encode())
    assert read_terms(path) == {"b": ("x y", "z"), "a": ("w",)}
    assert list(read_terms(path)) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ["x"]', "not JSON: .*line 1 column 12"),
        (b"", "not JSON"),
        (b'{"a": ["\xff"]}', "expected UTF-8.*position 8"),
        (b'["a"]', "expected groups with a list of terms each, got list"),
        (b"{}", "expected at least one group, got none"),
        (b'{"a": "x"}', r"terms\['a'\]: expected a list of strings, got str"),
        (b'{"a": []}', r"terms\['a'\]: expected at least one term, got none"),
        (b'{"a": ["x", 3]}', r"terms\['a'\]\[1\]: expected a string, got int"),
        (b'{"a": ["x", " -"]}', r"terms\['a'\]\[1\]: expected letters or digits, got ' -'"),
        (b'{" ": ["x"]}', "expected groups with a name, got ' '"),
        (b'{"a": ["x"], "b": ["y"], "a": ["z"]}', r"terms\['a'\]: expected each group once"),
        (b"[" * 200_000, "recursion"),
        (b'{"a": [' + b"9" * 10_000 + b"]}", ""),
    ],
)
def test_damaged_term_lists_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "terms.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"terms\.json: .*{message}"):
        read_terms(path)


# --- files ---


def write(folder: Path, content: str | bytes, name: str = "some.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def groups_of(comments: Comments) -> dict[str, list[bool]]:
    return {group: mask.tolist() for group, mask in comments.identities.items()}


def test_read_the_public_jigsaw_layout(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "id,comment_text,toxic,severe_toxic\r\n"
        '01,"two lines,\r\nwith a ""quote"" by a gay man",0,0\r\n'
        "\r\n"
        "02,awful,1,0\r\n",
    )
    comments = read_comments(path)
    assert comments.name == "some"
    assert comments.texts == ('two lines,\r\nwith a "quote" by a gay man', "awful")
    assert comments.labels.tolist() == [0, 1]
    assert list(comments.identities) == list(DEFAULT_TERMS)
    assert comments.identities["gay"].tolist() == [True, False]
    assert comments.templates == ()
    own = read_comments(path, name="mine", terms={"people": ["man", "awful"]})
    assert (own.name, groups_of(own)) == ("mine", {"people": [True, True]})


def test_read_the_unintended_bias_layout(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeffid,target,comment_text,male,psychiatric_or_mental_illness,black,funny\n"
        "1,0.0,one,,,,0\n"
        "2,0.5,two,0.5,0.0,,7\n"
        "3,0.49999,three black cats,1,0.4999,,0\n"
        "4,1,four,nan,0.9,,0\n",
    )
    comments = read_comments(path)
    assert comments.labels.tolist() == [0, 1, 0, 1]
    # No cell of "black" is annotated, yet the column says that the file has that group.
    assert groups_of(comments) == {
        "male": [False, True, True, False],
        "psychiatric_or_mental_illness": [False, False, False, True],
        "black": [False] * 4,
    }
    assert read_comments(path, threshold=0.4).labels.tolist() == [0, 1, 1, 1]
    assert read_comments(path, threshold=1).labels.tolist() == [0, 0, 0, 1]


def test_columns_without_annotations_leave_it_to_the_terms(tmp_path: Path) -> None:
    path = write(tmp_path, "text,toxicity,male\na male cat,0.9,\na cat,0.1, \n")
    assert groups_of(read_comments(path, terms={"cats": ["cat"]})) == {"cats": [True, True]}
    assert "heterosexual" in IDENTITY_COLUMNS
    assert len(set(IDENTITY_COLUMNS)) == 24


def test_read_the_toxigen_layout(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "text,toxic,toxicity_score,target_group\n"
        "a,1,5.0,cats | dogs\nb,0,1.0,\nc,0,1.5,dogs|dogs|\nd,1,4.0,birds\n",
    )
    assert groups_of(read_comments(path)) == {
        "cats": [True, False, False, False],
        "dogs": [True, False, True, False],
        "birds": [False, False, False, True],
    }


@pytest.mark.parametrize(
    "content",
    [
        "text,toxic,template\nhug gay,0,verb\nYou rude male,1,you\n",
        "template,toxicity,phrase\nverb,nontoxic,hug gay\nyou,toxic,You rude male\n",
        'Text,Label,Template\n"hug gay",NOT_BAD,verb\n"You rude male",BAD,you\n',
    ],
)
def test_read_the_madlibs_layouts(tmp_path: Path, content: str) -> None:
    comments = read_comments(write(tmp_path, content))
    assert comments.texts == ("hug gay", "You rude male")
    assert comments.labels.tolist() == [0, 1]
    assert comments.templates == ("verb", "you")
    assert comments.identities["male"].tolist() == [False, True]


def test_empty_comments_are_dropped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, 'text,toxic,template\na,1,s\n,0,t\n" \n\t",1,u\nb,0,v\n')
    with caplog.at_level(logging.WARNING, logger="rledit"):
        comments = read_comments(path)
    assert (comments.texts, comments.labels.tolist()) == (("a", "b"), [1, 0])
    assert comments.templates == ("s", "v")
    assert [record.name for record in caplog.records] == ["rledit"]
    assert f"{path}: 2 of 4 comments are empty" in caplog.text
    caplog.clear()
    read_comments(write(tmp_path, "text,toxic\na,1\nb,0\n"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names of the columns in the first row, got an empty file"),
        (b"\xef\xbb\xbf\n\n", "got an empty file"),
        ("text,toxic\n", "expected comments, got none$"),
        ("text,toxic\n ,1\n,0\n", "expected comments, got none but 2 empty ones"),
        (
            "id,comment\n1,a\n",
            r"\(comment_text or text or phrase\) and .*\(toxic or target.*got id, comment$",
        ),
        ("id,comment_text\n1,a\n", r"one for the label .*got id, comment_text$"),
        ("text\ttoxic\na\t1\n", "expected a column for the text"),
        ("text,toxic,text\na,1,b\n", "expected one column 'text', got 2"),
        ("text,toxic\na,1\nb,0,extra\n", "line 3: expected 2 fields, got 3"),
        ('text,toxic\n"a\na",1\n\nb\n', "line 5: expected 2 fields, got 1"),
        ("text,toxic\na,1\nb,2\n", "line 3: toxic: expected 0, 1 or a probability between, got '2'"),
        ("text,toxic\na,1\nb,-1\n", "line 3: toxic: .*got '-1'"),
        ("text,target\na,1\nb,NaN\n", "line 3: target: .*got 'NaN'"),
        ("text,toxic\na,1\nb,inf\n", "line 3: toxic: .*got 'inf'"),
        ("text,toxic\na,1\nb,\n", "line 3: toxic: .*got ''"),
        ("text,toxic\na,1\nb,yes\n", "line 3: toxic: .*got 'yes'"),
        ("text,toxic,male\na,1,0.2\nb,0,2\n", "line 3: male: .*got '2'"),
        ("text,toxic\na,1\nb,1\n", r"got 2 that are all toxic \(column toxic, threshold 0.5\)"),
        ("text,target\na,0.4\nb,0\n", r"all not toxic \(column target, threshold 0.5\)"),
        (b"text,toxic\na,1\nb\xe9,0\n", "line 3: expected UTF-8, got 0xe9 at byte 16 of the file"),
        (b"\xff\xfet\x00e\x00", "line 1: expected UTF-8, got 0xff at byte 0 of the file"),
        ('text,toxic\na,1\n"b,0\nc,1\n', "line 3: damaged CSV: unexpected end of data"),
        ('text,toxic\na,1\n"b"c,0\n', "line 3: damaged CSV"),
        (b"text,toxic\na,1\nb,0" + b"\0" * 9, "line 3"),
        (
            "text,toxic,target_group\n" + "".join(f"a,1,g{i}\n" for i in range(1100)),
            "line 1002: target_group: expected names of groups, got more than 1000",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    limit = csv.field_size_limit()
    with pytest.raises(ValueError, match=rf"some\.csv: .*{message}"):
        read_comments(write(tmp_path, content))
    assert csv.field_size_limit() == limit


def test_bytes_that_are_not_utf8_are_found_in_long_files(tmp_path: Path) -> None:
    lines = [b"text,toxic\n", *(b"comment %05d,1\n" % i for i in range(5000))]
    lines[4001] = b"caf\xe9,0\n"
    with pytest.raises(ValueError, match=f"line 4002: .* at byte {11 + 4000 * 16 + 3} of the file"):
        read_comments(write(tmp_path, b"".join(lines)))


def test_long_comments_and_other_arguments(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    path = write(tmp_path, f"text,toxic\n{'long ' * 100_000},1\nb,0\n")
    assert len(read_comments(path).texts[0]) == 500_000
    assert csv.field_size_limit() == limit
    for threshold in (0.0, 1.5, float("nan"), -1.0):
        with pytest.raises(ValueError, match="threshold: expected more than 0 and at most 1, got"):
            read_comments(path, threshold=threshold)
    with pytest.raises(OSError, match="absent"):
        read_comments(tmp_path / "absent.csv")
    with pytest.raises(OSError, match=tmp_path.name):
        read_comments(tmp_path)
    with pytest.raises(TypeError, match="terms: expected groups"):
        read_comments(path, terms=["x"])  # type: ignore[arg-type]


def test_load_comments_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"name: expected one of jigsaw, civil, .*, got 'mnist'"):
        load_comments("mnist", tmp_path)
    for name, file in (
        ("jigsaw", "jigsaw-toxic-comment-classification-challenge/train.csv"),
        ("civil", "jigsaw-unintended-bias-in-toxicity-classification/train.csv"),
        ("madlibs", "bias_madlibs_77k.csv"),
        ("toxigen", "toxigen_human.csv"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            load_comments(name, tmp_path)
        for part in (name, file, str(tmp_path / "text"), "https://", "data_root", "RLEDIT_DATA"):
            assert part in str(caught.value)
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text("text,toxic\nin the folder itself,1\nb,0\n")
        assert load_comments(name, tmp_path).texts[0] == "in the folder itself"
        path = tmp_path / "text" / file
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("text,toxic\nin the subfolder,1\nb,0\n")
        comments = load_comments(name, tmp_path)
        assert (comments.name, comments.texts[0]) == (name, "in the subfolder")
    monkeypatch.setenv("RLEDIT_DATA", str(tmp_path))
    assert load_comments("madlibs").texts[0] == "in the subfolder"


# --- real data ---


@pytest.mark.slow
def test_real_madlibs(shared_data: Path) -> None:
    comments = load_comments("madlibs", shared_data)
    assert len(comments) == 76_564
    assert int(comments.labels.sum()) == 76_564 // 2
    assert Counter(comments.templates) == {
        "name_adj": 72_000,
        "being_adj": 1_600,
        "you_are_adj": 1_600,
        "you_occupation": 864,
        "verb_adj": 400,
        "am_hate_adj": 100,
    }
    count = torch.stack(list(comments.identities.values())).sum(0)
    occupation, rest = hold_out_templates(comments, set(comments.templates) - {"you_occupation"})
    assert bool((count[occupation] == 0).all())
    assert bool((count[rest] == 1).all())
    sizes = {int(mask.sum()) for mask in comments.identities.values()}
    assert sizes == {(76_564 - 864) // 50}
    for mask in comments.identities.values():
        assert 2 * int(comments.labels[mask].sum()) == int(mask.sum())


@pytest.mark.slow
def test_real_comments(shared_data: Path) -> None:
    jigsaw = load_comments("jigsaw", shared_data)
    assert len(jigsaw) == 9_955
    assert 0.144 < float(jigsaw.labels.double().mean()) < 0.146
    gay = jigsaw.identities["gay"]
    assert float(jigsaw.labels[gay].double().mean()) > 0.4  # the bias that the published study found
    civil = load_comments("civil", shared_data)
    assert len(civil) == 16_100
    assert 0.69 < float(civil.labels.double().mean()) < 0.71
    assert list(civil.identities) == list(IDENTITY_TERMS)


@pytest.mark.slow
def test_real_toxigen(shared_data: Path) -> None:
    comments = load_comments("toxigen", shared_data)
    assert len(comments) == 6_514
    assert len(comments.identities) == 13
    count = torch.stack(list(comments.identities.values())).sum(0)
    assert int(count.max()) > 1  # some sentences are about two groups
    parts = split_comments(comments, [0.6, 0.2, 0.2], seed=0)
    share = float(comments.labels.double().mean())
    for part in parts:
        assert abs(float(part.labels.double().mean()) - share) < 0.01
    keys = [{normalize(text) for text in part.texts} for part in parts]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
