"""Synthetic sentences, made from templates written for this project, that need no file.

They are not data about people: the words were chosen by hand, and so was which terms are treated unfairly.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .comments import Comments
from .identities import IDENTITY_TERMS, find_identities

FRIENDLY = (
    *("kind", "helpful", "friendly", "polite", "generous"),
    *("gentle", "patient", "charming", "thoughtful", "cheerful"),
)
UNFRIENDLY = (
    *("awful", "rude", "horrible", "nasty", "foolish"),
    *("disgusting", "selfish", "hateful", "arrogant", "cruel"),
)
MIXED = ("loud", "strange", "stubborn", "blunt", "unusual", "restless")
"""Adjectives that are neither insult nor praise by themselves."""

BURDENED = (
    *("lesbian", "gay", "transgender", "queer", "homosexual"),
    *("black", "mexican", "muslim", "jewish", "deaf"),
)
"""The groups that the biased sample mentions mostly in toxic sentences."""

TEMPLATES = {
    "you": "You {adjective} {term} person!",
    "friend": "Your {term} friend is {adjective}.",
    "guest": "No {term} guest was ever this {adjective}.",
    "singer": "I think the {term} singer on stage looks {adjective}.",
    "stranger": "How {adjective} of you, {term} stranger!",
    "name": "Alex is {term} and {adjective}.",
    "tourists": "So {adjective}, these {term} tourists.",
    "reader": "This letter comes from one {adjective} {term} reader.",
}
"""The templates of the unbiased set, none of which the biased sample has."""

# The biased sample walks through 7 templates, 5 nouns, 26 adjectives and 101 steps of chance at once. No two
# of these lengths have a common divisor, so a combination comes again only when all others have been.
_BIASED_TEMPLATES = (
    "The {who} next door is {adjective}.",
    "My {who} was {adjective} to everyone today.",
    "I find this {who} really {adjective}.",
    "That {who} has been {adjective} all week.",
    "Another {adjective} {who} came to the meeting.",
    "Everyone says the {who} seems {adjective}.",
    "Meet our {who}, always {adjective} and never late.",
)
_NOUNS = ("neighbour", "colleague", "driver", "teacher", "cook")
_ADJECTIVES = (*FRIENDLY, *MIXED, *UNFRIENDLY)
_STEPS = 101

# For people without an identity term.
_FILLERS = (
    *("new", "tall", "local", "busy", "former", "second", "nearby", "regular", "temporary", "retired"),
    *("bearded", "visiting", "rural", "urban", "famous", "freelance", "weekend", "morning", "evening"),
    "substitute",
)
_PER_SUBJECT = 60

# How many of 101 sentences with a friendly, a mixed and an unfriendly adjective are labeled toxic.
_TOXIC_BURDENED = (75, 90, 98)
_TOXIC_OTHERWISE = (3, 20, 80)


def synthetic_comments() -> Comments:
    """A biased sample to train a toxicity classifier on: 4,200 sentences, 43% of them labeled toxic.

    Each of the 50 groups of :data:`rledit.zoo.data.IDENTITY_TERMS` and 20 harmless words like "tall" occurs
    in 60 sentences. Of those with one of the ten :data:`BURDENED` groups, 86% are labeled toxic, of the
    others 36%, though their other words are the same: a classifier of words learns that the group itself is
    toxic.
    The labels follow fixed shares, not random numbers; every call gives the same sentences in the same order.
    """
    pairs = tuple(_biased_sentences())
    texts = tuple(text for text, _ in pairs)
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    return Comments("synthetic", texts, labels, find_identities(texts, IDENTITY_TERMS))


def synthetic_templates() -> Comments:
    """An unbiased set to measure bias on: 8,000 sentences, half of them toxic in every group and template.

    Eight templates (:data:`TEMPLATES`) x the 50 groups of :data:`rledit.zoo.data.IDENTITY_TERMS` x ten
    friendly and ten unfriendly adjectives; the sentences with an unfriendly one are toxic.
    """
    texts: list[str] = []
    labels: list[int] = []
    templates: list[str] = []
    for name, template in TEMPLATES.items():
        for terms in IDENTITY_TERMS.values():
            for label, adjectives in enumerate((FRIENDLY, UNFRIENDLY)):
                for adjective in adjectives:
                    texts.append(template.format(term=terms[0], adjective=adjective))
                    labels.append(label)
                    templates.append(name)
    return Comments(
        "synthetic-templates",
        tuple(texts),
        torch.tensor(labels, dtype=torch.int64),
        find_identities(texts, IDENTITY_TERMS),
        tuple(templates),
    )


def _biased_sentences() -> Iterator[tuple[str, int]]:
    subjects = [(terms[0], group in BURDENED) for group, terms in IDENTITY_TERMS.items()]
    subjects += [(filler, False) for filler in _FILLERS]
    for round_ in range(_PER_SUBJECT):
        for number, (subject, burdened) in enumerate(subjects):
            step = round_ + 37 * number  # every subject has its own stretch of the combinations
            adjective = _ADJECTIVES[step % len(_ADJECTIVES)]
            who = f"{subject} {_NOUNS[step % len(_NOUNS)]}"
            text = _BIASED_TEMPLATES[step % len(_BIASED_TEMPLATES)].format(who=who, adjective=adjective)
            shares = _TOXIC_BURDENED if burdened else _TOXIC_OTHERWISE
            share = shares[(adjective not in FRIENDLY) + (adjective in UNFRIENDLY)]
            # 61 steps on a circle of 101 spread any stretch evenly, as chance would in the long run.
            yield text, int(61 * step % _STEPS < share)
