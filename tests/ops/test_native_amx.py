"""On AMX float32 is multiplied as on the instruction set below it, unless somebody asks for split values.

Most of this needs a CPU with AMX, or a build with emulated tiles as tests/native/sanitize.sh makes one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_arguments import ALGEBRAS, assert_bits, for_scoring, prepare, tail
from programs import run

from rledit import _native

# Who multiplies float32 for whom.
BELOW = {"amx": "avx512", "amx_emulated": "portable"}
AMX = [isa for isa in _native.available_isas() if isa in BELOW]
VARIABLE = "RLEDIT_AMX_FLOAT32"

SHAPES = [
    {"samples": 130, "candidates": 3},
    {"samples": 130, "candidates": 3, "hidden": 2, "rank": 1},
    {"samples": 130, "candidates": 3, "inputs": 300, "rank": 20},
    {"samples": 130, "candidates": 3, "inputs": 300, "words": 4},
    {"samples": 130, "candidates": 3, "own": True},
]


@pytest.fixture(autouse=True)
def _unset(keep_native_state: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def counts(isa: str, arguments: dict[str, Any], algebra: str = "automatic") -> tuple[np.ndarray, ...]:
    _native.select_isa(isa)
    return prepare(arguments).score(**for_scoring(arguments), algebra=algebra)


@pytest.mark.parametrize("isa", AMX)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float32_has_the_bits_of_multiply_adds(shape: dict[str, Any], world: str, isa: str) -> None:
    arguments = tail(**shape) | {"world": world}
    for algebra in ALGEBRAS:
        assert_bits(counts(isa, arguments, algebra), counts(BELOW[isa], arguments, algebra))


@pytest.mark.parametrize("isa", AMX)
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_split_values_are_for_those_who_ask(world: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = tail(samples=130, candidates=3, inputs=300) | {"world": world, "wanted": ["loss"]}
    loss = counts(isa, arguments)[3]
    monkeypatch.setenv(VARIABLE, "1")
    split = counts(isa, arguments)[3]
    assert not np.array_equal(split, loss)
    np.testing.assert_allclose(split, loss, rtol=1e-3)
    monkeypatch.setenv(VARIABLE, "0")
    np.testing.assert_array_equal(counts(isa, arguments)[3], loss)


@pytest.mark.parametrize("isa", AMX)
def test_bfloat16_keeps_its_tiles(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = tail(samples=130, candidates=3, inputs=300) | {"precision": "bfloat16"}
    tiles = counts(isa, arguments)
    packed = prepare(arguments).bytes
    _native.select_isa(BELOW[isa])
    activations = arguments["activations"]
    assert prepare(arguments).bytes - packed > 1.5 * activations.size  # two bytes each instead of four
    monkeypatch.setenv(VARIABLE, "1")
    assert_bits(counts(isa, arguments), tiles)


def test_what_the_variable_must_not_say_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _native.active_isa()
    for wrong in ("yes", "2", " 1"):
        monkeypatch.setenv(VARIABLE, wrong)
        for isa in _native.available_isas():
            with pytest.raises(ValueError, match=f"RLEDIT_AMX_FLOAT32: expected 0 or 1, got '{wrong}'"):
                _native.select_isa(isa)
        assert _native.active_isa() == before
    monkeypatch.delenv(VARIABLE)  # before the state is put back


def test_what_the_variable_must_not_say_is_an_error_at_import() -> None:
    done = run("import rledit", variables={VARIABLE: "on"})
    assert "RLEDIT_AMX_FLOAT32: expected 0 or 1, got 'on'" in done.stderr.splitlines()[-1]
