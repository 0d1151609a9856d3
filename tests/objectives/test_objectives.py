"""What an objective must have, what it gets, and what becomes of one that lacks something."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rledit
from rledit.objectives import Debias, Function, Objective, Unlearning, as_objective
from rledit.objectives.base import admissible_of, check_finite, name_of, values_of
from rledit.tally import Tally

INPUTS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3
SAMPLES = rledit.Samples(INPUTS, LABELS, rledit.forget_groups(LABELS, 1))


def make_task(objective: Any) -> rledit.Task:
    torch.manual_seed(0)
    return rledit.Task(nn.Sequential(nn.Linear(4, 3)), ["0"], SAMPLES, objective)


def count(objective: Any, candidates: int = 2) -> Tally:
    factors = (torch.zeros(candidates, 3, 1), torch.ones(candidates, 1, 4))
    return make_task(objective).scorer().score({"0": factors})


class Least(Objective):
    """Only what must be written."""

    def __call__(self, tally: Tally) -> Tensor:
        return tally.accuracy("retain")


class Careful(Objective):
    needs = frozenset({"correct", "loss"})

    def __call__(self, tally: Tally) -> Tensor:
        return tally.mean_loss("forget")

    def admissible(self, tally: Tally) -> Tensor:
        return tally.accuracy("retain") >= 0.0


class Relative(Objective):
    def __init__(self, before: float | None = None) -> None:
        self.before = before

    def __call__(self, tally: Tally) -> Tensor:
        assert self.before is not None
        return tally.accuracy("retain") - self.before

    def relative_to(self, unedited: Tally) -> Relative:
        return Relative(float(unedited.accuracy("retain")[0]))


class Old:
    """Version 0.1's protocol, whole."""

    needs = frozenset({"correct", "loss"})

    def check(self, samples: rledit.Samples) -> None:
        if "retain" not in samples.groups:
            raise ValueError("no retain")

    def __call__(self, tally: Tally) -> Tensor:
        return tally.mean_loss("forget")

    def metrics(self, tally: Tally) -> dict[str, Tensor]:
        return {"loss": tally.mean_loss("forget")}


class OldWithMore(Old):
    before = 0.0

    def admissible(self, tally: Tally) -> Tensor:
        return tally.accuracy("retain") >= self.before

    def relative_to(self, unedited: Tally) -> OldWithMore:
        other = OldWithMore()
        other.before = float(unedited.accuracy("retain")[0])
        return other

    def compared_groups(self, groups: tuple[str, ...]) -> list[str]:
        return ["retain"]


def test_defaults() -> None:
    objective = Least()
    tally = count(objective)
    assert objective.needs == {"correct"}
    assert objective.check(SAMPLES) is None  # type: ignore[func-returns-value]
    assert set(objective.metrics(tally)) == {"forget_accuracy", "retain_accuracy"}
    assert objective.admissible(tally) is None
    assert not objective.constrained
    assert objective.relative_to(tally) is objective
    assert not objective.needs_unedited
    assert objective.compared_groups(("a", "b")) == ("a", "b")
    assert name_of(objective) == "Least"
    assert as_objective(objective) is objective


def test_what_is_overridden_is_used() -> None:
    careful = make_task(Careful()).objective
    assert careful.constrained
    assert not careful.needs_unedited
    scorer = make_task(Relative()).scorer()
    assert float(scorer.objective(scorer.score({}))[0]) == 0.0
    assert Debias().constrained
    assert Debias().needs_unedited
    assert not Unlearning().constrained
    assert set(Careful().metrics(count(Careful()))) == {"forget_accuracy", "retain_accuracy"}


def test_attributes_of_an_own_objective_are_its_own() -> None:
    @dataclass
    class Own(Least):
        name: str
        relative: bool = True

    assert as_objective(Own("mine")).identity()["settings"] == {"name": "mine", "relative": True}


def test_only_the_value_must_be_written() -> None:
    class Nothing(Objective):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]


