"""A torch model whose weights are edited: its private copy, checked and cut at its targets."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..batch import Inputs, changed, rows_of, tensors_of
from ..heads import Head, find_head
from ..ops import Backend
from ..ops import Probe as FeatureProbe
from ..readouts import Readout
from ..runtime import plain_modes
from ..samples import Samples
from ..storage.fingerprint import fingerprint, fingerprints
from ..targets import Target, expanded, find_targets, matrices, unwrapped
from .called import as_called, without_caches
from .checking import MismatchError, Probe
from .collected import FeatureReader
from .copies import private_copy, twin_of
from .editable import Editable
from .evaluator import Evaluator
from .half_arithmetic import sees_half
from .halves import HALF, holds_half, widen, widen_layers
from .hooks import take_off_watchers
from .logits import unsound
from .network import CutNetwork, logits_of
from .tail import Tail, find_tail
from .tracing import Graphs, RowsError, TracingError, cut, first_line
from .ways import SuffixWay, TailWay, WholeWay, tail_logits

SHOWN_SAMPLES = 4
CHECKED_SAMPLES = 8
BATCH = 256


class _Features(NamedTuple):
    """What is counted of the features, and what reads them."""

    probe: FeatureProbe
    head: Head


class EditableModel(Editable):
    """A private copy of a model.

    Attributes:
        model: the copy, in eval mode; it computes in float32 where the original is in half precision.
        targets: the modules whose weights may be edited, by name.
        fingerprint: fingerprint of the original's target weights.
        network: how to run it for many candidates at once; None where it must be run whole.
        tail: what follows the cut, where the fused op can run it.

    Raises:
        TypeError, ValueError: see :class:`rledit.Task`.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Sequence[str],
        samples: Samples,
        *others: Samples,
        readout: Readout | None = None,
    ) -> None:
        """``samples``: a few of them show what the model takes and gives; ``others``: more splits that there
        will be evaluators of; ``readout``: from what it gives to logits, where that does not say it itself.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        model = unwrapped(model)
        targets = expanded(model, targets)
        originals = find_targets(model, targets)
        with plain_modes():
            own = private_copy(model, list(originals))
            self.fingerprint = fingerprint({name: target.weight for name, target in originals.items()})
            without_caches(own)
            self.targets = find_targets(own, targets)
            self.dtype = next(iter(self.targets.values())).weight.dtype
            self.device = next(iter(self.targets.values())).weight.device
            first = self.as_input(samples.head(CHECKED_SAMPLES))
            self.model = as_called(own, first[:SHOWN_SAMPLES], readout)
            if holds_half(self.model) and sees_half(self.model, first[:SHOWN_SAMPLES]):
                widen(self.model)
            take_off_watchers(self.model, lambda model: logits_of(model, first[:SHOWN_SAMPLES]))
            self.classes = logits_of(self.model, first[:SHOWN_SAMPLES]).shape[1]
            few = self._at_least(first, 3)
            # No second copy of the weights: the original's put right what the checks edit.
            probe = Probe(self.model, self.targets, few, source=originals)
            probe.check_model()
            probe.check_targets(lambda count: self.as_input(samples.head(count)))
            probe.check_uses()
            self._sizes = probe.sizes  # of the random edits that scorers check themselves with
            self._probes: list[Probe] = []
            self.network: CutNetwork | None = None
            self.tail: Tail | None = None
            reason = ""
            shown = few
            for graphs in get_args(Graphs):
                try:
                    if shown is few and graphs != "traced":
                        shown = self._most_masked(samples)
                    self.network, self.tail = self._cut(few, probe, shown, graphs)
                    break
                except MismatchError:
                    reason = "autocast inside forward" if probe.autocast else "its trace gives other logits"
                except TracingError as error:
                    reason = str(error)
            if self.network is not None:
                self._keep_probes(probe, originals, [samples, *others])
        if self.network is None:
            warnings.warn(_runs_whole(reason), stacklevel=3)

    # On the way to another process torch moves the tensors that it finds into shared memory, in place. But
    # scorers read those of the private copy where they lie, so it finds bytes.
    def __getstate__(self) -> bytes:
        return pickle.dumps(self.__dict__)

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(pickle.loads(state))

    def __deepcopy__(self, memo: dict[int, Any]) -> EditableModel:
        own = object.__new__(type(self))
        memo[id(self)] = own
        own.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return own

    def _keep_probes(self, probe: Probe, originals: Mapping[str, Target], splits: list[Samples]) -> None:
        """What the edited model says of each split's first samples, for the evaluators' checks: later no
        original puts right what they edit."""
        self._probes.append(probe.keep())
        for split in splits:
            try:
                few = self.as_input(split.head(CHECKED_SAMPLES))
                if not any(known.knows(few) for known in self._probes):
                    self._probes.append(Probe(self.model, self.targets, few, self._sizes, originals).keep())
            except Exception:  # of samples, or of the model on them: scoring them reports it
                continue

    def _probe(self, samples: Samples) -> Probe:
        few = self.as_input(samples.head(CHECKED_SAMPLES))
        for known in self._probes:
            if known.knows(few):
                return known
        return Probe(self.model, self.targets, few, self._sizes)

    def _most_masked(self, samples: Samples) -> Inputs:
        """At least 3 of the first samples, with the most zeros in their masks: a forward that leaves out
        a mask which masks nothing is to be recorded where it does not."""
        inputs = self.as_input(samples.head(BATCH))
        masked = torch.zeros(len(inputs), device=self.device)
        for name, tensor in tensors_of(inputs):
            if name and not tensor.is_floating_point() and bool(((tensor == 0) | (tensor == 1)).all()):
                masked += (tensor == 0).flatten(1).float().mean(1)
        order = torch.sort(masked, descending=True, stable=True).indices
        return self._at_least(rows_of(inputs, order[:CHECKED_SAMPLES]), 3)

    def _cut(
        self, inputs: Inputs, probe: Probe, shown: Inputs, graphs: Graphs
    ) -> tuple[CutNetwork, Tail | None]:
        """Raises TracingError or MismatchError where the model must be run whole."""
        parts = cut(self.model, list(self.targets), shown, graphs)
        try:
            network = CutNetwork(parts, inputs)
            cached, _ = network.prefix(inputs)  # whatever is read: the logits are compared anyway
            probe.check_population(lambda population: network.suffix(cached, population))
        except (TracingError, MismatchError):
            raise
        except Exception as error:  # any code may stand in a forward(), and fail in a graph in any way
            raise TracingError(first_line(error)) from error
        tail = find_tail(parts, cached[0])
        if tail is not None:
            widen_layers(tail.layers)  # the op takes them as they are
        return network, tail

    @staticmethod
    def _at_least(inputs: Inputs, count: int) -> Inputs:
        """The samples, again and again if there are fewer: tracing needs three to tell a batch size from a
        constant."""
        if len(inputs) >= count:
            return inputs
        return changed(inputs, lambda _, x: x.repeat(count, *([1] * (x.dim() - 1)))[:count])

    def as_input(self, inputs: Inputs) -> Inputs:
        """Inputs as the private copy takes them: on its device, half precision as float32."""
        return changed(inputs, self._as_input)

    def _as_input(self, name: str, inputs: Tensor) -> Tensor:
        if inputs.is_meta:
            raise ValueError("inputs: expected values, got a tensor on the meta device")
        inputs = inputs.to(self.device)
        if inputs.dtype in HALF:
            inputs = inputs.float()
        if inputs.is_floating_point() and inputs.dtype != self.dtype:
            what = f"inputs[{name!r}]" if name else "inputs"
            raise TypeError(f"{what}: expected the model's dtype {self.dtype}, got {inputs.dtype}")
        return inputs

    @cached_property
    def casts(self) -> dict[str, str]:
        """Fingerprints of the target weights in other precisions, by which an edit recognizes them there."""
        return fingerprints({name: target.weight for name, target in self.targets.items()})

    def weights(self) -> dict[str, Tensor]:
        return matrices(self.targets)

    @property
    def way(self) -> str:
        """How candidates run: "tail", "suffix" or "whole", see :mod:`rledit.scoring.ways`."""
        if self.network is None:
            return "whole"
        return "suffix" if self.tail is None else "tail"

    @torch.no_grad()
    def logits(self, weights: Mapping[str, Tensor], samples: Samples) -> Tensor:
        """Of the private copy, run from its inputs, batch by batch."""
        with plain_modes():
            twin = twin_of(self.model, views=[target.weight for target in self.targets.values()])
            for name, target in find_targets(twin, list(self.targets)).items():
                if name in weights:
                    target.weight.data = weights[name].to(target.weight).view(target.weight.shape)
            return torch.cat([logits_of(twin, self.as_input(batch)) for batch in samples.batches(BATCH)])

    # ------------------------------------------------------------------------------------ evaluators

    def evaluator(
        self, samples: Samples, backend: Backend, precision: str, probe: FeatureProbe | None = None
    ) -> Evaluator:
        """The evaluator of these samples: what does not depend on an edit is computed here and kept.

        Raises:
            ValueError: for a model that fails on these samples, or whose logits cannot be reproduced; for a
                probe where the head reads nothing that an edit can change.
        """
        with plain_modes():
            features = None if probe is None else _Features(probe, self.head(samples))
            try:
                if self.network is not None:
                    return self._cut_evaluator(self.network, samples, backend, precision, features)
            except RowsError as error:
                warnings.warn(_runs_whole(str(error)), stacklevel=4)
            return self._whole_evaluator(samples, backend, features)

    def head(self, samples: Samples) -> Head:
        """What reads the features; ValueError where no edit can change them."""
        head = find_head(self.model, self.as_input(samples.head(CHECKED_SAMPLES)))
        reaching = [name for name, target in self.targets.items() if target is not head.module]
        if not reaching:
            raise ValueError(
                f"objective: it needs probes of the features, and the head {head.name!r} is the only target: "
                "what it reads stays the same. Edit a layer before it"
            )
        return head

    def _reader(self, samples: Samples, backend: Backend, features: _Features | None) -> FeatureReader | None:
        if features is None:
            return None
        labels, masks = samples.labels.to(self.device), samples.masks.to(self.device)
        return FeatureReader(features.head, backend, labels, masks, self.classes, features.probe)

    def _cut_evaluator(
        self,
        network: CutNetwork,
        samples: Samples,
        backend: Backend,
        precision: str,
        features: _Features | None,
    ) -> Evaluator:
        cached = self.cached(network, samples)
        tail = self.tail
        few = tuple(value[:CHECKED_SAMPLES] for value in cached)
        probe = self._probe(samples)
        labels, masks = samples.labels.to(self.device), samples.masks.to(self.device)
        if tail is not None:
            probe.check_population(lambda population: tail_logits(tail, few[0], population))
            del probe  # its edited weights, before the layers are packed
            asked = None if features is None else features.probe
            return TailWay(tail, cached[0], labels, masks, backend, precision, asked)
        probe.check_population(lambda population: network.suffix(few, population))

        def otherwise(error: RowsError) -> Evaluator:
            warnings.warn(_runs_whole(str(error)), stacklevel=5)
            with plain_modes():
                return self._whole_evaluator(samples, backend, features)

        reader = self._reader(samples, backend, features)
        return SuffixWay(network, cached, labels, masks, backend, self.classes, otherwise, reader)

    def cached(self, network: CutNetwork, samples: Samples) -> tuple[Tensor, ...]:
        """Runs the prefix batch by batch; only what the suffix reads is kept.

        Raises:
            RowsError: see :meth:`CutNetwork.prefix`.
            ValueError: for samples that the network fails on.
        """
        cached: list[Tensor] = []
        start = 0
        for batch in samples.batches(BATCH):
            inputs = self.as_input(batch)
            values, as_read = network.prefix(inputs)
            if not as_read:
                self._check_unedited(network, inputs, values)
            if not all(value.isfinite().all() for value in values if value.is_floating_point()):
                self._check_logits(inputs, start)  # masks may hold -inf: what counts is what comes of them
            if not cached:
                cached = [_empty_rows(value, len(samples)) for value in values]
            for whole, value in zip(cached, values, strict=True):
                _check_shape(value, whole, start)
                whole[start : start + len(value)] = value
            start += len(batch)
            del batch, inputs, values  # before the next batch is read
        return tuple(cached)

    def _check_unedited(self, network: CutNetwork, inputs: Inputs, values: tuple[Tensor, ...]) -> None:
        """Raise RowsError unless these values give the model's own logits."""
        own = Probe(self.model, self.targets, inputs, self._sizes)
        try:
            own.check_population(lambda population: network.suffix(values, population))
        except MismatchError:
            raise RowsError(
                "forward reads a value before the targets that is not the same for all samples"
            ) from None

    def _check_logits(self, inputs: Inputs, start: int) -> None:
        logits = logits_of(self.model, inputs)
        bad = unsound(logits).any(1)
        if bool(bad.any()):
            sample = start + int(bad.nonzero()[0, 0])
            raise ValueError(f"inputs: the activations and logits of sample {sample} are not finite")

    def inputs(self, samples: Samples) -> Inputs:
        """All inputs of a split, on the private copy's device; ValueError if the network fails on them."""
        inputs: Inputs | None = None
        start = 0
        for batch in samples.batches(BATCH):
            values = self.as_input(batch)
            if inputs is None:
                inputs = changed(values, lambda _, tensor: _empty_rows(tensor, len(samples)))
                logits_of(self.model, values[:CHECKED_SAMPLES])  # or what it fails on
            for whole, value in zip(tensors_of(inputs), tensors_of(values), strict=True):
                _check_shape(value[1], whole[1], start)
                whole[1][start : start + len(batch)] = value[1]
            start += len(batch)
            del batch, values
        assert inputs is not None  # Samples has at least one
        return inputs

    def _whole_evaluator(self, samples: Samples, backend: Backend, features: _Features | None) -> Evaluator:
        inputs = self.inputs(samples)
        labels, masks = samples.labels.to(self.device), samples.masks.to(self.device)
        reader = self._reader(samples, backend, features)
        return WholeWay(self.model, self.targets, inputs, labels, masks, backend, self.classes, reader)


def _runs_whole(reason: str) -> str:
    return (
        f"the network cannot be traced ({reason}); nothing is cached and every candidate runs it whole, one "
        "after the other"
    )


def _check_shape(value: Tensor, whole: Tensor, start: int) -> None:
    if value.shape[1:] != whole.shape[1:]:
        raise ValueError(
            f"inputs: the values of samples {start}..{start + len(value) - 1} have shape "
            f"{list(value.shape)}, those of the samples before {[start, *whole.shape[1:]]}"
        )


def _empty_rows(like: Tensor, rows: int) -> Tensor:
    """[rows, ...] in the memory format of ``like``."""
    last = like.dim() == 4 and not like.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((rows, *like.shape[1:]), dtype=like.dtype, device=like.device, memory_format=layout)
