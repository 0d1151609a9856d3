"""Where Hugging Face's sequence classifiers keep the parts of their last block and head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Stage = Literal["head", "block", "attention"]
"""Where a network begins once what comes before is cached: behind the last block; behind the mixing of tokens
in its attention; before the block."""


@dataclass(frozen=True)
class Architecture:
    """Names of modules.

    All of these models read the first token alone behind the last block, and in the block add and normalize
    twice, as BERT does (J. Devlin et al., NAACL 2019).

    Attributes:
        layers: the list of blocks in the model.
        head: the Linear modules behind the blocks, each with the activation behind it: its name, the
            config's entry with its name (in braces), or "" for none.
        mixing: query, key and value within a block; empty where attention is of another kind, and the block
            can be edited behind it only.
        mixed, attended: the Linear behind the mixing, and the norm behind that.
        inner, output, norm: the two Linear modules of the feed-forward part, and the norm behind.
        activation: the config's entry with the name of the activation between these.
    """

    layers: str
    head: tuple[tuple[str, str], ...]
    mixing: tuple[str, ...] = ("attention.self.query", "attention.self.key", "attention.self.value")
    mixed: str = "attention.output.dense"
    attended: str = "attention.output.LayerNorm"
    inner: str = "intermediate.dense"
    output: str = "output.dense"
    norm: str = "output.LayerNorm"
    activation: str = "hidden_act"


_ROBERTA = Architecture("roberta.encoder.layer", (("classifier.dense", "tanh"), ("classifier.out_proj", "")))
_DEBERTA = Architecture(
    "deberta.encoder.layer", (("pooler.dense", "{pooler_hidden_act}"), ("classifier", "")), mixing=()
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture("bert.encoder.layer", (("bert.pooler.dense", "tanh"), ("classifier", ""))),
    "camembert": _ROBERTA,
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
    "distilbert": Architecture(
        "distilbert.transformer.layer",
        (("pre_classifier", "relu"), ("classifier", "")),
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
        "activation",
    ),
    "electra": Architecture(
        "electra.encoder.layer", (("classifier.dense", "gelu"), ("classifier.out_proj", ""))
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By model type. Of any other, the Linear that makes the logits can be edited."""


@dataclass(frozen=True)
class LastLayers:
    """Names of what can be edited, by the stage at which a network must begin for it.

    Attributes:
        model_type: Hugging Face's name of the architecture.
        head, block, attention: the modules; all empty for a model type that is not known.
    """

    model_type: str
    head: tuple[str, ...] = ()
    block: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """From the last to the first."""
        return (*self.head[::-1], *self.block[::-1], *self.attention[::-1])

    def stage(self, names: tuple[str, ...]) -> Stage:
        """Where a network must begin so that all of these can be edited."""
        if any(name in self.attention for name in names):
            return "attention"
        return "block" if any(name in self.block for name in names) else "head"


def last_layers(model_type: str, blocks: int) -> LastLayers:
    """Of a model with so many blocks."""
    known = ARCHITECTURES.get(model_type)
    if known is None:
        return LastLayers(model_type)
    block = f"{known.layers}.{blocks - 1}"
    return LastLayers(
        model_type,
        tuple(name for name, _ in known.head),
        tuple(f"{block}.{part}" for part in (known.mixed, known.inner, known.output)),
        tuple(f"{block}.{part}" for part in known.mixing),
    )


def last_layers_of(folder: Path) -> LastLayers:
    """Of the model in a folder, from its config.json alone: neither weights nor transformers are needed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no config of a model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: expected the folder of a classifier, it has no config.json")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model_type = str(config["model_type"])
        blocks = next((config[key] for key in ("num_hidden_layers", "n_layers") if key in config), 0)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is no config of a model: {error!r}") from error
    if model_type in ARCHITECTURES and (not isinstance(blocks, int) or blocks < 1):
        raise ValueError(f"{path}: expected a number of layers of at least 1, got {blocks!r}")
    return last_layers(model_type, int(blocks))
