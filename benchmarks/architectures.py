"""In what way the sequence classifiers of Hugging Face transformers are scored, and how fast.

    python -m benchmarks.architectures                        # the first 20 architectures of the auto class
    python -m benchmarks.architectures --kinds bert roberta   # some

Tiny random models: two layers of width 64, texts of 32 tokens, a third of them padded to half. Targets are
the head and the last Linear of the last layer, edited by shifts of rank 4. Beside each rate stands that of
running the whole model for every candidate, the only way that any model allows.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

import rledit
from rledit.ops import backend
from rledit.scoring.scorer import Scorer
from rledit.scoring.ways import WholeWay

from .record import write

LENGTH = 32
SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "hidden_channels"), 64
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "num_layers"), 2
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "decoder_attention_heads",
         "num_heads", "num_key_value_heads"), 4,
    ),
    **dict.fromkeys(
        ("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "hidden_dim", "ffn_dim", "dff",
         "n_inner"), 128,
    ),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts"), 4),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"), 16),
    "vocab_size": 500, "num_labels": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "moe_intermediate_size": 32, "num_experts_per_tok": 2, "num_hash_buckets": 128, "num_hash_functions": 2,
    "local_transformer_stride": 8, "downsampling_rate": 4, "attention_type": "original_full",
    "initializer_range": 0.2,
}  # fmt: skip
ROPE = {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}}
OWN: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"layer_types": ["full_attention"] * 2, "rope_parameters": ROPE},
}
"""What else a configuration needs."""


def main(
    kinds: tuple[str, ...] = (), texts: int = 500, candidates: int = 256, whole: int = 4, turns: int = 5
) -> None:
    """Run the table.

    Args:
        kinds: model types; by default the first 20 that the auto class for sequence classification names.
        texts: samples.
        candidates: of each call that is timed.
        whole: the same for whole models.
        turns: calls of both, in turn; medians are told.
    """
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as known,
    )

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    table = Table(title="Sequence classifiers of Hugging Face, head and last layer")
    for column in ("model type", "target", "way"):
        table.add_column(column)
    for column in ("candidates/s", "whole", "ratio"):
        table.add_column(column, justify="right")
    rows = []
    for kind in track(kinds or list(known)[:20], "models", console=Console(stderr=True)):
        model = _build(transformers, kind)
        for target in _targets(model):
            row = {"kind": kind, **_measure(model, target, texts, candidates, whole, turns)}
            rows.append(row)
            rate, slow = row["rate"], row["whole_rate"]
            table.add_row(kind, target, row["way"], f"{rate:,.1f}", f"{slow:,.1f}", f"{rate / slow:,.0f}")
    command = "python -m benchmarks.architectures" + (f" --kinds {' '.join(kinds)}" if kinds else "")
    tails = sum(row["way"] == "tail" for row in rows[::2])
    slow = sum(row["way"] == "whole" for row in rows)
    note = (
        f"Random models of two layers of width 64, {texts} texts of {LENGTH} tokens, shifts of rank 4, one "
        f"thread; medians of {turns} calls. Transformers {transformers.__version__}. Of {len(rows) // 2} "
        f"heads {tails} are tails; of all {len(rows)} targets {slow} run whole."
    )
    write("architectures", command, table, {"rows": rows}, note)


def _build(transformers: Any, kind: str) -> nn.Module:
    """A random classifier of a kind."""
    default = transformers.AutoConfig.for_model(kind)
    sizes = {name: value for name, value in SIZES.items() if hasattr(default, name)}
    torch.manual_seed(0)
    config = type(default)(**{**sizes, **OWN.get(kind, {})})
    model: nn.Module = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    return model


def _targets(model: nn.Module) -> tuple[str, str]:
    """The Linear that makes the logits, and the last one of the last layer that is not part of a head."""
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    within = [name for name in linears if ".1." in name and not name.startswith("classifi")]
    return linears[-1], (within or linears)[-1]


def _samples(texts: int) -> rledit.Samples:
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 500, (texts, LENGTH), generator=random)
    mask = torch.ones_like(ids)
    mask[::3, LENGTH // 2 :] = 0
    ids = ids.masked_fill(mask == 0, 0)
    ids[torch.arange(texts), mask.sum(1) - 1] = 2  # some architectures read where a text ends
    labels = torch.arange(texts) % 3
    return rledit.Samples({"input_ids": ids, "attention_mask": mask}, labels, rledit.forget_groups(labels, 1))


def _measure(
    model: nn.Module, target: str, texts: int, candidates: int, whole: int, turns: int
) -> dict[str, Any]:
    samples = _samples(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = rledit.Task(model, [target], samples, rledit.Unlearning())
        scorer = task.scorer()
    editable, native = task.editable, backend("native")
    slow = WholeWay(
        editable.model, editable.targets, editable.inputs(samples), samples.labels, samples.masks, native,
        editable.classes,
    )  # fmt: skip
    as_whole = Scorer(editable, samples, task.objective, evaluator=slow)
    both = {"rate": (scorer, candidates), "whole_rate": (as_whole, whole)}
    rates: dict[str, list[float]] = {name: [] for name in both}
    outputs, inputs = task.weights()[target].shape
    rank = min(4, outputs, inputs)
    for turn in range(turns + 1):
        for name, (each, count) in both.items():
            random = torch.Generator().manual_seed(turn)
            left = torch.randn(count, outputs, rank, generator=random) / 10
            right = torch.randn(count, rank, inputs, generator=random) / 10
            started = time.perf_counter()
            each.score({target: (left, right)})
            if turn:  # the first warms up
                rates[name].append(count / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {"target": target, "way": scorer.way, **medians}


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
