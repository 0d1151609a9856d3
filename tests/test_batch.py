"""Inputs of several tensors: taken apart, sliced and put together as the model is called."""

from __future__ import annotations

from collections import UserDict
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.batch import Batch, arguments, as_inputs, call, equal, joined, rows_of

A, B = torch.arange(12.0).view(6, 2), torch.arange(6)


class Encoding(UserDict[str, Tensor]):
    """As a tokenizer gives one."""


class Told(nn.Module):
    """Gives back what it was called with."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        ((A, B), (A, B), {}),
        ({"a": A, "b": B, "c": None, "d": 2}, (), {"a": A, "b": B, "c": None, "d": 2}),
        (Encoding(a=A, b=B), (), {"a": A, "b": B}),
        (({"x": A}, [B, True]), ({"x": A}, (B, True)), {}),
        ((A.numpy(),), (A,), {}),
    ],
)
def test_a_model_is_called_as_it_is_said(inputs: Any, args: Any, kwargs: Any) -> None:
    found = call(Told(), as_inputs(inputs))
    assert str(found) == str((args, kwargs))


def test_a_batch_is_handled_as_a_tensor_is() -> None:
    batch = Batch({"a": A, "b": B})
    assert len(batch) == 6
    assert torch.equal(batch[1:3]["a"], A[1:3])
    assert torch.equal(rows_of(batch, B > 3)["b"], B[4:])
    assert [len(part) for part in batch.split(4)] == [4, 2]
    assert equal(joined(list(batch.split(4))), batch)
    own = batch.clone()
    own["a"].zero_()
    assert not equal(own, batch)
    assert arguments(deepcopy(batch))[1].keys() == {"a", "b"}
    assert "a [6, 2]" in repr(batch)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"a": A, "b": B[:4]}, ValueError, "one row per sample in every tensor, got rows of a 6, b 4"),
        ({"a": None}, ValueError, "at least one tensor"),
        ({"a": A, "b": torch.tensor(1)}, ValueError, r"inputs\['b'\]: expected shape"),
        ({"a": object()}, TypeError, r"inputs\['a'\]: expected a tensor or an array, got object"),
        ({1: A}, TypeError, "expected names, got 1"),
        ([A, B], TypeError, "got list .*a tuple or a mapping"),
    ],
)
def test_what_is_no_batch_is_named(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_inputs(inputs)


def test_samples_of_several_tensors() -> None:
    labels = torch.arange(6) % 2
    groups = rledit.forget_groups(labels, 1)
    samples = rledit.Samples({"a": A, "b": B}, labels, groups)
    assert [len(part) for part in samples.batches(4)] == [4, 2]
    assert torch.equal(samples.head(3)["b"], B[:3])
    assert samples.fingerprint() == rledit.Samples({"a": A, "b": B}, labels, groups).fingerprint()
    assert samples.fingerprint() != rledit.Samples({"a": A, "c": B}, labels, groups).fingerprint()
    with pytest.raises(ValueError, match="sample 4 has NaN"):
        rledit.Samples((A, torch.where(B == 4, torch.nan, B.float())), labels, groups)


@pytest.mark.parametrize("kind", ["mappings", "triples", "tuples within pairs"])
def test_data_sets_of_several_tensors(kind: str) -> None:
    labels = torch.arange(6) % 2
    items: list[Any] = [
        {"a": A[i], "b": B[i], "wanted": labels[i]}
        if kind == "mappings"
        else ((A[i], labels[i], i) if kind == "triples" else ((A[i], B[i]), labels[i]))
        for i in range(6)
    ]
    groups = rledit.forget_groups(labels, 1)
    samples = rledit.Samples.from_dataset(items, groups, batch_size=4, labels="wanted")  # type: ignore[arg-type]
    assert torch.equal(samples.labels, labels)
    first = samples.head(6)
    assert torch.equal(first if kind == "triples" else first["a" if kind == "mappings" else "0"], A)
    if kind == "mappings":
        with pytest.raises(ValueError, match="labels: expected one of a, b, wanted"):
            rledit.Samples.from_dataset(items, groups)  # type: ignore[arg-type]


def test_arrays_are_taken() -> None:
    assert isinstance(as_inputs(np.zeros((2, 3))), Tensor)
