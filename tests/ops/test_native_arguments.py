"""Arguments of the compiled core that do not fit: refused, and the message names what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_arguments import lowrank, mutate, odd_address, score_tail, tail

from rledit import _native


@pytest.mark.parametrize(
    "kind", ["float64", "odd address", "fortran", "one column less", "one dimension more"]
)
@pytest.mark.parametrize("name", ["activations", "weights", "labels", "groups", "lefts", "rights", "biases"])
def test_an_array_that_does_not_fit_is_refused(name: str, kind: str) -> None:
    if kind == "odd address" and name == "groups":
        kind = "float64"  # bytes have no odd address
    with pytest.raises((TypeError, ValueError)):
        score_tail(**mutate(tail(), name, 0, kind))


def test_what_is_wrong_is_named() -> None:
    def message(**changes: Any) -> str:
        with pytest.raises(ValueError, match=r".+") as error:
            score_tail(**tail() | changes)
        return str(error.value)

    assert message(world="w") == "world: expected 'shift' or 'mask', got 'w'"
    assert message(precision="p") == "precision: expected 'float32' or 'bfloat16', got 'p'"
    assert "wanted: expected correct, predicted" in message(wanted=["x"])
    assert "nonlinearity: expected identity, relu" in message(nonlinearities=["x", "relu"])
    assert "labels: expected values in 0..4, got 9" in message(labels=np.full(700, 9))
    assert "labels: expected values in 0..4, got -1" in message(labels=np.full(700, -1))
    assert "at most 64, got 65" in message(groups=np.ones((65, 700), dtype=bool))
    assert message(candidates=12).startswith("lefts[0]: expected shape [12, 18, any], got [13, 18, 3]")
    assert "candidates: expected 1 without factors" in message(lefts=[None] * 2, rights=[None] * 2)
    assert "has only one of its two factors" in message(lefts=[None] * 2)
    fit = np.arange(700) % 2 == 0
    assert message(fit=fit[:-1]) == "fit: expected shape [700], got [699]"
    assert message(fit=fit & False) == "fit: expected at least one of 700 samples to learn from, got none"
    assert "ridge: expected a positive number" in message(fit=fit, ridge=np.nan)
    assert "recalled needs a probe of features, got none" in message(wanted=["recalled"])
    assert "aligned" in message(labels=odd_address(tail()["labels"]))
    frozen = lowrank()
    frozen["weight"].flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        _native.apply_lowrank_(**frozen)
    for threads in (0, -1, 1025):
        with pytest.raises(ValueError, match=f"threads: expected 1..1024, got {threads}"):
            _native.set_num_threads(threads)
