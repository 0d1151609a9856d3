"""Debiasing a Hugging Face classifier that has really been fine-tuned: its head, and its last block.

    python -m benchmarks.debias_classifier --data-root DIR --encoder DIR

Each seed fine-tunes the encoder with a head of its own on comments that nothing else sees, saves it as
``AutoModelForSequenceClassification`` does, and edits that folder as ``rledit debias --model transformer``
does: the head by PPO, which scores thousands of candidates in a moment, the last block by gradients.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from rledit.experiments.console import PlainConsole, progress_bar
from rledit.objectives.metric_names import label
from rledit.recipes.debiasing import DebiasConfig, run
from rledit.recipes.debiasing.changes import RATES
from rledit.zoo.data import Comments, load_comments, split_comments

from . import ROOT
from .debias import FIGURES, cell, figures_of
from .record import write

MAX_TOKENS = 64
BATCH = 32


def settings_of(blocks: int) -> dict[str, dict[str, Any]]:
    """By title, for a BERT of so many blocks."""
    last = f"bert.encoder.layer.{blocks - 1}"
    return {
        "head": {"layer": ("bert.pooler.dense", "classifier"), "search": "ppo"},
        "head, gradients": {"layer": ("bert.pooler.dense", "classifier"), "search": "gradient"},
        "last block's last linear, gradients": {"layer": (f"{last}.output.dense",), "search": "gradient"},
        "last block's feed-forward part, gradients": {
            "layer": (f"{last}.intermediate.dense", f"{last}.output.dense"),
            "search": "gradient",
        },
    }


def main(
    encoder: Path,
    data_root: Path | None = None,
    dataset: tuple[str, ...] = ("jigsaw", "civil"),
    seeds: int = 5,
    comments: int = 4_000,
    epochs: int = 2,
    rate: float = 1e-4,
    candidates: int = 51_200,
    settings: Sequence[str] = (),
    folder: Path = ROOT / "runs" / "debias-classifier",
    name: str = "debias-classifier",
) -> None:
    """Run the table, or what is missing of it.

    Args:
        encoder: a Hugging Face BERT's folder.
        data_root: folder with the comments.
        dataset: what the classifier is trained on, and what it must stay good at.
        seeds: how many classifiers and edits.
        comments: for training; twice as many others are what edits are searched and judged by.
        epochs: of training.
        rate: learning rate of training.
        candidates: for each edit.
        settings: some of them, by title.
        folder: where classifiers and runs are kept.
        name: of the files with results.
    """
    console = Console(stderr=True)
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        own = folder / f"{comments}-{epochs}-{rate:g}-{seed}"
        blocks, left, accuracy = fine_tuned(encoder, own, data_root, dataset, seed, comments, epochs, rate)
        known = settings_of(blocks)
        for title in settings or known:
            config = DebiasConfig(
                train=(str(left),),
                bias_set="madlibs",
                model="transformer",
                classifier=str(own / "classifier"),
                seed=seed,
                candidates=candidates,
                **known[title],
            )
            out = own / title.replace(" ", "-").replace(",", "").replace("'", "")
            result = run(config, out, data_root=data_root, resume=out.exists(), console=PlainConsole(True))
            metrics = result.metrics
            rows.append({"setting": title, "seed": seed, "training_accuracy": accuracy, **_row(metrics)})
            console.print(rows[-1], highlight=False)
    command = (
        f"python -m benchmarks.debias_classifier --data-root DIR --encoder DIR --seeds {seeds} "
        f"--comments {comments} --epochs {epochs} --rate {rate:g} --candidates {candidates}"
    )
    note = (
        "Mean and standard deviation over seeds; in brackets before the edit. Worst rise: of the group whose "
        "rate rose most, in points, the largest of all seeds. No edit: seeds on which nothing was found that "
        "keeps all budgets by its bound. Seconds: median, of the search."
    )
    write(name, command, _table(rows), {"rows": rows}, note)


def fine_tuned(
    encoder: Path,
    folder: Path,
    data_root: Path | None,
    dataset: Sequence[str],
    seed: int,
    comments: int,
    epochs: int,
    rate: float,
) -> tuple[int, Path, float]:
    """How many blocks it has, the file with comments that it has not seen, and its accuracy on these; made
    once."""
    import transformers

    together = Comments.join(*[load_comments(each, data_root) for each in dataset])
    used, left = split_comments(together, [comments, 2 * comments], seed)
    file, saved = folder / "comments.csv", folder / "classifier"
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    if not saved.exists():
        torch.manual_seed(seed)
        names = ["harmless", "toxic"]
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            encoder,
            num_labels=2,
            id2label=dict(enumerate(names)),
            label2id={n: i for i, n in enumerate(names)},
        )
        _train(model, tokenizer, used, epochs, rate, seed)
        folder.mkdir(parents=True, exist_ok=True)
        _write_comments(left, file)
        tokenizer.save_pretrained(folder / "unfinished")
        model.save_pretrained(folder / "unfinished")
        (folder / "unfinished").rename(saved)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(saved).eval()
    accuracy = _accuracy(model, tokenizer, left)
    return int(model.config.num_hidden_layers), file, accuracy


def _train(model: Any, tokenizer: Any, comments: Comments, epochs: int, rate: float, seed: int) -> None:
    """AdamW with a warm-up and a linear decay, as BERT's authors fine-tune."""
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(comments) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps))
    )
    model.train()
    with progress_bar(Console(stderr=True), "fine-tuning", steps) as show:
        done = 0
        for _ in range(epochs):
            order = torch.randperm(len(comments), generator=generator)
            for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
                tokens = _tokens(tokenizer, [comments.texts[i] for i in rows.tolist()])
                loss = F.cross_entropy(model(**tokens).logits, comments.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                done += 1
                show(done, steps, f"loss {loss.item():.3f}")
    model.eval()


def _tokens(tokenizer: Any, texts: list[str]) -> Any:
    return tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")


@torch.no_grad()
def _accuracy(model: Any, tokenizer: Any, comments: Comments) -> float:
    right = 0
    for start in range(0, len(comments), 64):
        logits = model(**_tokens(tokenizer, list(comments.texts[start : start + 64]))).logits
        right += int((logits.argmax(1) == comments.labels[start : start + 64]).sum())
    return right / len(comments)


def _write_comments(comments: Comments, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "toxic"])
        writer.writerows(zip(comments.texts, comments.labels.tolist(), strict=True))


def _row(metrics: Any) -> dict[str, Any]:
    return {
        "origin": metrics["origin"],
        "candidates": metrics["candidates"],
        "seconds": sum(metrics["seconds"].values()),
        "layer": metrics["layer"],
        **figures_of(metrics["test"]),
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Debiasing a fine-tuned BERT, test split")
    table.add_column("setting")
    rises = [f"worst rise, {label(rate)}" for rate in RATES]
    for header in (*FIGURES, *rises, "no edit", "candidates", "seconds"):
        table.add_column(header, justify="right")
    for title in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == title]
        cells = [cell([(row["before"][figure], row["after"][figure]) for row in own]) for figure in FIGURES]
        cells += [f"{100 * max(row['worst_rise'][rate] for row in own):+.1f}" for rate in RATES]
        cells.append(str(sum(row["origin"] == "no edit" for row in own)))
        cells += [f"{statistics.median(row[name] for row in own):,.0f}" for name in ("candidates", "seconds")]
        table.add_row(title, *cells)
    return table


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
