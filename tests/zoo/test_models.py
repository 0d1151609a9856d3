"""rledit.zoo.models: shapes, names, tracing, and the published weights on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from rledit.zoo.data import load
from rledit.zoo.models import NAMES, MnistCNN, ResNetCIFAR, build, normalize
from rledit.zoo.models.resnet_cifar import BasicBlock
from rledit.zoo.training import accuracy


def test_build_knows_every_name() -> None:
    for name in NAMES:
        model = build(name)
        shape = (2, 1, 28, 28) if name == "mnist_cnn" else (2, 3, 32, 32)
        assert model(torch.zeros(shape)).shape == (2, 10)
    with pytest.raises(
        ValueError, match="expected one of mnist_cnn, resnet20, resnet32, resnet44, got 'vgg'"
    ):
        build("vgg")


def test_mnist_cnn_has_the_papers_layer() -> None:
    model = MnistCNN()
    assert model.fc1.weight.shape == (32, 128)
    assert model.fc2.weight.shape == (10, 32)
    images = torch.rand(3, 1, 28, 28)
    features = model.features(images)
    assert features.shape == (3, 128)
    assert torch.equal(model.fc2(F.relu(model.fc1(features))), model(images))
    assert sum(parameter.numel() for parameter in model.parameters()) == 26_954


@pytest.mark.parametrize("name", NAMES)
def test_networks_can_be_traced(name: str) -> None:
    model = build(name).eval()
    images = torch.rand((2, 1, 28, 28) if name == "mnist_cnn" else (2, 3, 32, 32))
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(images), model(images))


@pytest.mark.parametrize("depth", [20, 32, 44])
def test_resnet_has_as_many_weighted_layers_as_its_depth_says(depth: int) -> None:
    layers = [m for m in ResNetCIFAR(depth).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth


def test_resnet_shortcut_subsamples_and_pads() -> None:
    block = BasicBlock(in_channels=16, channels=32, stride=2)
    x = torch.rand(1, 16, 4, 4)
    out = block.shortcut(x)
    assert out.shape == (1, 32, 2, 2)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_resnet_rejects() -> None:
    for depth in (0, 2, 18, 21):
        with pytest.raises(ValueError, match=f"depth: expected 6n \\+ 2 .*got {depth}"):
            ResNetCIFAR(depth)
    with pytest.raises(ValueError, match="classes: expected at least 1, got 0"):
        ResNetCIFAR(20, classes=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "published", "images"),
    [
        (20, 0.917, 500),
        pytest.param(32, 0.926, 500, marks=pytest.mark.exhaustive),
        pytest.param(44, 0.931, 500, marks=pytest.mark.exhaustive),
    ],
)
def test_published_weights_reach_their_accuracy(
    depth: int, published: float, images: int, shared_data: Path
) -> None:
    model = build(f"resnet{depth}")
    model.load_state_dict(load_file(shared_data / "models" / f"cifar10_resnet{depth}.safetensors"))
    test = load("cifar10", shared_data, download=False).test.subset(torch.arange(images))
    measured = accuracy(model, normalize("cifar10", test.images), test.labels, batch_size=250)
    three_deviations = 3 * (published * (1 - published) / images) ** 0.5
    assert measured == pytest.approx(published, abs=three_deviations)


def test_normalize() -> None:
    gray = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    expected = (torch.tensor([0.0, 0.2, 1.0]) - 0.1307) / 0.3081
    for name in ("mnist", "mnist5k"):
        out = normalize(name, gray)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out.flatten(), expected)
    color = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(normalize("cifar10", color)[1, :, 2, 3], expected)
    assert int(color.min()) == 255  # the input is left alone


def test_normalize_rejects() -> None:
    gray = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="dataset_name: expected one of mnist, mnist5k, cifar10, got 'svhn'"):
        normalize("svhn", gray)
    with pytest.raises(TypeError, match="images: expected dtype uint8"):
        normalize("mnist", gray.float())
    for name, images in (("cifar10", gray), ("mnist", gray[0])):
        with pytest.raises(ValueError, match="images: expected shape"):
            normalize(name, images)
