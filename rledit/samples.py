"""Samples: inputs, labels and groups of one split."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from .batch import Batch, Inputs, as_inputs, joined, rows_of, tensors_of
from .ops.counts import MAX_GROUPS

Mask = Tensor | NDArray[Any] | Sequence[bool]
Groups = Mapping[str, Mask | Callable[[Tensor], Tensor]]


def forget_groups(labels: Any, forget: Any) -> dict[str, Tensor]:
    """The two groups of unlearning: ``forget``, the samples of these classes, and ``retain``, the others.

    Args:
        labels: integers [S], tensor, array or list.
        forget: one class or several: an integer, or a sequence, set or 1-D tensor of them.

    Raises:
        ValueError: if a class has no sample, or if nothing is left to retain.
    """
    labels = _labels(labels)
    several = isinstance(forget, (Sequence, set, frozenset)) or getattr(forget, "ndim", 0) == 1
    classes = [operator.index(label) for label in (forget if several else [forget])]
    present = set(labels.unique().tolist())
    for label in classes:
        if label not in present:
            raise ValueError(f"forget: class {label} has no sample; the labels hold {sorted(present)}")
    mask = torch.isin(labels, torch.tensor(classes, device=labels.device))
    if bool(mask.all()):
        raise ValueError(f"forget: {classes} are all classes there are; nothing is left to retain")
    return {"forget": mask, "retain": ~mask}


def drawn_by_weight(weights: Tensor, seed: int = 0) -> Tensor:
    """Rows in order, int64 [S], each as often as its share of the weights times S says, rounded up or down at
    random: a systematic sample (W. G. Madow, "On the theory of systematic sampling, II", Annals of
    Mathematical Statistics 20, 1949), whose shares are nearer to the weights' than independent draws' are.

    Args:
        weights: float64 [S], finite, at least 0 and not all 0.
        seed: of the one number that is drawn.
    """
    count = len(weights)
    start = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    marks = (torch.arange(count, dtype=torch.float64) + start) * (weights.sum() / count)
    sums = weights.cumsum(0)
    last = int(weights.nonzero()[-1, 0])  # rounding must not go beyond
    return torch.searchsorted(sums, marks, right=True).clamp(max=last)


class Samples:
    """Inputs, labels and named groups of S samples.

    Args:
        inputs: tensor or array [S, ...], what the model is called with; or several of them: a tuple, with
            which it is called by position, or a mapping, such as a tokenizer gives, by keyword. Kept as they
            are, not copied: do not change them while a task uses them.
        labels: integers [S], the class of each sample. Copied.
        groups: name -> bool mask [S], or a function from the labels to such a mask. Groups may overlap
            and need not cover all samples. At most 64. Copied.
        weights: numbers [S], finite and at least 0: what figures with intervals weigh each sample by, those
            of :meth:`rledit.Objective.confirmation` and of reports. Scores count every sample once; a split
            that :meth:`drawn` has made counts as the weights say. None: all weigh alike. Copied.

    Raises:
        TypeError: for labels that are not integers, or masks that are not bool.
        ValueError: for lengths that do not match, negative labels, an empty group, more than 64 groups,
            inputs that are not finite, or weights that are negative, not finite or all 0.
    """

    def __init__(
        self,
        inputs: Tensor | NDArray[Any] | tuple[Any, ...] | Mapping[str, Any] | Batch,
        labels: Tensor | NDArray[Any] | Sequence[int],
        groups: Groups,
        weights: Tensor | NDArray[Any] | Sequence[float] | None = None,
    ) -> None:
        inputs = as_inputs(inputs)
        self.labels = _labels(labels)
        if len(inputs) != len(self.labels):
            raise ValueError(f"labels: expected {len(inputs)}, one per input, got {len(self.labels)}")
        _check_finite(inputs, 0)
        self.groups = _groups(groups, self.labels)
        self.weights = None if weights is None else _weights(weights, len(self.labels))
        self._inputs: Inputs | None = inputs
        self._source: Iterable[Any] | None = None
        self._labels_entry = ""
        self._pass: _Pass | None = None  # not hashed yet
        self._hashed = -1  # the version of the inputs that was hashed

    @classmethod
    def from_dataset(
        cls,
        data: Dataset[Any] | DataLoader[Any],
        groups: Groups,
        *,
        batch_size: int = 256,
        labels: str = "labels",
    ) -> Samples:
        """Samples of a Dataset or DataLoader that yields (input, label), also with more behind it, such as an
        index, or mappings, of whose entries ``labels`` names the labels and the others are inputs.

        Inputs are never held all at once: they are read in batches whenever a scorer is built. The data must
        be the same in every pass: no shuffling, no random augmentation. This is checked.

        Raises:
            TypeError, ValueError: as for :class:`Samples`; also for an empty dataset, for batches whose
                inputs differ in shape or dtype, or for a later pass that differs from the first.
        """
        source: Iterable[Any]
        if isinstance(data, DataLoader):
            if isinstance(data.sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)):
                raise ValueError(
                    f"data: expected the same order every time (shuffle=False), got a loader with a "
                    f"{type(data.sampler).__name__}"
                )
            source = data
        else:
            if not isinstance(data, Sized):
                raise TypeError("data: expected a dataset with a length, or a DataLoader")
            source = DataLoader(data, batch_size=operator.index(batch_size), shuffle=False)
        samples = cls.__new__(cls)
        reading = _Reading()
        parts = []
        for inputs, own in _pairs(source, labels):
            parts.append(_labels(own))
            if len(parts[-1]) != len(inputs):
                raise ValueError(
                    f"data: batch {len(parts) - 1} has {len(inputs)} inputs and {len(parts[-1])} labels"
                )
            reading.add(inputs)
            del inputs, own  # before the next batch is made
        if not parts:
            raise ValueError("data: expected at least one sample, got none")
        samples.labels = torch.cat(parts)
        samples.groups = _groups(groups, samples.labels)
        samples.weights = None
        samples._inputs = None
        samples._source = source
        samples._labels_entry = labels
        samples._pass = reading.done()
        return samples

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {int(mask.sum())}" for name, mask in self.groups.items())
        return f"Samples({len(self)}, groups={{{sizes}}})"

    @property
    def group_names(self) -> tuple[str, ...]:
        return tuple(self.groups)

    @property
    def masks(self) -> Tensor:
        """The groups' masks, bool [G, S], in the order of :attr:`group_names`."""
        return torch.stack(list(self.groups.values()))

    def fingerprint(self) -> str:
        """SHA-256 of the names and masks of the groups, the labels, weights if there are any, and the inputs,
        hexadecimal.

        Inputs in a tensor are hashed when this is first asked for (about a gigabyte per second), those of a
        dataset during its first pass. The same values in a tensor and in a dataset give the same fingerprint.
        """
        digest = hashlib.sha256()
        for name, mask in self.groups.items():
            digest.update(f"{len(name)}:{name}".encode() + mask.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        if self.weights is not None:
            digest.update(b"weights" + self.weights.numpy().tobytes())
        if self._inputs is not None and self._hashed != (version := _version(self._inputs)):
            reading = _Reading()
            for part in self._inputs.split(4096):
                reading.add(part)
            self._pass, self._hashed = reading.done(), version
        assert self._pass is not None
        digest.update(self._pass.digest)
        return digest.hexdigest()

    def batches(self, batch_size: int = 256) -> Iterator[Any]:
        """The inputs in order, in tensors [s, ...] or :class:`rledit.batch.Batch`; ``batch_size`` is the
        dataset's own if there is one.

        Raises:
            ValueError: for a dataset that gives something else than in its first pass, or inputs that are not
                finite.
        """
        if self._inputs is not None:
            yield from self._inputs.split(operator.index(batch_size))
            return
        assert self._source is not None
        assert self._pass is not None
        reading = _Reading()
        for inputs, labels in _pairs(self._source, self._labels_entry):
            start = reading.samples
            if not torch.equal(_labels(labels), self.labels[start : start + len(inputs)]):
                raise ValueError(
                    f"data: the labels of samples {start}.. differ from the first pass; "
                    "the order must not change (shuffle=False)"
                )
            reading.add(inputs)
            if not reading.agrees(self._pass):
                raise ValueError(
                    f"data: the inputs of samples {start}..{reading.samples - 1} differ from the first pass, "
                    "their labels do not. Does the dataset augment its inputs at random, or do loaders share "
                    "a random state? Give it the transforms of evaluation"
                )
            _check_finite(inputs, start)
            yield inputs
            del inputs, labels  # before the next batch is made
        if reading.samples != len(self):
            raise ValueError(f"data: gave {len(self)} samples in the first pass and {reading.samples} now")

    def drawn(self, seed: int = 0) -> Samples:
        """As many samples drawn by their weights, which then count once each: see :func:`drawn_by_weight`.
        Without weights these samples themselves.

        Raises:
            ValueError: for a group of whose samples none is drawn.
        """
        if self.weights is None:
            return self
        assert self._inputs is not None  # a dataset has no weights
        rows = drawn_by_weight(self.weights, seed)
        groups = {name: mask[rows] for name, mask in self.groups.items()}
        return Samples(rows_of(self._inputs, rows), self.labels[rows], groups)

    def head(self, count: int) -> Any:
        """The inputs of the first ``count`` samples, as :meth:`batches` has them."""
        parts: list[Inputs] = []
        for batch in self.batches(count):
            parts.append(batch)
            if sum(len(part) for part in parts) >= count:
                break
        return joined(parts)[:count]


@dataclass
class _Pass:
    """What a whole pass over inputs gave: its digest, and what the digest was after each batch."""

    digest: bytes
    after: dict[int, bytes]  # samples so far -> digest


class _Reading:
    """A pass over inputs under way. They are checked to be of one shape and dtype as they come."""

    def __init__(self) -> None:
        self.samples = 0
        self._hash = hashlib.sha256()
        self._batches = 0
        self._first: tuple[list[Any], int] | None = None  # and how many samples
        self._after: dict[int, bytes] = {}

    def add(self, inputs: Inputs) -> None:
        described = _described(inputs)
        if self._first is None:
            self._first = described, len(inputs)
            self._hash.update("".join(f"{name}{dtype}{shape}" for name, dtype, shape in described).encode())
        if described != self._first[0]:
            last = self.samples + len(inputs) - 1
            raise ValueError(
                f"data: batch {self._batches} (samples {self.samples}..{last}) has inputs "
                f"{_shown(described, len(inputs))}, batch 0 has {_shown(*self._first)}; expected one shape "
                "and dtype: pad all inputs to one length, convert all images to one format"
            )
        for _, tensor in tensors_of(inputs):
            self._hash.update(_bytes(tensor))
        self._batches += 1
        self.samples += len(inputs)
        self._after[self.samples] = self._hash.digest()

    def agrees(self, first: _Pass) -> bool:
        """Whether everything so far is as it was in the first pass; unknown in the middle of a batch."""
        now = self._hash.digest()
        return first.after.get(self.samples, now) == now

    def done(self) -> _Pass:
        return _Pass(self._hash.digest(), self._after)


def _bytes(inputs: Tensor) -> Any:
    """The values as a buffer, row after row, whatever the strides."""
    if inputs.is_meta:
        raise ValueError("inputs: expected values, got a tensor on the meta device")
    flat = inputs.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else b""


def _version(inputs: Inputs) -> int:
    return sum(0 if tensor.is_inference() else tensor._version for _, tensor in tensors_of(inputs))


def _described(inputs: Inputs) -> list[Any]:
    """Name, dtype and shape of a sample of each tensor."""
    return [(name, tensor.dtype, list(tensor.shape[1:])) for name, tensor in tensors_of(inputs)]


def _shown(described: list[Any], rows: int) -> str:
    return ", ".join(f"{name} {dtype} {[rows, *shape]}".strip() for name, dtype, shape in described)


def _pairs(source: Iterable[Any], labels: str) -> Iterator[tuple[Inputs, Any]]:
    """Inputs and labels of each batch, which is a pair of them, with more behind it or not, or a mapping with
    both."""
    for item in source:
        if isinstance(item, Mapping):
            if labels not in item:
                raise ValueError(
                    f"labels: expected one of {', '.join(map(str, item))}, the entries of the data; got "
                    f"{labels!r}"
                )
            yield as_inputs({name: value for name, value in item.items() if name != labels}), item[labels]
        elif isinstance(item, (tuple, list)) and len(item) >= 2:
            first = tuple(item[0]) if isinstance(item[0], list) else item[0]
            yield as_inputs(first), item[1]
            del first
        else:
            raise TypeError(
                "data: expected batches of (inputs, labels), or mappings with labels; got "
                f"{type(item).__name__}"
            )
        del item  # nobody's memory while the next batch is made


def _labels(labels: Any) -> Tensor:
    tensor = torch.as_tensor(labels).detach().cpu()
    if tensor.dim() != 1:
        raise ValueError(f"labels: expected shape [S], got {list(tensor.shape)}")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"labels: expected integers, got {tensor.dtype}")
    tensor = tensor.to(torch.int64, copy=True)  # the caller may go on to change his own
    if len(tensor) and int(tensor.min()) < 0:
        raise ValueError(f"labels: expected 0 or more, got {int(tensor.min())}")
    return tensor.contiguous()


