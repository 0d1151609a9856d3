"""Samples from all that they may be made of, in bounded memory, and what is wrong with them by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from rledit import Samples, forget_groups

LABELS = torch.tensor([0, 1, 2, 1, 0])
INPUTS = torch.arange(15.0).view(5, 3)
ALL = {"all": torch.ones(5, dtype=torch.bool)}


def test_tensors_are_kept_as_they_are() -> None:
    samples = Samples(INPUTS, LABELS, {"a": LABELS == 1, "b": LABELS != 1, "c": LABELS < 2})
    assert len(samples) == 5
    assert samples.group_names == ("a", "b", "c")
    assert samples.masks.tolist() == [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [1, 1, 0, 1, 1]]
    (batch,) = samples.batches()
    assert batch.data_ptr() == INPUTS.data_ptr()
    assert [len(part) for part in samples.batches(2)] == [2, 2, 1]
    assert torch.equal(samples.head(3), INPUTS[:3])
    assert repr(samples) == "Samples(5, groups={a: 2, b: 3, c: 4})"


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, list])
def test_arrays_and_lists(kind: Any) -> None:
    labels = LABELS.tolist() if kind is list else LABELS.numpy().astype(kind)
    samples = Samples(INPUTS.numpy(), labels, {"odd": np.array([0, 1, 0, 1, 0], dtype=bool), "l": [True] * 5})
    assert samples.labels.dtype == torch.int64
    assert torch.equal(samples.labels, LABELS)
    assert torch.equal(samples.head(5), INPUTS)
    assert samples.masks.sum(1).tolist() == [2, 5]


def test_groups_may_be_functions_of_the_labels() -> None:
    samples = Samples(INPUTS, LABELS, {"ones": lambda labels: labels == 1})
    assert samples.groups["ones"].tolist() == [False, True, False, True, False]


def test_forget_groups() -> None:
    groups = forget_groups(LABELS, [1, 2])
    assert groups["forget"].tolist() == [False, True, True, True, False]
    assert torch.equal(groups["retain"], ~groups["forget"])
    with pytest.raises(ValueError, match=r"class 7 has no sample; the labels hold \[0, 1, 2\]"):
        forget_groups(LABELS, 7)
    with pytest.raises(ValueError, match="nothing is left to retain"):
        forget_groups(LABELS, [0, 1, 2])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("loader", [False, True])
def test_datasets_and_loaders(batch_size: int, loader: bool) -> None:
    data: Any = TensorDataset(INPUTS, LABELS)
    if loader:
        samples = Samples.from_dataset(DataLoader(data, batch_size=batch_size), ALL)
    else:
        samples = Samples.from_dataset(data, ALL, batch_size=batch_size)
    assert torch.equal(samples.labels, LABELS)
    assert torch.equal(torch.cat(list(samples.batches())), INPUTS)
    assert torch.equal(samples.head(3), INPUTS[:3])  # also where a batch is smaller


def test_iterable_datasets_come_in_a_loader() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter(zip(INPUTS, LABELS.tolist(), strict=True))

    with pytest.raises(TypeError, match="a dataset with a length, or a DataLoader"):
        Samples.from_dataset(Stream(), ALL)
    samples = Samples.from_dataset(DataLoader(Stream(), batch_size=2), ALL)
    assert torch.equal(torch.cat(list(samples.batches())), INPUTS)


def test_shuffling_is_found() -> None:
    data = TensorDataset(INPUTS, LABELS)
    with pytest.raises(ValueError, match=r"shuffle=False.*RandomSampler"):
        Samples.from_dataset(DataLoader(data, shuffle=True), ALL)

    class Rolling(Dataset):
        """A loader's own tricks are only seen in what they give: here another order in each pass."""

        reads = 0

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            self.reads += 1
            index = (index + (self.reads - 1) // 5) % 5
            return INPUTS[index], LABELS[index]

    samples = Samples.from_dataset(Rolling(), ALL, batch_size=2)
    with pytest.raises(ValueError, match=r"labels of samples 0\.\. differ from the first pass"):
        list(samples.batches())


def test_a_dataset_that_shrinks_is_found() -> None:
    class Shrinking(Dataset):
        size = 5

        def __len__(self) -> int:
            return self.size

        def __getitem__(self, index: int) -> Any:
            return INPUTS[index], LABELS[index]

    data = Shrinking()
    samples = Samples.from_dataset(data, ALL, batch_size=2)
    data.size = 4
    with pytest.raises(ValueError, match="5 samples in the first pass and 4 now"):
        list(samples.batches())


MANY = {str(i): LABELS > 0 for i in range(65)}
EMPTY = {"g": LABELS > 8}
BAD = [
    (ValueError, "labels: expected 5, one per input, got 4", INPUTS, LABELS[:4], ALL),
    (TypeError, "labels: expected integers, got torch.float32", INPUTS, LABELS.float(), ALL),
    (TypeError, "labels: expected integers, got torch.bool", INPUTS, LABELS > 0, ALL),
    (ValueError, "labels: expected 0 or more, got -1", INPUTS, LABELS - 1, ALL),
    (ValueError, r"labels: expected shape \[S\], got \[5, 1\]", INPUTS, LABELS[:, None], ALL),
    (TypeError, "inputs: expected a tensor or an array, got list", INPUTS.tolist(), LABELS, ALL),
    (ValueError, r"inputs: expected shape \[S, ...\], got a scalar", torch.tensor(1.0), LABELS, ALL),
    (ValueError, "groups: expected at least one", INPUTS, LABELS, {}),
    (TypeError, "groups: expected a mapping .* got list", INPUTS, LABELS, [LABELS > 0]),
    (ValueError, "groups: expected at most 64, got 65", INPUTS, LABELS, MANY),
    (TypeError, "groups.'g'.: expected a bool mask, got torch.int64", INPUTS, LABELS, {"g": LABELS}),
    (ValueError, r"groups.'g'.: expected shape \[5\]", INPUTS, LABELS, {"g": LABELS[:4] > 0}),
    (ValueError, "groups.'g'.: expected at least one sample, got an empty group", INPUTS, LABELS, EMPTY),
    (ValueError, "sample 3 has NaN or infinity", torch.where(INPUTS == 10, torch.nan, INPUTS), LABELS, ALL),
    (ValueError, "sample 4 has NaN or infinity", torch.where(INPUTS == 14, torch.inf, INPUTS), LABELS, ALL),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "inputs", "labels", "groups"), BAD, ids=[b[1] for b in BAD])
