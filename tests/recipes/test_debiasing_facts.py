"""What a debiasing run knows before it begins, and which words its edit acts on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rledit.experiments.console import PlainConsole
from rledit.recipes.debiasing import DebiasConfig
from rledit.recipes.debiasing.data import DebiasData, load_sets
from rledit.recipes.debiasing.facts import auc_interval, facts, lines, tell, worth
from rledit.recipes.debiasing.words import MOST_WORDS, changed_words, most_changed
from rledit.zoo.models.bag_of_words import Vocabulary

CONFIG = DebiasConfig(vocabulary=400)


@pytest.fixture(scope="module")
def data() -> DebiasData:
    return DebiasData(load_sets(CONFIG, None), CONFIG.seed)


class Heard:
    """A console that keeps lines with their style."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, Any]] = []

    def print(self, *objects: Any, **style: Any) -> None:
        self.lines.append((" ".join(map(str, objects)), style.get("style")))


class Weights(nn.Module):
    """Log odds of a bag of words: a number per word."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, bags: Tensor) -> Tensor:
        margins = bags @ self.weights
        return torch.stack([torch.zeros_like(margins), margins], dim=-1)


class OnWords:
    """A classifier with the words of a vocabulary; without one of its own where it hides it."""

    def __init__(self, words: Sequence[str], weights: Sequence[float], *, hidden: bool = False) -> None:
        self._words = Vocabulary(tuple(words))
        self.model: nn.Module = Weights(weights)
        if not hidden:
            self.vocabulary = self._words

    def encode(self, texts: Sequence[str]) -> Tensor:
        return self._words.encode(texts)

    def save(self, path: Any, seconds: float) -> None:
        raise NotImplementedError


def test_the_interval_of_chance_is_mann_and_whitneys() -> None:
    """Without any difference the variance of the area is (n + m + 1) / 12nm, exactly."""
    low, high = auc_interval(0.5, 58, 51)
    assert (high - low) / (2 * 1.96) == pytest.approx((110 / (12 * 58 * 51)) ** 0.5)
    assert auc_interval(1.0, 10, 10) == (1.0, 1.0)
    assert auc_interval(0.5, 1, 1) == (0.0, 1.0)


LABELS = torch.tensor([0] * 60 + [1] * 40)


@pytest.mark.parametrize(
    ("margins", "useless", "reason"),
    [
        (2.0 * LABELS - 1, False, ""),
        (-torch.ones(100), True, "always gives the more frequent label"),
        (torch.ones(100), True, "always gives the more frequent label"),
        (1 - 2.0 * LABELS, True, "no better than chance"),
        (torch.where(torch.arange(100) == 3, torch.nan, 2.0 * LABELS - 1), True, "no number for 1 of 100"),
        # ranks well, and calls nothing toxic
        (2.0 * LABELS - 5, True, "always gives the more frequent label"),
    ],
)
def test_what_a_classifier_is_worth(margins: Tensor, useless: bool, reason: str) -> None:
    found: Any = worth(margins.float(), LABELS)
    assert found["majority"] == 0.6
    assert found["useless"] is useless
    assert any(reason in said for said in found["reasons"]) or not reason


def test_chance_is_found_out() -> None:
    torch.manual_seed(1)
    found: Any = worth(torch.randn(100), LABELS)
    low, high = found["auc_interval"]
    assert low < 0.5 < high
    assert found["useless"]


def test_no_comments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected comments to judge the classifier by"):
        worth(torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def test_comments_of_one_label_have_no_auc() -> None:
    found: Any = worth(torch.ones(5), torch.ones(5, dtype=torch.int64))
    assert found["auc"] is None
    assert found["accuracy"] == found["majority"] == 1.0
    assert found["useless"]


def test_sizes_rates_and_unknown_words(data: DebiasData) -> None:
    known: Any = facts(OnWords(["xyz"], [0.0]), data)
    test = data.splits["test"]
    assert known["sets"]["test comments"]["size"] == len(test.utility)
    assert known["sets"]["training comments"]["base_rate"] == pytest.approx(
        float(data.train.labels.double().mean())
    )
    assert known["sets"]["bias, test"]["unknown_words"] == 1.0
    name = data.identities[0]
    labels = test.bias.labels[test.bias.identities[name]]
    assert known["sets"]["bias, test"]["groups"][name] == torch.bincount(labels, minlength=2).tolist()
    assert "unseen templates" in known["sets"]
    assert known["classifier"]["useless"]
    hidden: Any = facts(OnWords(["xyz"], [0.0], hidden=True), data)
    assert hidden["sets"]["bias, test"]["unknown_words"] is None


def test_a_useless_classifier_is_told_in_bold(data: DebiasData, capsys: pytest.CaptureFixture[str]) -> None:
    known = facts(OnWords(["xyz"], [0.0]), data)
    heard = Heard()
    tell(known, heard)
    bold = [line for line, style in heard.lines if style == "bold red"]
    assert len(bold) == 1
    assert bold[0].startswith("Warning: this classifier is of no use")
    text = "\n".join(line for line, _ in heard.lines)
    for expected in (
        "Comments: training",
        "Bias set: reward",
        "unseen templates",
        "the smallest",
        "100.0% of",
    ):
        assert expected in text
    tell(known, PlainConsole())
    assert "of no use" in capsys.readouterr().err
    from rich.console import Console

    shown = io.StringIO()
    tell(known, Console(file=shown, force_terminal=True, width=60))
    assert "\x1b[1;31mWarning" in shown.getvalue()


def test_a_good_classifier_is_not_warned_of(data: DebiasData) -> None:
    known: Any = facts(OnWords(["xyz"], [0.0]), data)
    known["classifier"] = worth(2.0 * LABELS - 1, LABELS)
    heard = Heard()
    tell(known, heard)
    assert not [line for line, style in heard.lines if style]


def test_few_groups_are_all_named() -> None:
    known = {"size": 3, "base_rate": None, "groups": {"[red]x": [1, 2]}, "unknown_words": None}
    assert "all: [red]x (1 harmless, 2 toxic)" in "\n".join(lines({"bias, reward": known}))
    assert "Groups: none" in "\n".join(lines({"bias, reward": {**known, "groups": {}}}))


def test_words_that_an_edit_acts_on(data: DebiasData) -> None:
    texts = [*data.splits["validation"].both.texts, *data.splits["test"].both.texts]
    frequent = "gay"
    words = [frequent, "are", "nowhere"]
    classifier = OnWords(words, [3.0, 1.0, 2.0])
    found: Any = changed_words(classifier, Weights([-1.0, 1.0, 9.0]), data)["words"]
    assert [row["word"] for row in found] == [frequent]  # one is unchanged, one occurs nowhere
    assert found[0]["count"] == sum(frequent in text.lower().split() for text in texts)
    assert (found[0]["before"], found[0]["after"], found[0]["change"]) == (3.0, -1.0, -4.0)


def test_words_of_a_classifier_without_a_vocabulary(data: DebiasData) -> None:
    words = ["the", data.identities[0]]
    classifier = OnWords(words, [3.0, 1.0], hidden=True)
    found: Any = changed_words(classifier, Weights([3.0, 1.5]), data)["words"]
    assert [row["word"] for row in found] == words[1:]


def test_a_classifier_that_reads_no_new_texts(data: DebiasData) -> None:
    classifier = OnWords(["gay"], [1.0], hidden=True)
    known: dict[str, Tensor] = {}
    classifier.encode = lambda texts: known[texts[0]]  # type: ignore[method-assign]
    found: Any = changed_words(classifier, classifier.model, data)
    assert found["words"] == []
    assert "texts of its run alone" in found["words_left_out"]


def test_both_signs_are_kept() -> None:
    def rows(changes: Sequence[float]) -> list[dict[str, Any]]:
        return [{"word": str(i), "change": change} for i, change in enumerate(changes)]

    half = MOST_WORDS // 2
    both = most_changed(rows([*range(1, 101), *(-i for i in range(1, 101))]))
    assert [row["change"] for row in both] == [*range(100, 100 - half, -1), *range(-100 + half - 1, -101, -1)]
    few = most_changed(rows([1.0, *(-i for i in range(1, 101))]))
    assert len(few) == MOST_WORDS
    assert few[0]["change"] == 1.0
    assert few[-1]["change"] == -100
    assert len(most_changed(rows(range(1, 101)))) == MOST_WORDS
    assert most_changed([]) == []