@pytest.mark.filterwarnings("ignore:.*not derived from:DeprecationWarning")
def test_objectives_of_version_0_1_still_work_whole() -> None:
    with pytest.warns(DeprecationWarning, match=r"write class Old\(rledit.Objective\)"):
        plain = as_objective(Old())  # type: ignore[arg-type]
    tally = count(Careful())
    assert plain.needs == {"correct", "loss"}
    assert name_of(plain) == "Old"
    assert plain.metrics(tally)["loss"].tolist() == plain(tally).tolist()
    assert not plain.constrained
    assert plain.admissible(tally) is None
    assert plain.relative_to(tally) is plain
    assert plain.compared_groups(("a",)) == ("a",)
    with pytest.raises(ValueError, match="no retain"):
        plain.check(rledit.Samples(INPUTS, LABELS, {"a": LABELS > 0}))
    more = make_task(OldWithMore()).scorer().objective
    assert more.constrained
    kept = more.admissible(tally)
    assert kept is not None
    assert kept.all()
    assert more.compared_groups(("forget", "retain")) == ("retain",)
    assert more.identity() != plain.identity()


def test_the_adapter_and_the_base_class_warn_once_or_never() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for objective in (Least(), Careful(), Unlearning(), Debias(), lambda t: t.accuracy("retain")):
            as_objective(objective)
    with pytest.warns(DeprecationWarning, match="OldWithMore") as caught:
        make_task(OldWithMore()).scorer()
    assert len(caught) == 1


def without(*names: str) -> type:
    return type("Partial", (), {k: v for k, v in vars(OldWithMore).items() if k not in names} | {
        k: v for k, v in vars(Old).items() if k not in names and not k.startswith("__d")
    })  # fmt: skip


@pytest.mark.parametrize("missing", ["needs", "check", "__call__", "metrics"])
def test_a_partial_objective_is_refused_with_what_is_missing(missing: str) -> None:
    with pytest.raises(TypeError, match=rf"Partial has .* but lacks {missing}; derive it from"):
        make_task(without(missing)())


def test_a_function_with_needs_as_attribute_is_not_half_understood() -> None:
    def loss(tally: Tally) -> Tensor:
        return -tally.mean_loss("retain")

    loss.needs = {"loss"}  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"rledit\.Function\(function, needs="):
        make_task(loss)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Unlearning, r"got the class; write Unlearning\(\)"),
        (Least, r"got the class; write Least\(\)"),
        (3.0, "expected an objective or a function of a tally, got float"),
        (None, "expected an objective or a function of a tally, got NoneType"),
    ],
)
def test_what_is_no_objective_is_named(objective: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        as_objective(objective)


@pytest.mark.parametrize("needs", ["loss", None, 3, ["correct", "speed"], {"Loss"}])
def test_unknown_needs_are_refused_when_the_task_is_made(needs: Any) -> None:
    objective = Least()
    objective.needs = needs
    with pytest.raises((TypeError, ValueError), match=r"Least\.needs: expected some of correct, .*; got"):
        make_task(objective)


def test_functions() -> None:
    objective = Function(lambda t: -t.mean_loss("retain"), needs=["loss"])
    tally = count(objective)
    assert objective(tally).shape == (2,)
    assert objective(tally).dtype == torch.float64
    assert objective.metrics(tally) == {}
    plain = make_task(lambda t: t.accuracy("retain")).objective
    assert set(plain.metrics(tally)) == {"forget_accuracy", "retain_accuracy"}
    assert repr(objective).endswith("needs=['loss'])")
    with pytest.raises(ValueError, match=r"expected some of correct, .*got speed"):
        Function(lambda t: 0, needs=["speed"])
    with pytest.raises(TypeError, match="function: expected a function of a tally, got int"):
        Function(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        [1.0, 2.0],
        np.array([1, 2]),
        torch.tensor([1, 2]),
        torch.tensor([1.0, 2.0], dtype=torch.float16),
        torch.tensor([1.0, 2.0], requires_grad=True),
    ],
)
def test_numbers_of_any_kind_are_values(given: Any) -> None:
    values = Function(lambda _: given)(count(Least()))
    assert values.dtype == torch.float64
    assert not values.requires_grad
    assert values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, TypeError, "expected Bad to give a tensor of 2 values, one per candidate; got NoneType"),
        ("ab", TypeError, "expected Bad to give a tensor of 2 values, one per candidate; got str"),
        ({"a": 1.0}, TypeError, "got dict"),
        (0.5, ValueError, r"expected Bad to give one value per candidate, shape \[2\], got \[\]"),
        (torch.zeros(3), ValueError, r"shape \[2\], got \[3\]"),
        (torch.zeros(2, 1), ValueError, r"shape \[2\], got \[2, 1\]"),
        (torch.zeros(2, dtype=torch.complex64), TypeError, "expected Bad to give real numbers"),
    ],
)
def test_what_an_objective_must_not_give_is_said_with_its_name(
    given: Any, error: type[Exception], message: str
) -> None:
    class Bad(Objective):
        def __call__(self, tally: Tally) -> Tensor:
            return given  # type: ignore[no-any-return]

    with pytest.raises(error, match=message):
        values_of(Bad(), count(Least()))
    with pytest.raises(error, match="objective: expected Bad to give"):
        rledit.MaskWorld(make_task(Bad()), num_envs=2, rank=1)


