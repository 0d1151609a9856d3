"""Identity terms, and which comments mention them."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from .comments import fold

_TERMS = (
    *("lesbian", "gay", "bisexual", "transgender", "trans", "queer", "lgbt", "lgbtq", "homosexual"),
    *("straight", "heterosexual", "male", "female", "nonbinary", "african", "african american", "black"),
    *("white", "european", "hispanic", "latino", "latina", "latinx", "mexican", "canadian", "american"),
    *("asian", "indian", "middle eastern", "chinese", "japanese", "christian", "muslim", "jewish"),
    *("buddhist", "catholic", "protestant", "sikh", "taoist", "old", "older", "young", "younger"),
    *("teenage", "millenial", "middle aged", "elderly", "blind", "deaf", "paralyzed"),
)
# So that the word is found in real comments too.
_OTHER_SPELLINGS = {"millenial": ("millennial",), "nonbinary": ("non binary",), "paralyzed": ("paralysed",)}

IDENTITY_TERMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {term: (term, *_OTHER_SPELLINGS.get(term, ())) for term in _TERMS}
)
"""The 50 identity terms of L. Dixon, J. Li, J. Sorensen, N. Thain, L. Vasserman, "Measuring and mitigating
unintended bias in text classification", AIES 2018, one group each, in the order and spelling of their
published sentence templates. Three groups have a second spelling of the same word."""

# Nouns and plurals of the published terms; they mean what the adjective means.
_PLURAL_IN_S = (
    *("lesbian", "gay", "bisexual", "homosexual", "heterosexual", "male", "female", "black", "white"),
    *("african", "african american", "european", "hispanic", "latino", "latina", "mexican", "canadian"),
    *("american", "asian", "indian", "christian", "muslim", "buddhist", "catholic", "protestant", "sikh"),
    "taoist",
)
_FORMS: Mapping[str, tuple[str, ...]] = {
    **{term: (f"{term}s",) for term in _PLURAL_IN_S},
    "transgender": ("transgendered", "transgenders"),
    "trans": ("transsexual", "transsexuals"),
    "middle eastern": ("middle easterner", "middle easterners"),
    "jewish": ("jew", "jews"),
    "teenage": ("teenager", "teenagers"),
    "millenial": ("millenials", "millennials"),
}
_FURTHER: Mapping[str, tuple[str, ...]] = {
    "women": ("women", "woman", "girl", "girls"),
    "men": ("men", "man", "boy", "boys"),
    "immigrants": (
        *("immigrants", "immigrant", "migrants", "migrant", "refugees", "refugee"),
        *("asylum seekers", "asylum seeker"),
    ),
    "disabled": (
        *("disabled", "disability", "disabilities", "handicapped"),
        *("wheelchair user", "wheelchair users"),
    ),
    "hindu": ("hindu", "hindus"),
    "atheist": ("atheist", "atheists"),
}

DEFAULT_TERMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {**{term: (*words, *_FORMS.get(term, ())) for term, words in IDENTITY_TERMS.items()}, **_FURTHER}
)
"""What is looked for by default: the groups of :data:`IDENTITY_TERMS` with their nouns and plurals, and
groups that those lack. All seven of HateCheck are there (P. Röttger et al., ACL 2021, arXiv:2012.15606):
women, trans people, gay people, black people, disabled people, Muslims and immigrants. Slurs are not names of
a group."""

# What may stand between the words of one term: "african american", "African-American", "african_american".
_BETWEEN = re.compile(r"[\s_\-\u2010]+")
# A letter or digit; \w would count the underscore as well.
_LETTER = r"[^\W_]"


def find_identities(
    texts: Iterable[str], terms: Mapping[str, Sequence[str]] = DEFAULT_TERMS
) -> dict[str, Tensor]:
    """Which texts mention a term of each group.

    A term is found as whole words, whatever the case; white space, hyphens and underscores between its words
    are the same. Other forms, plurals among them, are other terms. Where terms overlap, the first one counts,
    of several that begin together the longest, and nothing inside it: "african american" does not mention
    "african" or "american", unless they occur once more. Words are not told apart by meaning: "a white
    wall" mentions "white".

    Args:
        texts: S comments.
        terms: group -> its terms. A term may be in several groups.

    Returns:
        group -> bool [S], in the order of ``terms``.

    Raises:
        TypeError: ``texts`` is one string, or ``terms`` has another form.
        ValueError: there is no group, a group has no name or no term, or a term has no letter or digit.
    """
    if isinstance(texts, str):
        raise TypeError("texts: expected several strings, got one")
    groups_of: dict[str, list[str]] = {}
    for group, words in _checked(terms).items():
        for word in words:
            groups_of.setdefault(_key(word), []).append(group)
    # The first alternative that fits is taken, hence the longest first.
    alternatives = "|".join(
        _BETWEEN.pattern.join(re.escape(word) for word in term.split(" "))
        for term in sorted(groups_of, key=len, reverse=True)
    )
    pattern = re.compile(f"(?<!{_LETTER})(?:{alternatives})(?!{_LETTER})")
    rows: dict[str, list[int]] = {group: [] for group in terms}
    count = 0
    for row, text in enumerate(texts):
        count += 1
        for found in set(pattern.findall(fold(text))):
            for group in groups_of[_key(found)]:
                rows[group].append(row)
    return {group: mask_of(members, count) for group, members in rows.items()}


def read_terms(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """Groups and their terms from a JSON file, for example::

        {"women": ["woman", "women", "female"], "men": ["man", "men", "male"]}

    Raises:
        ValueError: it is not UTF-8 or not JSON, not an object of lists of strings, a group occurs twice, has
            no name or no term, or a term has no letter or digit. The message starts with the path and names
            the entry.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        # RecursionError: lists in lists in lists, deeper than Python's stack.
        groups = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_without_repeats)
        return _checked(groups)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def extended(terms: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """:data:`DEFAULT_TERMS` and these; a group that is in both has the terms of both."""
    groups = dict.fromkeys([*DEFAULT_TERMS, *terms])
    both = {group: (*DEFAULT_TERMS.get(group, ()), *terms.get(group, ())) for group in groups}
    return {group: tuple(dict.fromkeys(words)) for group, words in both.items()}


def mask_of(rows: Sequence[int], count: int) -> Tensor:
    """A mask, bool [count], that is true in these rows."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.tensor(rows, dtype=torch.int64)] = True
    return mask


def _key(term: str) -> str:
    return _BETWEEN.sub(" ", fold(term)).strip()


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    groups = dict(pairs)
    if len(groups) < len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name in times if times[name] > 1)
        raise ValueError(f"terms[{twice!r}]: expected each group once, got it {times[twice]} times")
    return groups


def _checked(terms: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(terms, Mapping):
        raise TypeError(f"terms: expected groups with a list of terms each, got {type(terms).__name__}")
    if not terms:
        raise ValueError("terms: expected at least one group, got none")
    groups: dict[str, tuple[str, ...]] = {}
    for group, words in terms.items():
        if not isinstance(group, str) or not group.strip():
            raise ValueError(f"terms: expected groups with a name, got {group!r}")
        if isinstance(words, str) or not isinstance(words, Sequence):
            raise TypeError(f"terms[{group!r}]: expected a list of strings, got {type(words).__name__}")
        if not words:
            raise ValueError(f"terms[{group!r}]: expected at least one term, got none")
        for number, word in enumerate(words):
            if not isinstance(word, str):
                raise TypeError(f"terms[{group!r}][{number}]: expected a string, got {type(word).__name__}")
            if not re.search(_LETTER, _key(word)):
                raise ValueError(f"terms[{group!r}][{number}]: expected letters or digits, got {word!r}")
        groups[group] = tuple(words)
    return groups
