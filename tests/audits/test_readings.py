"""One pass gives logits, features and what layers make."""

from __future__ import annotations

import pytest
import torch
from audit_cases import audit_data, network
from torch import nn

from rledit.audits.readings import read, selected


def test_a_pass_gives_all_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(5, 2)).train()
    inputs = torch.randn(7, 3)
    reading = read(model, inputs, ["0"], batch_size=3)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    hidden = model[0](inputs).detach()
    torch.testing.assert_close(reading.features("0"), hidden.double())  # before the ReLU, in place as it is
    torch.testing.assert_close(reading.features(), hidden.relu().double())
    torch.testing.assert_close(reading.logits, model.eval()(inputs).detach().double())


def test_images_and_sequences_are_averaged() -> None:
    convolution = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2 * 64, 3))
    images = torch.randn(4, 1, 8, 8)
    made = read(convolution, images, ["0"]).features("0")
    assert made.shape == (4, 2 * 4 * 4)
    patches = convolution[0](images)[:, :, :2, :2].mean((2, 3))
    torch.testing.assert_close(made.view(4, 2, 4, 4)[:, :, 0, 0], patches.double())

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.each(x).mean(1))
            return logits

    assert read(Tokens(), torch.randn(6, 9, 3), ["each"]).features("each").shape == (6, 5)


def test_a_model_without_a_head_has_logits_all_the_same() -> None:
    reading = read(nn.Flatten(), torch.eye(3))
    assert reading.predicted.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"expected an nn\.Linear"):
        reading.features()


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(ValueError, match="no module called 'fc9'"):
        read(network(), torch.eye(3), ["fc9"])
    with pytest.raises(ValueError, match="at least one sample"):
        read(network(), torch.zeros(0, 3))
    broken = network()
    with torch.no_grad():
        broken[0].bias[0] = torch.nan
    with pytest.raises(ValueError, match="what 0 makes is not finite"):
        read(broken, torch.eye(3), ["0"]).features("0")


def test_a_part_of_samples_keeps_its_order() -> None:
    samples = audit_data(30).test
    mask = samples.labels == 2
    whole = torch.cat(list(samples.batches()))
    assert torch.equal(selected(samples, mask, batch_size=4), whole[mask])