def _groups(groups: Groups, labels: Tensor) -> dict[str, Tensor]:
    if not isinstance(groups, Mapping):
        raise TypeError(f"groups: expected a mapping from names to masks, got {type(groups).__name__}")
    if not groups:
        raise ValueError("groups: expected at least one, got none")
    if len(groups) > MAX_GROUPS:
        raise ValueError(f"groups: expected at most {MAX_GROUPS}, got {len(groups)}")
    masks = {}
    for name, group in groups.items():
        values = group(labels) if callable(group) else group
        mask = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values)
        mask = mask.detach().cpu()
        if mask.dtype != torch.bool:
            raise TypeError(f"groups[{name!r}]: expected a bool mask, got {mask.dtype}")
        if mask.shape != labels.shape:
            raise ValueError(
                f"groups[{name!r}]: expected shape [{len(labels)}], one entry per label, "
                f"got {list(mask.shape)}"
            )
        if not bool(mask.any()):
            raise ValueError(f"groups[{name!r}]: expected at least one sample, got an empty group")
        masks[name] = mask.clone(memory_format=torch.contiguous_format)
    return masks


def _weights(weights: Any, count: int) -> Tensor:
    tensor = torch.as_tensor(weights).detach().cpu().to(torch.float64, copy=True)
    if tensor.shape != (count,):
        raise ValueError(f"weights: expected shape [{count}], one per input, got {list(tensor.shape)}")
    if count and not bool((tensor.isfinite() & (tensor >= 0)).all() and tensor.any()):
        raise ValueError("weights: expected finite numbers of at least 0, not all of them 0")
    return tensor.contiguous()


def _check_finite(inputs: Inputs, start: int) -> None:
    for _, tensor in tensors_of(inputs):
        _check_finite_tensor(tensor, start)


def _check_finite_tensor(inputs: Tensor, start: int) -> None:
    # Part by part: isfinite() of everything at once would need a mask as large as the data set.
    if not inputs.is_floating_point() or inputs.is_meta:
        return
    for i, part in enumerate(inputs.split(4096)):
        finite = part.flatten(1).isfinite().all(1) if part.dim() > 1 else part.isfinite()
        if not bool(finite.all()):
            first = start + i * 4096 + int((~finite).nonzero()[0, 0])
            raise ValueError(f"inputs: expected finite numbers, sample {first} has NaN or infinity")
