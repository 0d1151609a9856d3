"""Candidates per second of edits of a fine-tuned transformer: its head, and its last block behind attention.

A random BERT of MiniLM's size; random states in place of those of texts, whose length plays no part behind
the last attention. What comes before is not timed: it runs once for each text.

python -m benchmarks.transformer_edits
"""

from __future__ import annotations

import time

import torch
import tyro
from rich.table import Table

import rledit
from rledit.zoo.models.architectures import ARCHITECTURES, last_layers
from rledit.zoo.models.classifier_tail import ClassifierBlock, ClassifierHead

from .record import write


def make_samples(inputs: torch.Tensor, identities: int) -> rledit.Samples:
    """Half for utility, half in groups."""
    place = torch.arange(len(inputs))
    in_bias = place >= len(inputs) // 2
    groups = {"utility": ~in_bias, "bias": in_bias}
    groups |= {f"group {k}": in_bias & (place // 2 % identities == k) for k in range(identities)}
    return rledit.Samples(inputs, place % 2, groups)


def rate(task: rledit.Task, together: int, rank: int, seconds: float) -> tuple[str, float, float]:
    """The way, and candidates per second, of the clock's and of the CPU's."""
    scorer = task.scorer()
    factors = {
        name: (0.01 * torch.randn(together, outputs, rank), torch.randn(together, rank, inputs))
        for name, (outputs, inputs) in ((name, weight.shape) for name, weight in task.weights().items())
    }
    scorer.score(factors)
    started, busy, scored = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        scorer.score(factors)
        scored += together
    return scorer.way, scored / (time.perf_counter() - started), scored / (time.process_time() - busy)


def main(
    texts: int = 8_000, width: int = 384, identities: int = 48, threads: int = 1, seconds: float = 10.0
) -> None:
    """Run the table.

    Args:
        texts: S.
        width: of the model; the feed-forward part is four times as wide.
        identities: groups.
        threads: of torch and of the core.
        seconds: least time for each target.
    """
    import transformers

    torch.set_num_threads(threads)
    rledit.set_num_threads(threads)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=12,
        intermediate_size=4 * width,
    )
    model = transformers.BertForSequenceClassification(config).eval().requires_grad_(False)
    known, layers = ARCHITECTURES["bert"], last_layers("bert", 1)
    _, inner, output = layers.block
    pooler, classifier = layers.head
    table = Table(title=f"Edits of a transformer's end, {texts:,} texts")
    for column in ("target", "way", "candidates/s", "per second of CPU"):
        table.add_column(column)
    rows = []
    for name in (classifier, pooler, output, inner):
        head = name in layers.head
        tail = ClassifierHead(model, known) if head else ClassifierBlock(model, known)
        inputs = torch.randn(texts, width) if head else torch.randn(texts, 2, width)
        task = rledit.Task(tail.eval(), [name], make_samples(inputs, identities), rledit.Debias())
        way, clock, cpu = rate(task, 64, 2, seconds)
        rows.append({"target": name, "way": way, "rate": clock, "cpu_rate": cpu})
        table.add_row(name, way, f"{clock:,.1f}", f"{cpu:,.1f}")
    note = f"Width {width}, {identities} groups, shifts of rank 2, {threads} thread(s)."
    write("transformer-edits", "python -m benchmarks.transformer_edits", table, {"rows": rows}, note)


if __name__ == "__main__":
    tyro.cli(main)