def test_values_that_are_not_finite_are_said_with_the_objectives_name() -> None:
    with pytest.raises(ValueError, match="expected Least to give finite values, got nan for candidate 1"):
        check_finite(torch.tensor([0.0, float("nan")]), Least())

    def undefined(tally: Tally) -> Tensor:
        return tally.accuracy("retain") / 0.0

    with pytest.raises(ValueError, match=r"expected .*undefined to give finite values, got inf"):
        rledit.MaskWorld(make_task(undefined), num_envs=2, rank=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.ones(2), "to give bool, got torch.float32"),
        (True, "to give bool, got bool"),
        (torch.ones(3) > 0, r"to give one value per candidate, shape \[2\], got \[3\]"),
    ],
)
def test_a_constraint_that_is_none_is_said(given: Any, message: str) -> None:
    class Bad(Least):
        def admissible(self, tally: Tally) -> Tensor:
            return given  # type: ignore[no-any-return]

    with pytest.raises((TypeError, ValueError), match=rf"admissible\(\) of Bad {message}"):
        admissible_of(Bad(), count(Least()))


def test_unlearning() -> None:
    tally = count(Least())
    objective = Unlearning(forget_weight=2.0)
    by_hand = tally.accuracy("retain") - 2.0 * tally.accuracy("forget")
    torch.testing.assert_close(objective(tally), by_hand, rtol=0, atol=0)
    assert set(objective.metrics(tally)) == {"forget_accuracy", "retain_accuracy"}
    with pytest.raises(ValueError, match="Unlearning needs a group 'x'; the samples have forget, retain"):
        make_task(Unlearning("x"))
    with pytest.raises(ValueError, match="retain_weight: expected a finite number, got nan"):
        Unlearning(retain_weight=float("nan"))


# ------------------------------------------------------------------------------------------- identity

LIMIT = 0.5


def reads_a_global(tally: Tally) -> Tensor:
    return tally.accuracy("retain") - LIMIT


def closed_over(value: Any) -> Callable[[Tally], Tensor]:
    return lambda tally: tally.accuracy("retain") - value


@dataclass(frozen=True)
class Weighed(Objective):
    weight: float = 1.0
    parts: tuple[Any, ...] = ()

    def __call__(self, tally: Tally) -> Tensor:
        return self.weight * tally.accuracy("retain")


def told_apart(one: Any, other: Any) -> bool:
    return as_objective(one).identity() != as_objective(other).identity()


def test_the_same_objective_made_again_is_the_same() -> None:
    for make in (
        Unlearning,
        Debias,
        Least,
        lambda: Weighed(0.5),
        lambda: closed_over(0.5),
        lambda: closed_over(torch.arange(3)),
        lambda: closed_over({"b": 1, "a": {2, 3}}),
        lambda: lambda tally: tally.accuracy("retain") if tally.groups in {("x",), ("y",)} else 0,
    ):
        assert not told_apart(make(), make())


