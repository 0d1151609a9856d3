"""What may be lost, by name; and that no useless classifier is worth more than doing nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import rledit
from rledit.objectives import METRICS, PER_GROUP, Debias, GroupMetrics
from rledit.objectives.budgets import LEVELS, WORST, canonical, checked, largest, levels, losses, parsed
from rledit.objectives.fairness import NEEDS
from rledit.objectives.metric_names import display, label, shown
from rledit.ops import tally_logits
from rledit.tally import LabelCount, Tally

GROUPS = 12
SIZE = 4_800


def tally_of(margins: Tensor, labels: Tensor, groups: dict[str, Tensor]) -> Tally:
    """Of margins [N, S]."""
    logits = torch.stack([torch.zeros_like(margins), margins], -1)
    counts = tally_logits(logits, labels, torch.stack(list(groups.values())), sorted(NEEDS), 512, 16.0)
    return Tally(counts, list(groups), LabelCount(labels, groups, 2))


# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("f1", "utility_f1"),
        ("auc", "utility_auc"),
        ("fnr", "false_negative_rate"),
        ("fnr.worst", "false_negative_rate.worst"),
        ("recall.worst", "recall.worst"),
        ("auc.worst", "subgroup_auc.worst"),
        ("bpsn_auc", "bpsn_auc"),
    ],
)
def test_names(name: str, full: str) -> None:
    assert canonical(name) == full
    assert canonical(full) == full


@pytest.mark.parametrize("name", ["", "x", "worst", ".worst", "fped.worst", "selection_rate.worst", "f1 "])
def test_unknown_names_are_told_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match=r"budgets: expected the name of a metric \(auc, .*fnr\.worst.*got"):
        canonical(name)


def test_what_the_command_line_says() -> None:
    assert parsed(["0.005"]) == (0.005, {})
    assert parsed(["f1=0.01", "0.002", "fnr.worst=inf"]) == (
        0.002,
        {"utility_f1": 0.01, "false_negative_rate.worst": math.inf},
    )
    assert parsed([]) == (None, {})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["x"], "budget: expected a number of at least 0, or NAME=NUMBER such as f1=0.01; got 'x'"),
        (["-1"], "expected a number of at least 0"),
        (["nan"], "expected a number of at least 0"),
        (["f1="], "expected a number of at least 0"),
        (["=1"], "expected a number of at least 0"),
        (["f1=-0.1"], "expected a number of at least 0"),
        (["0.1", "0.2"], "expected one number without a name, got 0.1 and 0.2"),
        (["f1=1", "utility_f1=2"], "expected one number for utility_f1, got several"),
        (["g1=1"], "budget: expected the name of a metric"),
    ],
)
def test_what_the_command_line_must_not_say(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(texts)


def test_two_names_of_one_budget() -> None:
    with pytest.raises(ValueError, match=r"one number for false_negative_rate\.worst, got several"):
        checked({"fnr.worst": 0.1, "false_negative_rate.worst": 0.2})
    for number in (-0.1, math.nan, "0.1", True):
        with pytest.raises(ValueError, match=r"budgets\['f1'\]: expected a number of at least 0"):
            checked({"f1": number})  # type: ignore[dict-item]


def test_budgets_have_names_for_people() -> None:
    assert label("false_negative_rate.worst") == "largest rise of a group's false negative rate"
    assert label("subgroup_auc.worst") == "largest fall of a group's subgroup AUC"
    assert shown("f1.worst", 0.01234) == "0.0123"
    assert display("accuracy.worst").percent


# --------------------------------------------------------------------------------------------- losses


def make_case(
    toxic: float, false_positives: float, false_negatives: float, spread: float, seed: int = 0
) -> dict[str, Any]:
    """A classifier that is decent on comments, and on the bias set errs about as often as said, by groups
    that differ: the higher a group's offset, the more of it is called toxic."""
    random = torch.Generator().manual_seed(seed)
    labels = (torch.rand(SIZE, generator=random) < toxic).long()
    in_bias = torch.arange(SIZE) >= SIZE // 2
    member = torch.randint(GROUPS, (SIZE,), generator=random)
    offset = spread * torch.linspace(-1, 1, GROUPS)[member] * in_bias
    noise = torch.randn(SIZE, generator=random)
    normal = torch.distributions.Normal(0.0, 1.0)
    harmless = normal.icdf(torch.tensor(false_positives))
    insulting = normal.icdf(torch.tensor(1 - false_negatives))
    margins = torch.where(in_bias, torch.where(labels == 1, insulting, harmless) + offset, 2.4 * labels - 1.2)
    margins = margins + noise
    groups = {"utility": ~in_bias, "bias": in_bias}
    groups |= {f"group {k}": in_bias & (member == k) for k in range(GROUPS)}
    return {
        "labels": labels, "margins": margins, "groups": groups, "offset": offset, "in_bias": in_bias,
        "noise": torch.randn(SIZE, generator=random),
    }  # fmt: skip


