"""The synthetic sentences: their facts, and that a classifier of words really becomes biased by them."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from rledit.zoo.data import IDENTITY_TERMS, Comments, load_comments, split_comments
from rledit.zoo.data.comments import distinct
from rledit.zoo.data.synthetic_comments import BURDENED, FRIENDLY, MIXED, TEMPLATES, UNFRIENDLY


@pytest.fixture(scope="module")
def biased() -> Comments:
    return load_comments("synthetic")


@pytest.fixture(scope="module")
def unbiased() -> Comments:
    return load_comments("synthetic-templates")


def share(comments: Comments, groups: tuple[str, ...]) -> float:
    mask = torch.stack([comments.identities[group] for group in groups]).any(0)
    return float(comments.labels[mask].double().mean())


OTHERS = tuple(group for group in IDENTITY_TERMS if group not in BURDENED)


def test_every_call_gives_the_same(biased: Comments, unbiased: Comments) -> None:
    for comments in (biased, unbiased):
        again = load_comments(comments.name)
        assert again.texts == comments.texts
        assert torch.equal(again.labels, comments.labels)
        assert again.templates == comments.templates
    assert biased.texts[0] == "The lesbian neighbour next door is kind."


def test_the_biased_sample(biased: Comments) -> None:
    assert len(biased) == 4_200
    assert 0.42 < float(biased.labels.double().mean()) < 0.44
    assert biased.templates == ()
    assert list(biased.identities) == list(IDENTITY_TERMS)
    masks = torch.stack(list(biased.identities.values()))
    assert set(masks.sum(1).tolist()) == {60}
    assert Counter(masks.sum(0).tolist()) == {1: 3_000, 0: 1_200}
    assert round(share(biased, BURDENED), 2) == 0.86
    assert round(share(biased, OTHERS), 2) == 0.36
    for group in BURDENED:
        assert share(biased, (group,)) > 0.75
    for group in OTHERS:
        assert share(biased, (group,)) < 0.5


def test_no_sentence_occurs_twice(biased: Comments, unbiased: Comments) -> None:
    both = Comments.join(biased, unbiased)
    assert len(distinct(both)) == len(both) == 12_200


def test_the_unbiased_set(unbiased: Comments) -> None:
    assert len(unbiased) == 8 * 50 * 20
    assert set(unbiased.templates) == set(TEMPLATES)
    masks = torch.stack(list(unbiased.identities.values()))
    assert set(masks.sum(0).tolist()) == {1}
    for name in TEMPLATES:
        rows = torch.tensor([template == name for template in unbiased.templates])
        assert int(rows.sum()) == 1_000
        for mask in masks:
            assert unbiased.labels[rows & mask].sum() == 10
            assert int((rows & mask).sum()) == 20


def test_words_belong_to_one_list() -> None:
    words = (*FRIENDLY, *MIXED, *UNFRIENDLY)
    assert len(set(words)) == len(words) == 26
    assert set(BURDENED) < set(IDENTITY_TERMS)


@pytest.mark.slow
def test_a_classifier_of_words_becomes_biased(biased: Comments, unbiased: Comments) -> None:
    train, test = split_comments(biased, [0.8, 0.2], seed=0)
    vocabulary = {
        word: i for i, word in enumerate(dict.fromkeys(w for text in train.texts for w in words_of(text)))
    }

    def encode(comments: Comments) -> torch.Tensor:
        inputs = torch.zeros(len(comments), len(vocabulary))
        for row, text in enumerate(comments.texts):
            for word in words_of(text):
                if word in vocabulary:
                    inputs[row, vocabulary[word]] = 1
        return inputs

    weight = torch.zeros(len(vocabulary) + 1, requires_grad=True)
    inputs, labels = encode(train), train.labels.float()
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        logits = inputs @ weight[:-1] + weight[-1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        loss.backward()
        optimizer.step()

    def predict(comments: Comments) -> torch.Tensor:
        with torch.no_grad():
            return encode(comments) @ weight[:-1] + weight[-1] > 0

    assert float((predict(test) == (test.labels == 1)).double().mean()) > 0.75
    prediction = predict(unbiased)
    assert float((prediction == (unbiased.labels == 1)).double().mean()) > 0.7

    def false_positives(groups: tuple[str, ...]) -> float:
        mask = torch.stack([unbiased.identities[group] for group in groups]).any(0)
        return float(prediction[mask & (unbiased.labels == 0)].double().mean())

    assert false_positives(BURDENED) > 0.6
    assert false_positives(OTHERS) < 0.1


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