def test_settings_count() -> None:
    assert told_apart(Unlearning(), Unlearning(forget_weight=2.0))
    assert told_apart(Debias(), Debias(budget=0.1))
    assert told_apart(Debias(bias={"fped": 1.0}), Debias(bias={"fped": 2.0}))
    assert told_apart(Unlearning(), Least())
    assert told_apart(Weighed(1.0), Weighed(float("inf")))
    assert told_apart(Weighed(parts=(Least(),)), Weighed(parts=(Careful(),)))
    assert told_apart(Relative(), Relative(0.5))


def test_the_start_of_a_relative_objective_does_not_count() -> None:
    before = {"utility_auc": 0.9}
    assert not told_apart(Debias(), Debias(before=before))


def test_code_counts_where_names_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (lambda t: t.accuracy("retain")), (lambda t: t.accuracy("forget"))
    assert told_apart(first, second)
    assert told_apart(lambda t: 1.0 * t.accuracy("a"), lambda t: 2.0 * t.accuracy("a"))
    assert told_apart(lambda t: t.accuracy("a"), lambda t: t.mean_loss("a"))
    assert told_apart(lambda t, w=1.0: w, lambda t, w=2.0: w)
    assert told_apart(lambda t, *, w=1.0: w, lambda t, *, w=2.0: w)
    assert told_apart(lambda t: [t.count[g] + 1 for g in t], lambda t: [t.count[g] + 2 for g in t])
    assert told_apart(closed_over(1.0), closed_over(2.0))
    assert told_apart(closed_over(torch.zeros(2)), closed_over(torch.ones(2)))
    assert told_apart(closed_over(np.zeros(2)), closed_over(np.ones(2)))
    assert told_apart(closed_over(closed_over(1.0)), closed_over(closed_over(2.0)))
    assert told_apart(first, Function(first, needs=["correct", "loss"]))
    before = as_objective(reads_a_global).identity()
    monkeypatch.setitem(reads_a_global.__globals__, "LIMIT", 0.75)
    assert as_objective(reads_a_global).identity() != before


def test_code_of_a_class_counts() -> None:
    def make(sign: int) -> Objective:
        class Own(Objective):
            factor = 1.0

            def __call__(self, tally: Tally) -> Tensor:
                return self.part(tally)

            if sign > 0:

                def part(self, tally: Tally) -> Tensor:
                    return tally.accuracy("retain")
            else:

                def part(self, tally: Tally) -> Tensor:
                    return tally.accuracy("forget")

        return Own()

    assert told_apart(make(1), make(-1))
    assert not told_apart(make(1), make(1))
    changed = make(1)
    type(changed).factor = 2.0  # type: ignore[attr-defined]
    assert told_apart(make(1), changed)


def test_what_changes_during_a_search_need_not_count() -> None:
    seen: list[int] = []

    def counting(tally: Tally) -> Tensor:
        seen.append(1)
        return tally.accuracy("retain")

    objective = as_objective(counting)
    before = objective.identity()
    objective(count(Least()))
    assert objective.identity() == before
    private = Least()
    private._cache = 1  # type: ignore[attr-defined]
    assert not told_apart(private, Least())


def test_identities_are_json_and_end() -> None:
    import json

    def recursive(tally: Tally, depth: int = 3) -> Any:
        return recursive(tally, depth - 1) if depth else tally.accuracy("retain")

    looped: list[Any] = [1]
    looped.append(looped)
    for value in (
        recursive,
        closed_over(looped),
        closed_over(nn.Linear(2, 2)),
        closed_over(json),
        closed_over(object()),
        closed_over(b"x"),
        closed_over(float("nan")),
        closed_over(np.float32(1.0)),
        closed_over(torch.empty(2, device="meta")),
        closed_over(torch.eye(2).to_sparse()),
        closed_over(Least().__call__),
    ):
        identity = as_objective(value).identity()
        assert json.loads(json.dumps(identity, allow_nan=False)) == identity
