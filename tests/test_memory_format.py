"""Weights of convolutions channels last for a while."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from rledit.memory_format import channels_last, contiguous_, lay_out_
from rledit.zoo import models


class Viewed(nn.Module):
    """Calls view on what a convolution made, as much code does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 36, 2)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(images).view(len(images), -1))
        return out


def is_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last)


def test_weights_lie_channels_last_inside_and_where_they_were_afterwards() -> None:
    model = models.build("resnet20").eval()
    images = torch.randn(5, 3, 32, 32)
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(images)
        with channels_last(model, images):
            assert is_last(model.conv1.weight)
            assert is_last(model.layer1[0].conv1(torch.randn(2, 16, 8, 8)))
            found = model(images)
    torch.testing.assert_close(found, expected)
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert tensor.is_contiguous()
        assert torch.equal(tensor, before[name][1])


def test_what_is_trained_inside_is_kept_in_the_same_place() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    images = torch.randn(8, 3, 6, 6)
    model(images)
    weight = model[0].weight
    place, start = weight.data_ptr(), weight.detach().clone()
    with channels_last(model, images):
        optimizer = torch.optim.AdamW(model.parameters())
        model(images).square().sum().backward()
        optimizer.step()
        inside = weight.detach().clone()
    assert weight.data_ptr() == place
    assert weight.is_contiguous()
    assert torch.equal(weight, inside)
    assert not torch.equal(weight, start)


def test_an_error_inside_puts_weights_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    place = model[0].weight.data_ptr()
    with pytest.raises(KeyboardInterrupt), channels_last(model, torch.randn(2, 3, 6, 6)):
        raise KeyboardInterrupt
    assert model[0].weight.data_ptr() == place


def test_a_model_that_cannot_do_with_it_is_left_alone() -> None:
    model = Viewed().train()
    images = torch.randn(4, 3, 8, 8)
    with channels_last(model, images):
        assert model.conv.weight.is_contiguous()
        assert model.training
        model(images)


def test_a_weight_in_two_places_is_laid_out_once() -> None:
    first, second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    with channels_last(model, torch.randn(2, 4, 6, 6)):
        assert is_last(first.weight)
    assert second.weight is first.weight
    assert first.weight.is_contiguous()


def test_inside_inference_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with torch.inference_mode(), channels_last(model, torch.randn(2, 3, 6, 6)):
        assert is_last(model[0].weight)
    assert not model[0].weight.is_inference()
    model(torch.randn(2, 3, 6, 6)).sum().backward()


def test_weights_made_in_inference_mode_are_left_alone() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with channels_last(model, torch.randn(2, 3, 6, 6)):
        assert model[0].weight.is_contiguous()


def test_two_threads_leave_the_weights_where_they_were() -> None:
    model = models.build("resnet20").eval()
    images = torch.randn(2, 3, 32, 32)
    places = [weight.data_ptr() for weight in model.parameters()]

    def use() -> None:
        for _ in range(3):
            with channels_last(model, images), torch.no_grad():
                model(images)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [weight.data_ptr() for weight in model.parameters()] == places


def test_for_good_and_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    images = torch.randn(2, 3, 6, 6)
    assert len(lay_out_(model, images)) == 1
    assert is_last(model[0].weight)
    contiguous_(model)
    assert model[0].weight.is_contiguous()


@pytest.mark.parametrize("inputs", [torch.randn(2, 5), torch.randn(2, 3, 4)], ids=["rows", "tokens"])
def test_without_images_nothing_happens(inputs: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert lay_out_(model, inputs) == []
