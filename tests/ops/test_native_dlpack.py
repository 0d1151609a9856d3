"""DLPack capsules of the wrong kind are refused by their name, before anything is read from them."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import pytest
import torch
from gpu_backends import DEVICE, cuda_on_host
from torch.utils.dlpack import from_dlpack, to_dlpack

# PyCapsule_New keeps the name's address, so it must live on.
NAMES = {name: ctypes.create_string_buffer(name.encode()) for name in ("dltensor_versioned", "other")}


def capsule_to_nowhere(name: str | None) -> Any:
    """Whoever follows its pointer crashes."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    return new(8, None if name is None else ctypes.addressof(NAMES[name]), None)


def consumed_capsule() -> Any:
    capsule = to_dlpack(torch.zeros(2, 2))
    from_dlpack(capsule)
    return capsule


WRONG = {
    "one named 'used_dltensor'": consumed_capsule,
    "one named 'dltensor_versioned'": lambda: capsule_to_nowhere("dltensor_versioned"),
    "one named 'other'": lambda: capsule_to_nowhere("other"),
    "one without a name": lambda: capsule_to_nowhere(None),
}


@pytest.fixture(scope="module")
def cuda() -> ModuleType:
    if DEVICE == "cuda":
        pytest.skip("the bindings over the shim are for machines without a GPU")
    return cuda_on_host()


@pytest.mark.parametrize("got", WRONG)
@pytest.mark.parametrize("name", ["activations", "weights[0]"])
def test_the_name_is_looked_at_first(cuda: ModuleType, name: str, got: str) -> None:
    layer, labels = to_dlpack(torch.zeros(2, 3)), to_dlpack(torch.zeros(4, dtype=torch.int64))
    arguments: dict[str, Any] = {"activations": to_dlpack(torch.zeros(4, 3)), "weights": [layer]}
    wrong = WRONG[got]()
    arguments[name.split("[")[0]] = [wrong] if "[" in name else wrong
    with pytest.raises(TypeError, match=r".+") as error:
        cuda.score_tail(
            **arguments, biases=[None], nonlinearities=["identity"], labels=labels, members=labels, groups=1,
            lefts=[None], rights=[None], candidates=1, world="shift", scale=1.0, precision="float32",
            correct=None, predicted=None, confusion=None, histogram=None, loss=None, bins=1,
            margin_limit=1.0, scratch=layer, stream=0,
        )  # fmt: skip
    expected = "expected a DLPack capsule named 'dltensor' that nobody has consumed, got "
    assert str(error.value) == f"{name}: {expected}{got}"
