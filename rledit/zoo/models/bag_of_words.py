"""Texts as one-hot bags of words: which of a fixed list of words occur."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...storage.files import write_json

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in order: runs of letters and digits, apostrophes inside them included.

    Case, compatibility forms (full-width, mathematical bold) and the kind of apostrophe do not matter:
    ``"DON\u2019T stop_it!"`` gives ``["don't", "stop", "it"]``.
    """
    if text.isascii():
        return _WORD.findall(text.lower())
    # Twice: compatibility forms can hide capital letters, and casefold() can take composed letters apart.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall(folded.replace("\u2019", "'"))


@dataclass(frozen=True)
class Vocabulary:
    """The words that a bag of words knows; column v of an encoded text stands for ``words[v]``.

    Attributes:
        words: V different words as :func:`words_of` gives them.

    Raises:
        TypeError: a word is not text.
        ValueError: no word, an empty one, or one twice.
    """

    words: tuple[str, ...]
    _columns: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for word in check_texts("words", self.words):
            if not word:
                raise ValueError("words: expected words, got an empty one")
        columns = {word: column for column, word in enumerate(self.words)}
        if not columns:
            raise ValueError("words: expected at least one, got none")
        if len(columns) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"words: expected each once, got {twice!r} twice")
        object.__setattr__(self, "_columns", columns)

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def fit(cls, texts: Iterable[str], size: int, always: Iterable[str] = ()) -> Vocabulary:
        """The words that occur in most texts, the most frequent first, ties in alphabetical order.

        Args:
            texts: what the model will be trained on.
            size: V, words at most; fewer if the texts have fewer.
            always: terms whose words must be among them, however rare, such as the identity terms that a
                bias is measured with. A term of several words contributes each.

        Raises:
            TypeError: a text or term is not a string.
            ValueError: ``size`` is below 1 or below the number of words in ``always``, a term has no word,
                or there is no word at all.
        """
        if size < 1:
            raise ValueError(f"size: expected at least 1, got {size}")
        required: set[str] = set()
        for term in check_texts("always", always):
            words = words_of(term)
            if not words:
                raise ValueError(f"always: expected terms with a letter or digit, got {term!r}")
            required.update(words)
        if len(required) > size:
            raise ValueError(f"size: expected at least {len(required)}, the words in always; got {size}")
        texts_with: Counter[str] = Counter()
        for text in check_texts("texts", texts):
            texts_with.update(set(words_of(text)))
        others = sorted(texts_with.keys() - required, key=lambda word: (-texts_with[word], word))
        chosen = required.union(others[: size - len(required)])
        if not chosen:
            raise ValueError("texts: expected at least one word, got none")
        return cls(tuple(sorted(chosen, key=lambda word: (-texts_with[word], word))))

    def encode(self, texts: Iterable[str]) -> Tensor:
        """1 where the word occurs in the text, however often, else 0.

        A text without a known word gives a row of zeros; :meth:`unknown` counts them.

        Returns:
            float32 [S, V] on the CPU: 20 MB for 1,000 texts and 5,000 words.

        Raises:
            TypeError: a text is not a string.
        """
        rows: list[int] = []
        columns: list[int] = []
        checked = check_texts("texts", texts)
        for row, text in enumerate(checked):
            known = {self._columns[word] for word in words_of(text) if word in self._columns}
            columns.extend(known)
            rows.extend([row] * len(known))
        encoded = torch.zeros(len(checked), len(self.words))
        encoded[torch.tensor(rows, dtype=torch.int64), torch.tensor(columns, dtype=torch.int64)] = 1.0
        return encoded

    def unknown(self, texts: Iterable[str]) -> int:
        """How many of the texts have no known word: a classifier sees the same (nothing) in all of them.

        Raises:
            TypeError: a text is not a string.
        """
        return sum(
            not any(word in self._columns for word in words_of(text)) for text in check_texts("texts", texts)
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the words in order as a JSON list, atomically.

        Raises:
            WriteError: (an OSError) see :func:`rledit.storage.files.write_bytes`.
        """
        write_json(path, list(self.words))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or something else.
        """
        name = os.fspath(path)
        try:
            with open(name, encoding="utf-8") as file:
                words = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: expected a JSON list of words: {error}") from error
        if not isinstance(words, list):
            raise ValueError(f"{name}: expected a JSON list of words, got {type(words).__name__}")
        try:
            return cls(tuple(words))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error


def check_texts(argument: str, texts: Iterable[str]) -> Sequence[str]:
    """The texts as a sequence.

    Raises:
        TypeError: one of them is not a string (an empty cell of a table is often NaN), or ``texts`` is a
            single string, which would be taken for its letters.
    """
    if isinstance(texts, str):
        raise TypeError(f"{argument}: expected several texts, got one string; put it into a list")
    checked = list(texts)
    for row, text in enumerate(checked):
        if not isinstance(text, str):
            raise TypeError(f"{argument}: expected strings, got {type(text).__name__} in row {row}")
    return checked
