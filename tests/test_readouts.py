"""Models as people hold them: what they take, what they give, and what of it is scored."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from edited_copies import check_scores
from pairwise import pairwise
from torch import Tensor, nn

import rledit
from rledit.readouts import NextToken, Readout

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.arange(24) % 3
GROUPS = rledit.forget_groups(LABELS, 1)
SIZES = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_labels": 3, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4},
    "llama": {"num_key_value_heads": 2},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 40},
}


def tokens(side: str = "right") -> dict[str, Tensor]:
    ids = torch.randint(3, 60, (24, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    padded = slice(5, None) if side == "right" else slice(None, 4)
    mask[::3, padded] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def build(kind: str, task: str = "SequenceClassification") -> nn.Module:
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **KINDS.get(kind, {})})
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, f"AutoModelFor{task}").from_config(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def check(model: nn.Module, inputs: Any, target: str, way: str, readout: Any, logits: Any, rule: str) -> None:
    """Scores are those of edited copies, and nothing runs whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = rledit.Task(
            model, [target], rledit.Samples(inputs, LABELS, GROUPS), rledit.Unlearning(), readout=readout
        )
        scorer = task.scorer()
    assert scorer.way == way
    check_scores(scorer, target, model.get_parameter(f"{target}.weight"), lambda: logits(model), rule)


HEADS = {
    "bert": "classifier", "distilbert": "pre_classifier", "gpt2": "score", "llama": "score", "opt": "score",
    "mixtral": "score",
}  # fmt: skip
LAYERS = {
    "bert": "bert.encoder.layer.1.output.dense",
    "distilbert": "distilbert.transformer.layer.1.ffn.lin2",
    "llama": "model.layers.1.self_attn.o_proj",
    "opt": "model.decoder.layers.1.fc2",
}


@pairwise(kind=HEADS, rule=["shift", "mask"])
def test_heads_are_tails(kind: str, rule: str) -> None:
    inputs = tokens()
    check(build(kind), inputs, HEADS[kind], "tail", None, lambda model: model(**inputs).logits, rule)


@pairwise(kind=LAYERS, rule=["shift", "mask"])
def test_last_layers_are_suffixes(kind: str, rule: str) -> None:
    inputs = tokens()
    check(build(kind), inputs, LAYERS[kind], "suffix", None, lambda model: model(**inputs).logits, rule)


@pairwise(kind=["llama", "gpt2"], side=["right", "left"], answers=[True, False])
def test_the_next_token(kind: str, side: str, answers: bool) -> None:
    inputs = tokens(side)
    chosen = [7, 20, 41] if answers else None
    target = {"llama": "model.layers.1.mlp.down_proj", "gpt2": "lm_head"}[kind]
    model = build(kind, "CausalLM")
    if kind == "gpt2":  # whose head is its embedding
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())  # type: ignore[union-attr]
    place = (inputs["attention_mask"] * torch.arange(9)).argmax(1)

    def logits(model: nn.Module) -> Tensor:
        rows: Tensor = model(**inputs).logits[torch.arange(24), place]
        return rows if chosen is None else rows[:, chosen]

    way = "suffix" if kind == "llama" or answers else "tail"
    check(model, inputs, target, way, NextToken(chosen), logits, "shift")


@pytest.mark.parametrize(
    ("tokens", "message"), [([1], "two or more"), ([1, 1], "different"), ([-1, 2], "got")]
)
def test_answers_that_are_none(tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NextToken(tokens)


class Wrapped(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.a, self.out = kind, nn.Linear(6, 8), nn.Linear(8, 1 if "one" in kind else 3)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        z = self.out(torch.relu(self.a(x if y is None else x + y)))
        if self.kind == "one, flat":
            return z[:, 0]
        if self.kind == "tuple":
            return z, x
        return {"logits": z} if self.kind == "mapping" else z


@pytest.mark.parametrize("kind", ["one", "one, flat", "tuple", "mapping", "two inputs"])
def test_outputs_explain_themselves(kind: str) -> None:
    x, y = torch.randn(24, 6), torch.randn(24, 6)
    inputs: Any = (x, y) if kind == "two inputs" else x
    labels = LABELS.clamp(max=1)
    groups = rledit.forget_groups(labels, 1)
    task = rledit.Task(Wrapped(kind), ["a"], rledit.Samples(inputs, labels, groups), rledit.Unlearning())
    assert task.classes == (2 if "one" in kind else 3)
    scorer = task.scorer()
    assert scorer.way == ("suffix" if kind == "one, flat" else "tail")
    model = Wrapped(kind)
    out = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    out = out[0] if kind == "tuple" else out["logits"] if kind == "mapping" else out
    said = (out.flatten() > 0).long() if "one" in kind else out.argmax(1)
    assert int(scorer.score({}).correct["retain"][0]) == int((said == labels)[groups["retain"]].sum())
    env = rledit.ShiftWorld(task, num_envs=8, rank=2)
    edit = rledit.PPO(env, seed=0).train(candidates=16).edit
    model = Wrapped(kind).eval()
    edit.apply_(model)  # of the model itself, by its own names
    assert task.editable.fingerprint == edit.fingerprint


def test_a_readout_of_ones_own() -> None:
    class Second(Readout):
        def forward(self, output: Any, inputs: Any) -> Tensor:
            return output[1] + 0 * inputs[""].sum(1, keepdim=True)

    class Two(Wrapped):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
            z = super().forward(x)
            return -z, z

    x = torch.randn(24, 6)
    samples = rledit.Samples(x, LABELS, GROUPS)
    scorer = rledit.Task(Two(""), ["a"], samples, rledit.Unlearning(), readout=Second()).scorer()
    hits = Wrapped("")(x).argmax(1) == LABELS
    assert int(scorer.score({}).correct["retain"][0]) == int(hits[GROUPS["retain"]].sum())
    with pytest.raises(TypeError, match="readout: expected a"):
        rledit.Task(Two(""), ["a"], samples, rledit.Unlearning(), readout=lambda output: output[1])  # type: ignore[arg-type]
