"""rledit's own rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from blob_problems import make_problem

import rledit
from rledit.methods import METHODS, Budget, edit_method, rledit_shift

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_edit_makes_the_model() -> None:
    problem, _ = make_problem()
    result = rledit_shift(problem, Budget(candidates=200), 1)
    assert 256 < result.evaluations < 300  # whole batches, and some on the validation split
    assert result.edit is not None
    assert result.edit.world == "shift"
    assert result.edit.rank == 4
    edited = result.edit.apply_to_state_dict(problem.model.state_dict())
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, edited[name])


def test_another_search_is_added_by_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rledit.methods.base.METHODS", table := dict(METHODS))
    made: list[tuple[Any, int]] = []

    def search(env: Any, seed: int) -> rledit.Search:
        made.append((env, seed))
        return rledit.PPO(env, seed=seed, policy="parameters")

    edit_method("other-mask", "other, mask", "mask", search)
    problem, _ = make_problem()
    result = table["other-mask"](problem, Budget(candidates=128), 7)
    assert [seed for _, seed in made] == [7]
    assert result.settings["world"] == "mask"
    assert table["other-mask"].title == "other, mask"
    with pytest.raises(ValueError, match="'other-mask' is taken"):
        edit_method("other-mask", "", "mask", search)