CASES = {
    "Civil Comments alone": make_case(0.7, 0.985, 0.02, 0.4),
    "25,000 posts": make_case(0.83, 0.41, 0.28, 1.0),
    "the default run": make_case(0.5, 0.24, 0.31, 1.0),
}
"""The three of which a run once told success."""


def inverted_on_the_bias_set(case: dict[str, Any]) -> Tensor:
    return torch.where(case["in_bias"], -case["margins"], case["margins"])


DEGENERATE: dict[str, Callable[[dict[str, Any]], Tensor]] = {
    "always": lambda case: torch.ones(SIZE),
    "never": lambda case: -torch.ones(SIZE),
    "always, in the same order": lambda case: case["margins"] + 15,
    "never, in the same order": lambda case: case["margins"] - 15,
    "always on the bias set": lambda case: case["margins"] + 15 * case["in_bias"],
    "never on the bias set": lambda case: case["margins"] - 15 * case["in_bias"],
    "one answer on the bias set": lambda case: torch.where(case["in_bias"], 1.0, case["margins"]),
    "at random": lambda case: case["noise"],
    "at random on the bias set": lambda case: torch.where(case["in_bias"], case["noise"], case["margins"]),
    "by group": lambda case: torch.where(case["in_bias"], case["offset"], case["margins"]),
    "inverted": lambda case: -case["margins"],
    "inverted on the bias set": inverted_on_the_bias_set,
}


@pytest.mark.parametrize("name", CASES)
def test_degenerate_classifiers_lose_against_doing_nothing(name: str) -> None:
    case = CASES[name]
    before = tally_of(case["margins"][None], case["labels"], case["groups"])
    metrics = GroupMetrics(before, [group for group in case["groups"] if group.startswith("group")])
    assert float(metrics["fped"][0]) + float(metrics["fned"][0]) > 0.2  # there is something to win
    objective = Debias().relative_to(before)
    made = torch.stack([make(case) for make in DEGENERATE.values()])
    tally = tally_of(made, case["labels"], case["groups"])
    values = dict(zip(DEGENERATE, objective(tally).tolist(), strict=True))
    assert max(values.values()) < 0, values
    assert not objective.admissible(tally).any()
    assert float(objective(before)[0]) == 0
    assert bool(objective.admissible(before).all())


def test_equality_of_error_alone_would_have_been_worth_something() -> None:
    """What the levels are for: without them always saying the same pays where nothing else is looked at."""
    case = CASES["Civil Comments alone"]
    before = tally_of(case["margins"][None], case["labels"], case["groups"])
    lax = Debias(budgets=dict.fromkeys(LEVELS, math.inf)).relative_to(before)
    made = DEGENERATE["always on the bias set"](case)[None]
    assert float(lax(tally_of(made, case["labels"], case["groups"]))[0]) > 0


def test_less_bias_at_nobodys_expense_is_worth_more_and_admissible() -> None:
    case = CASES["the default run"]
    before = tally_of(case["margins"][None], case["labels"], case["groups"])
    objective = Debias().relative_to(before)
    good = case["margins"] - case["offset"] + (3 * case["labels"] - 1.5) * case["in_bias"]
    tally = tally_of(good[None], case["labels"], case["groups"])
    assert float(objective(tally)[0]) > 0.1
    assert bool(objective.admissible(tally).all())
    spent = {name: float(lost) for name, lost in objective.spent(tally).items()}
    assert max(spent.values()) <= 0, spent


