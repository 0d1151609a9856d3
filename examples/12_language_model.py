"""A small language model forgets a fact.

A LLaMA of two layers, trained here, knows the capitals of twelve countries in six phrasings. One of them is
forgotten by an edit of the last feed-forward layer: candidates are counted on what the model says next, among
the twelve answers, and the network before that layer runs once. Two phrasings play no part in it. Prints how
often the fact and the others are known, in phrasings seen and held out. Takes a few seconds, needs the
package transformers.
"""

import torch
import transformers
from torch.nn import functional as F

import rledit
from rledit.readouts import NextToken

COUNTRIES, PHRASINGS, LENGTH = 12, 6, 8
HELD_OUT = (4, 5)
FORGET = 3
CAPITALS = list(range(1, 1 + COUNTRIES))  # tokens; then the countries', then the words of the phrasings
VOCABULARY = 1 + 2 * COUNTRIES + 40


def prompts(phrasings: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Every country in these phrasings, padded on the left as for generation; and the answers' places."""
    random = torch.Generator().manual_seed(0)
    words = torch.randint(1 + 2 * COUNTRIES, VOCABULARY, (PHRASINGS, LENGTH), generator=random)
    rows, masks, labels = [], [], []
    for phrasing in phrasings:
        for country in range(COUNTRIES):
            length = LENGTH - phrasing % 3
            row = words[phrasing].clone()
            row[LENGTH - 1 - phrasing // 2] = 1 + COUNTRIES + country
            mask = (torch.arange(LENGTH) >= LENGTH - length).long()
            rows.append(row * mask)
            masks.append(mask)
            labels.append(country)
    return {"input_ids": torch.stack(rows), "attention_mask": torch.stack(masks)}, torch.tensor(labels)


def pretrain() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    inputs, labels = prompts(tuple(range(PHRASINGS)))
    answers = torch.tensor(CAPITALS)[labels]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        F.cross_entropy(model(**inputs).logits[:, -1], answers).backward()
        optimizer.step()
    return model.eval()


def known(model: torch.nn.Module, phrasings: tuple[int, ...]) -> tuple[float, float]:
    """How often the right capital is what the model says next: of the fact to forget, and of the others."""
    inputs, labels = prompts(phrasings)
    with torch.no_grad():
        right = model(**inputs).logits[:, -1].argmax(1) == torch.tensor(CAPITALS)[labels]
    return float(right[labels == FORGET].float().mean()), float(right[labels != FORGET].float().mean())


def main() -> None:
    model = pretrain()
    seen = tuple(phrasing for phrasing in range(PHRASINGS) if phrasing not in HELD_OUT)
    inputs, labels = prompts(seen)
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, FORGET))
    task = rledit.Task(
        model, ["model.layers.1.mlp.down_proj"], samples, rledit.Unlearning(), readout=NextToken(CAPITALS)
    )
    print(task.scorer())
    # Large edits: the layer only adds to what its residual connection carries past it.
    env = rledit.ShiftWorld(task, num_envs=64, rank=2, directions="strata", scale=8.0)
    result = rledit.ES(env, seed=0).train(candidates=3_200)
    for phrasings, name in ((seen, "seen"), (HELD_OUT, "held out")):
        before = known(model, phrasings)
        result.edit.apply_(model)
        after = known(model, phrasings)
        result.edit.revert_(model)
        print(
            f"phrasings {name}: the fact is known {before[0]:.0%} -> {after[0]:.0%}, "
            f"the others {before[1]:.0%} -> {after[1]:.0%}"
        )


if __name__ == "__main__":
    main()
