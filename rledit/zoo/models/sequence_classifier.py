"""Fine-tuned classifiers of texts from Hugging Face, cut before their head or within their last block."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...storage.files import Json
from ...storage.fingerprint import fingerprint
from .architectures import ARCHITECTURES, LastLayers, Stage, last_layers
from .bag_of_words import check_texts
from .classifier_tail import ClassifierAttention, ClassifierBlock, ClassifierHead, LastLinear, pack
from .encoder_files import positions, read_classifier, tokenizer_hash
from .tokens import Progress, token_batches

TOLERANCE = 1e-3
"""Of the spread of the logits: how far a network that was cut may be from the whole."""


class SequenceClassifier:
    """Texts to logits. Make one with :meth:`from_folder`.

    :meth:`tail` of :meth:`before` is :meth:`logits`, and its modules have the names that they have in the
    model: an edit of the tail is one of ``AutoModelForSequenceClassification.from_pretrained(folder)``.

    Attributes:
        max_tokens: texts are cut off behind so many tokens, special ones included.
        labels: C names.
        multi_label: whether several labels may hold together.
        layers: what can be edited.
    """

    def __init__(self, model: Any, tokenizer: Any, identity: str, max_tokens: int) -> None:
        """``model`` and ``tokenizer``: Hugging Face's; ``identity``: a hash of the tokenizer's files."""
        self._model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._identity = identity
        self.max_tokens = max_tokens
        config = model.config
        self.labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        self.multi_label = config.problem_type == "multi_label_classification"
        known = last_layers(config.model_type, config.num_hidden_layers)
        if not known.head:
            known = LastLayers(config.model_type, (self._last_linear(),))
        elif known.attention and _position(config) != "absolute":
            known = LastLayers(known.model_type, known.head, known.block)
        self.layers: LastLayers = known

    @classmethod
    def from_folder(cls, path: str | os.PathLike[str], *, max_tokens: int = 64) -> SequenceClassifier:
        """Read a classifier that ``save_pretrained`` or a download has left in a folder; nothing is fetched.

        Only safetensors are read and no code of the folder is run. Half precision becomes float32.

        Args:
            path: a folder with ``config.json``, ``model.safetensors`` and the tokenizer's files.
            max_tokens: see the attribute; less where the model has fewer positions.

        Raises:
            ModuleNotFoundError: the package transformers is not installed.
            FileNotFoundError: there is no such folder, or a file is missing in it.
            ValueError: the files are damaged, do not fit together, are no fine-tuned classifier, or one of
                whose parts nothing can be edited.
        """
        folder = Path(path).expanduser().absolute()
        model, tokenizer = read_classifier(folder)
        try:
            limit = min(max_tokens, positions(model.base_model, tokenizer))
            return cls(model.float(), tokenizer, tokenizer_hash(folder), limit)
        except NotImplementedError as error:
            raise ValueError(f"{folder}: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """Of weights and tokenizer: ``"sha256:"`` and 64 hexadecimal digits."""
        weights = fingerprint(self._model.state_dict())
        return f"sha256:{hashlib.sha256(f'{weights} {self._identity}'.encode()).hexdigest()}"

    @property
    def settings(self) -> dict[str, Json]:
        """All that its outputs depend on but the texts; a part of a cache's key."""
        return {"classifier": self.fingerprint, "max_tokens": self.max_tokens}

    @torch.no_grad()
    def logits(self, texts: Iterable[str], *, batch_size: int = 32) -> Tensor:
        """Of the whole model, float32 [S, C]; zeros for texts that have no token."""
        checked = list(check_texts("texts", texts))
        out = torch.zeros(len(checked), len(self.labels))
        for rows, batch in self._batches(checked, batch_size, None):
            out[rows] = self._model(**batch).logits
        return out

    @torch.no_grad()
    def before(
        self, texts: Iterable[str], stage: Stage, *, batch_size: int = 32, progress: Progress | None = None
    ) -> Tensor:
        """The inputs of :meth:`tail`.

        Args:
            texts: S strings.
            stage: where the tail begins.
            batch_size: texts of similar length that run together.
            progress: called after every batch with the texts done so far and the texts in all.

        Returns:
            float32 on the CPU, in the order of the texts; D channels. "head": [S, D]; "block": [S, 2, D];
            "attention": [S, T, D + 1] with T = :attr:`max_tokens`. See :mod:`.classifier_tail`.

        Raises:
            TypeError: a text is not a string.
            ValueError: the model cannot be cut there.
        """
        self._check(stage)
        checked = list(check_texts("texts", texts))
        out: Tensor | None = None
        for rows, batch in self._batches(checked, batch_size, progress):
            with self._watched(stage) as seen:
                self._model(**batch)
            part = self._packed(stage, seen, batch["attention_mask"])
            if out is None:
                out = torch.zeros(len(checked), *part.shape[1:])
            out[rows] = part
        width = int(self._model.config.hidden_size)
        empty = {"head": (width,), "block": (2, width), "attention": (self.max_tokens, width + 1)}
        return torch.zeros(len(checked), *empty[stage]) if out is None else out

    def tail(self, stage: Stage) -> nn.Module:
        """The rest of the model, in eval mode, with its very modules: copy what is to be edited.

        Raises:
            ValueError: the model cannot be cut there.
        """
        self._check(stage)
        known = ARCHITECTURES.get(self.layers.model_type)
        if known is None:
            return LastLinear(self._model, self.layers.head[0]).eval()
        kinds = {"head": ClassifierHead, "block": ClassifierBlock, "attention": ClassifierAttention}
        try:
            tail: nn.Module = kinds[stage](self._model, known)
        except (AttributeError, NotImplementedError) as error:
            raise ValueError(f"model type {self.layers.model_type!r}: cannot be cut: {error}") from error
        return tail.eval()

    def check_cut(self, stage: Stage, texts: list[str]) -> None:
        """Whether the tail gives what the whole model gives.

        Raises:
            ValueError: it does not.
        """
        whole, cut = self.logits(texts), self.tail(stage)(self.before(texts, stage))
        allowed = TOLERANCE * max(float(whole.std()), 1e-3 * float(whole.abs().max()), 1e-6)
        off = float((whole - cut).abs().max())
        if not off <= allowed:
            raise ValueError(
                f"model type {self.layers.model_type!r}: cut at the {stage}, its logits differ by {off:.3g} "
                f"from those of the whole model; layers of this one are not where they are in others of the "
                f"type, so only an edit from memory is left (rledit.debias)"
            )

    def _check(self, stage: Stage) -> None:
        offered = {"head": True, "block": self.layers.block, "attention": self.layers.attention}
        if not offered[stage]:
            raise ValueError(
                f"model type {self.layers.model_type!r}: cannot be cut at its {stage}; what can be edited is "
                f"{', '.join(self.layers.names)}"
            )

    def _last_linear(self) -> str:
        """The name of the Linear whose output is the logits, one row for each text."""
        seen: list[tuple[str, Any]] = []
        handles = [
            module.register_forward_hook(lambda _, __, out, name=name: seen.append((name, out)))
            for name, module in self._model.named_modules()
            if isinstance(module, nn.Linear)
        ]
        try:
            with torch.no_grad():
                _, batch = next(self._batches(["a", "some text"], 2, None))
                logits = self._model(**batch).logits
        finally:
            for handle in handles:
                handle.remove()
        for name, output in reversed(seen):
            if isinstance(output, Tensor) and output.shape == logits.shape and torch.equal(output, logits):
                return str(name)
        raise NotImplementedError(
            f"model type {self._model.config.model_type!r}: no Linear makes its logits from one row of "
            f"features for each text; expected such a one, or one of {', '.join(ARCHITECTURES)}"
        )

    @contextmanager
    def _watched(self, stage: Stage) -> Iterator[dict[str, Tensor]]:
        """What goes through the places that a stage needs, while the model runs inside."""
        seen: dict[str, Tensor] = {}

        def entering(name: str) -> Any:
            def hook(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                seen[name] = (*args, *keywords.values())[0]

            return hook

        def leaving(_: nn.Module, __: Any, output: Any) -> None:
            seen["after"] = output if isinstance(output, Tensor) else output[0]

        known = ARCHITECTURES.get(self.layers.model_type)
        handles = []
        if known is None:
            last = self._model.get_submodule(self.layers.head[0])
            handles.append(last.register_forward_pre_hook(entering("after"), with_kwargs=True))
        else:
            block = self._model.get_submodule(known.layers)[-1]
            handles.append(block.register_forward_hook(leaving))
            handles.append(block.register_forward_pre_hook(entering("before"), with_kwargs=True))
            mixed = block.get_submodule(known.mixed)
            handles.append(mixed.register_forward_pre_hook(entering("mixed"), with_kwargs=True))
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()

    def _packed(self, stage: Stage, seen: dict[str, Tensor], mask: Tensor) -> Tensor:
        if stage == "attention":
            return pack(seen["before"], mask, self.max_tokens)
        if stage == "block":
            return torch.stack([seen["mixed"][:, 0], seen["before"][:, 0]], 1)
        return seen["after"][:, 0] if seen["after"].dim() == 3 else seen["after"]

    def _batches(
        self, texts: list[str], size: int, progress: Progress | None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        return token_batches(self._model, self._tokenizer, texts, self.max_tokens, size, progress)


def _position(config: Any) -> str:
    return str(getattr(config, "position_embedding_type", None) or "absolute")
