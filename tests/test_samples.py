"""Samples from all that they may be made of, in bounded memory, and what is wrong with them by name."""

from __future__ import annotations

import copy
import os
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
    with pytest.raises(TypeError, match=r"expected batches of .inputs, labels., or mappings"):
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
        return 700
    def __getitem__(self, index):
        return torch.full((3, 224, 224), index / 700), index % 3

model = nn.Sequential(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 3))
def score(images, **options):
    samples = rledit.Samples.from_dataset(images, {"all": lambda labels: labels >= 0}, **options)
    return rledit.Task(model, ["2"], samples, lambda tally: tally.accuracy("all")).scorer()

score([Images()[0]] * 3)  # torch loads modules when they are first used
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scorer = score(Images(), batch_size=32)
assert 700 * 48 * 4 <= scorer.cached_bytes < 2 * 700 * 48 * 4
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_a_large_dataset_takes_the_memory_of_a_few_batches() -> None:
    # Not forked: what malloc keeps of batches that are gone would count, now and then.
    gone = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, env=gone
    )
    assert done.returncode == 0, done.stderr
    batch = 32 * 3 * 224 * 224 * 4  # 19 MB, of 420 MB in all
    # The images one by one, the batch that is made of them, the prefix's copy, and the batch before; malloc
    # keeps a batch or two beyond.
    assert int(done.stdout) < 8 * batch


# ------------------------------------------------------------------------- what passes over data must keep


def test_labels_and_masks_are_the_samples_own() -> None:
    labels, mask, array = LABELS.clone(), LABELS > 0, (LABELS == 0).numpy()
    samples = Samples(INPUTS, labels, {"a": mask, "b": array, "c": lambda labels: labels.bool()})
    before = samples.fingerprint()
    labels.zero_()
    mask.zero_()
    array[:] = False
    assert torch.equal(samples.labels, LABELS)
    assert samples.masks.sum(1).tolist() == [3, 2, 3]
    assert samples.fingerprint() == before


class Batches(Dataset):
    """Batches as they are, for a loader that does not put them together."""

    def __init__(self, *batches: torch.Tensor) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index], torch.zeros(len(self.batches[index]), dtype=torch.int64)


@pytest.mark.parametrize(
    ("first", "later", "message"),
    [
        (torch.ones(2, 7), torch.ones(3, 5),
         r"batch 2 \(samples 4\.\.6\) has inputs .* \[3, 5\], batch 0 has .* \[2, 7\].*pad all inputs"),
        (torch.ones(2, 7), torch.ones(3, 1), r"\[3, 1\]"),  # which would be broadcast
        (torch.ones(2, 3, 4, 4), torch.ones(2, 1, 4, 4), r"\[2, 1, 4, 4\], batch 0 has .*\[2, 3, 4, 4\]"),
        (torch.ones(2, 7), torch.ones(2, 7, dtype=torch.float64), "torch.float64"),
    ],
)  # fmt: skip
def test_batches_of_another_shape_are_named(first: torch.Tensor, later: torch.Tensor, message: str) -> None:
    loader = DataLoader(Batches(first, first, later), batch_size=None)
    with pytest.raises(ValueError, match=message):
        Samples.from_dataset(loader, {"all": lambda labels: labels == 0})


def test_inputs_that_change_from_pass_to_pass_are_found() -> None:
    class Augmented(Dataset):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Any:
            noise = torch.rand(()) if index > 2 else 0.0
            return INPUTS[index] + noise, LABELS[index]

    samples = Samples.from_dataset(Augmented(), ALL, batch_size=2)
    passes = samples.batches()
    next(passes)
    with pytest.raises(ValueError, match=r"inputs of samples 2\.\.3 differ from the first pass.*augment"):
        next(passes)


def test_the_fingerprint_is_of_all_that_counts() -> None:
    def fingerprint(inputs: Any = INPUTS, labels: Any = LABELS, groups: Any = ALL) -> str:
        return Samples(inputs, labels, groups).fingerprint()

    one_less = {"all": torch.arange(5) > 0}
    changed = [
        fingerprint(),
        fingerprint(inputs=INPUTS.double()),
        fingerprint(inputs=INPUTS.view(5, 3, 1)),
        fingerprint(inputs=INPUTS.index_fill(0, torch.tensor([4]), 1.5)),
        fingerprint(labels=LABELS.flip(0) + 1),
        fingerprint(groups=one_less),
        fingerprint(groups={"others": ALL["all"]}),
    ]
    assert len(set(changed)) == len(changed)
    assert fingerprint(INPUTS.T.contiguous().T) == changed[0]  # strides are nobody's business
    assert Samples.from_dataset(TensorDataset(INPUTS, LABELS), ALL, batch_size=2).fingerprint() == changed[0]
    inputs = INPUTS.clone()
    samples = Samples(inputs, LABELS, ALL)
    assert copy.deepcopy(samples).fingerprint() == samples.fingerprint() == changed[0]
    inputs[0] = 9.0
    assert samples.fingerprint() != changed[0]


def test_numpy_integers_are_integers() -> None:
    two = np.int64(2)
    assert forget_groups(LABELS, np.int64(1))["forget"].sum() == 2
    assert forget_groups(LABELS, np.array([1, 2]))["forget"].sum() == 3
    samples = Samples.from_dataset(TensorDataset(INPUTS, LABELS), ALL, batch_size=two)  # type: ignore[arg-type]
    assert [len(batch) for batch in samples.batches()] == [2, 2, 1]
    assert [len(batch) for batch in Samples(INPUTS, LABELS, ALL).batches(two)] == [2, 2, 1]  # type: ignore[arg-type]