def test_what_is_wrong_is_named(
    error: type[Exception], message: str, inputs: Any, labels: Any, groups: Any
) -> None:
    with pytest.raises(error, match=message):
        Samples(inputs, labels, groups)


def test_datasets_are_checked_as_well() -> None:
    with pytest.raises(ValueError, match="data: expected at least one sample"):
        Samples.from_dataset(TensorDataset(INPUTS[:0], LABELS[:0]), {"g": LABELS > 0})
    with pytest.raises(TypeError, match=r"expected batches of .input tensor, labels., got"):
        Samples.from_dataset(TensorDataset(INPUTS), ALL)
    with pytest.raises(TypeError, match="labels: expected integers"):
        Samples.from_dataset(TensorDataset(INPUTS, LABELS.float()), ALL)
    broken = Samples.from_dataset(TensorDataset(torch.where(INPUTS == 10, torch.nan, INPUTS), LABELS), ALL)
    with pytest.raises(ValueError, match="sample 3 has NaN or infinity"):
        list(broken.batches())


MEMORY = """
import resource, torch, rledit
from torch import nn
torch.set_num_threads(1)

class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 1500
    def __getitem__(self, index):
        return torch.full((3, 224, 224), index / 1500), index % 3

model = nn.Sequential(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 3))
def score(images, **options):
    samples = rledit.Samples.from_dataset(images, {"all": lambda labels: labels >= 0}, **options)
    return rledit.Task(model, ["2"], samples, lambda tally: tally.accuracy("all")).scorer()

score([Images()[0]] * 3)  # torch loads modules when they are first used
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scorer = score(Images(), batch_size=64)
assert 1500 * 48 * 4 <= scorer.cached_bytes < 2 * 1500 * 48 * 4
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_a_large_dataset_takes_the_memory_of_a_few_batches() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    batch = 64 * 3 * 224 * 224 * 4  # 38 MB, of 900 MB in all
    # The images one by one, the batch that is made of them, the prefix's copy, and the batch before.
    assert int(done.stdout) < 5 * batch
