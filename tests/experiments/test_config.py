"""Which search a run's settings ask for."""

from __future__ import annotations

import pytest
from editing_tasks import make_task

import rledit
from rledit.experiments.config import SEARCHES, EditingConfig, make_trainer

NEEDS = {"sep-cma": "cmaes", "cma": "cmaes", "tpe": "optuna"}


@pytest.mark.parametrize("name", ["ppo", "parameters", *SEARCHES])
def test_every_search_can_be_asked_for(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    search = make_trainer(EditingConfig(search=name, num_envs=8, rank=2, seed=3), make_task())  # type: ignore[arg-type]
    assert isinstance(search, SEARCHES.get(name, rledit.PPO))
    assert search.seed == 3
    if isinstance(search, rledit.PPO):
        assert search.settings()["policy"] == ("gaussian" if name == "ppo" else name)
    search.update()
    search.close()


def test_an_unknown_search_is_refused() -> None:
    with pytest.raises(ValueError, match=r"search: expected one of ppo, parameters, es, .*; got 'sgd'"):
        EditingConfig(search="sgd")  # type: ignore[arg-type]


def test_folders_from_before_there_was_a_choice_can_be_resumed() -> None:
    assert "search" not in EditingConfig().asked()
    assert EditingConfig(search="es").asked()["search"] == "es"