def test_losses_are_differences_in_the_direction_that_is_worse() -> None:
    case = CASES["25,000 posts"]
    margins = torch.stack([case["margins"], case["margins"] + 0.3, case["margins"] - case["offset"]])
    tally = tally_of(margins, case["labels"], case["groups"])
    names = [group for group in case["groups"] if group.startswith("group")]
    metrics = GroupMetrics(tally, names)
    lost = largest(losses("utility_f1", metrics, float(metrics["utility_f1"][0])))
    torch.testing.assert_close(lost, metrics["utility_f1"][0] - metrics["utility_f1"])
    lost = largest(losses("fped", metrics, float(metrics["fped"][0])))
    torch.testing.assert_close(lost, metrics["fped"] - metrics["fped"][0])
    for name in PER_GROUP:
        if name == "selection_rate":
            continue
        values = metrics.table(name)[1]
        sign = 1 if name.startswith("false") else -1
        worst = (sign * (values - values[:1])).amax(1)
        lost = losses(f"{name}{WORST}", metrics, values[0])
        torch.testing.assert_close(largest(lost), worst)
        assert float(worst[0]) == 0


def test_budgets_by_name_come_on_top_of_the_defaults() -> None:
    held = Debias(budget=0.01, budgets={"f1": 0.02, "fnr.worst": 0.05, "auc": 0.001}).held
    assert held == {
        "utility_auc": 0.001,
        "utility_accuracy": 0.01,
        "utility_f1": 0.02,
        "false_negative_rate.worst": 0.05,
        "false_positive_rate.worst": 0.02,
        "bias_balanced_accuracy": 0.0,
    }
    assert "bias_balanced_accuracy" not in Debias(budgets={"bias_balanced_accuracy": math.inf}).held


@pytest.mark.parametrize("name", [*METRICS, *(f"{name}{WORST}" for name in PER_GROUP)])
def test_every_budget_costs_and_is_kept(name: str) -> None:
    """Half of each is in reserve; what goes beyond costs the penalty, and is not admissible."""
    if name == f"selection_rate{WORST}":
        return
    case = CASES["25,000 posts"]
    before = tally_of(case["margins"][None], case["labels"], case["groups"])
    worse = 0.7 * case["margins"] + case["noise"]
    tally = tally_of(worse[None], case["labels"], case["groups"])
    free = dict.fromkeys((*LEVELS, "utility_auc", "utility_accuracy"), math.inf)
    lax = Debias(bias={"fped": 1e-9}, budgets=free, utility=("utility_auc",)).relative_to(before)
    probe = Debias(bias={"fped": 1e-9}, budgets={**free, name: 0.0}).relative_to(before)
    lost = float(probe.spent(tally)[name])
    assert math.isfinite(lost)
    for budget, kept in ((2.1 * max(lost, 0) + 0.01, True), (0.5 * max(lost, 0), lost <= 0)):
        objective = Debias(bias={"fped": 1e-9}, budgets={**free, name: budget}).relative_to(before)
        assert bool(objective.admissible(tally)[0]) == kept
        by_group = losses(name, objective.of(tally), levels(name, objective.of(before))[0])
        beyond = (by_group - budget / 2).clamp(min=0)
        excess = float(beyond.mean())
        assert float(objective(tally)[0]) == pytest.approx(float(lax(tally)[0]) - 20 * excess, abs=1e-9)


def test_a_level_that_cannot_be_measured_is_named_with_the_way_out() -> None:
    labels = torch.tensor([0, 1] * 50)
    bias = torch.arange(100) >= 40
    groups = {"utility": ~bias, "bias": bias, "a": bias & (labels == 0), "b": bias & (torch.arange(100) > 95)}
    samples = rledit.Samples(torch.zeros(100, 1), labels, groups)
    with pytest.raises(ValueError, match=r"positives \(at least 20 .*b has 2 positives.*=inf"):
        Debias(bias={"fped": 1.0}).check(samples)
    Debias(bias={"fped": 1.0}, budgets={"fnr.worst": math.inf}).check(samples)
