"""Task: what it promises, and what is wrong by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rledit import Samples, Task, Unlearning
from rledit.storage.fingerprint import fingerprint

RANDOM = torch.Generator().manual_seed(0)
INPUTS = torch.randn(40, 6, generator=RANDOM)
LABELS = torch.arange(40) % 3
GROUPS = {"forget": LABELS == 2, "retain": LABELS != 2}
SAMPLES = Samples(INPUTS, LABELS, GROUPS)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def factors(n: int = 4, o: int = 8, i: int = 6, r: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(n, o, r, generator=random), torch.randn(n, r, i, generator=random)


def test_the_model_of_the_caller_is_never_changed() -> None:
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    task = Task(model, ["0"], SAMPLES, Unlearning())
    task.scorer().score({"0": factors()}, "mask")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert task.fingerprint == fingerprint({"0": model[0].weight})
    with torch.no_grad():
        model[0].weight.zero_()
    assert not torch.equal(task.weights()["0"], model[0].weight)  # and later changes do not reach the task


def test_dropout_is_off_although_the_model_trains() -> None:
    task = Task(mlp().train(), ["0"], SAMPLES, Unlearning())
    expected = (mlp().eval()(INPUTS).argmax(1) == LABELS) & GROUPS["forget"]
    for _ in range(3):
        assert task.scorer().score({}).correct["forget"].tolist() == [int(expected.sum())]


def test_defaults() -> None:
    task = Task(mlp(), "0", SAMPLES, Unlearning())  # type: ignore[arg-type]  # one name is forgiven
    assert list(task.weights()) == ["0"]
    assert task.validation is SAMPLES
    assert task.classes == 3
    few = Samples(INPUTS[:1], LABELS[2:3], {"forget": [True], "retain": [True]})
    assert Task(mlp(), ["0"], SAMPLES, Unlearning(), validation=few).scorer(split="validation").samples is few
    assert Task(mlp(), ["0"], few, Unlearning()).scorer().way == "tail"  # one sample is enough


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    task = Task(model, ["0"], Samples(INPUTS.to(dtype), LABELS, GROUPS), Unlearning())
    assert task.editable.dtype == torch.float32
    assert model[0].weight.dtype == dtype
    assert task.fingerprint == fingerprint({"0": model[0].weight})
    same = Task(model.float(), ["0"], Samples(INPUTS.to(dtype).float(), LABELS, GROUPS), Unlearning())
    ours, theirs = (t.scorer().score({"0": factors()}).counts for t in (task, same))
    assert torch.equal(ours.correct, theirs.correct)


def test_float64_is_scored_in_float64() -> None:
    task = Task(mlp().double(), ["0"], Samples(INPUTS.double(), LABELS, GROUPS), Unlearning())
    scorer = task.scorer()
    assert scorer.backend == "reference"
    left, right = factors()
    loss = scorer.score({"0": (left, right)}, wanted=["loss"]).loss["retain"]
    model = mlp().double().eval()
    with torch.no_grad():
        model[0].weight += left[1].double() @ right[1].double()
        exact = nn.functional.cross_entropy(model(INPUTS.double()), LABELS, reduction="none")
    assert float(loss[1]) == pytest.approx(float(exact[GROUPS["retain"]].sum()), rel=1e-12)
    with pytest.raises(TypeError, match=r"'native' expects float32 weights, the model's are torch\.float64"):
        task.scorer(backend="native")


class Odd(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output(self.fc(x))


def nan_model() -> nn.Module:
    model = mlp()
    with torch.no_grad():
        model[3].weight[1, 1] = torch.nan
    return model


OTHER_LABELS = Samples(INPUTS, LABELS + 1, {"forget": LABELS == 2, "retain": LABELS != 2})
ON_META = Samples(INPUTS.to("meta"), LABELS, GROUPS)
OTHER_GROUPS = Samples(INPUTS, LABELS, {"all": LABELS >= 0})
BAD: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, r"model: expected a torch.nn.Module, got dict", {"model": {}}),
    (ValueError, r"targets: no module is called 'fc7'; this model has 0, 3$", {"targets": ["fc7"]}),
    (TypeError, r"targets: '1' is a ReLU, expected Linear, Conv2d or .* 0, 3", {"targets": ["1"]}),
    (ValueError, r"targets: expected at least one; this model has 0, 3", {"targets": []}),
    (ValueError, r"targets: expected each name once", {"targets": ["0", "0"]}),
    (TypeError, r"samples: expected rledit.Samples, got tuple", {"samples": (INPUTS, LABELS)}),
    (TypeError, r"validation: expected rledit.Samples, got tuple", {"validation": (INPUTS, LABELS)}),
    (ValueError, r"samples: expected labels in 0..2, the model's classes; got 3", {"samples": OTHER_LABELS}),
    (ValueError, r"validation: expected labels in 0..2, .*got 3", {"validation": OTHER_LABELS}),
    (ValueError, r"Unlearning needs a group 'forget'; the samples have all", {"samples": OTHER_GROUPS}),
    (ValueError, r"needs a group 'forget'", {"validation": OTHER_GROUPS}),
    (TypeError, r"objective: expected an objective or a function of a tally, got int", {"objective": 3}),
    (TypeError, r"got the class; write Unlearning\(\)", {"objective": Unlearning}),
    (ValueError, r"inputs: expected values, got a tensor on the meta device", {"samples": ON_META}),
    (ValueError, r"'0.weight' is on the meta device", {"model": mlp().to("meta")}),
    (ValueError, r"model: expected finite weights, '3.weight' has NaN or infinity", {"model": nan_model()}),
    (TypeError, r"inputs: expected the model's dtype torch.float64, got torch.float32",
     {"model": mlp().double()}),
    (ValueError, r"model: it fails on inputs torch.int64 \[4, 6\]: ",
     {"samples": Samples(INPUTS.long(), LABELS, GROUPS)}),
    (ValueError, r"samples: expected labels in 0..1, the model's classes; got 2",
     {"model": Odd(lambda x: x[:, 0]), "targets": ["fc"]}),
    (ValueError, r"model: expected logits \[4, C\] with C of at least 2, got \[4, 3, 1\]",
     {"model": Odd(lambda x: x[:, :, None]), "targets": ["fc"]}),
    (ValueError, r"model: expected logits \[S, C\], got dict",
     {"model": Odd(lambda x: {"scores": x}), "targets": ["fc"]}),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "changes"), BAD, ids=[message for _, message, _ in BAD])
def test_what_is_wrong_is_named(error: type[Exception], message: str, changes: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "model": mlp(), "targets": ["0"], "samples": SAMPLES, "objective": Unlearning(),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        Task(**arguments | changes)


LEFT, RIGHT = factors()
BAD_SCORES: list[tuple[str, dict[str, Any]]] = [
    (r"world: expected one of 'shift', 'mask'; got 'mosk'", {"world": "mosk"}),
    (r"scale: expected a finite number, got nan", {"scale": float("nan")}),
    (r"wanted: expected some of correct", {"wanted": ["corect"]}),
    (r"wanted: .* got none", {"wanted": []}),
    (r"factors: expected targets 0; got '3'", {"factors": {"3": (LEFT, RIGHT)}}),
    (r"expected left \[N, 8, R\], got \[4, 7, 2\]", {"factors": {"0": (LEFT[:, 1:], RIGHT)}}),
    (r"expected left \[N, 8, R\], got \[0, 8, 2\]", {"factors": {"0": (LEFT[:0], RIGHT[:0])}}),
    (r"expected left \[N, 8, R\], got \[8, 2\]", {"factors": {"0": (LEFT[0], RIGHT[0])}}),
    (r"expected right \[4, 2, 6\], got \[3, 2, 6\]", {"factors": {"0": (LEFT, RIGHT[1:])}}),
    (r"'0' is 8x6, expected a rank in 1..6, got 0", {"factors": {"0": factors(r=0)}}),
    (r"'0' is 8x6, expected a rank in 1..6, got 7", {"factors": {"0": factors(r=7)}}),
    (r"factors\['0'\]: left has NaN or infinity", {"factors": {"0": (LEFT * torch.nan, RIGHT)}}),
    (r"factors\['0'\]: right has NaN or infinity", {"factors": {"0": (LEFT, RIGHT * torch.inf)}}),
    (r"weights\['0'\]: expected \[N, 8, 6\], got \[8, 6\]", {"weights": {"0": torch.zeros(8, 6)}}),
    (r"weights\['0'\]: expected \[N, 8, 6\], got \[0, 8, 6\]", {"weights": {"0": torch.zeros(0, 8, 6)}}),
    (r"one number of candidates, got \[3, 4\]", {"weights": {"0": torch.zeros(3, 8, 6)}}),
]


@pytest.mark.parametrize(("message", "changes"), BAD_SCORES, ids=[message for message, _ in BAD_SCORES])
def test_what_is_wrong_with_a_score_is_named(message: str, changes: dict[str, Any]) -> None:
    scorer = Task(mlp(), ["0"], SAMPLES, Unlearning()).scorer()
    with pytest.raises(ValueError, match=message):
        scorer.score(**{"factors": {"0": (LEFT, RIGHT)}} | changes)


def test_wrong_choices_of_a_scorer() -> None:
    task = Task(mlp(), ["0"], SAMPLES, Unlearning())
    for arguments, message in [
        ({"backend": "tpu"}, "expected one of auto, reference, native"),
        ({"precision": "float16"}, "expected one of float32, bfloat16; got 'float16'"),
        ({"split": "test"}, "expected 'reward' or 'validation', got 'test'"),
    ]:
        with pytest.raises(ValueError, match=message):
            task.scorer(**arguments)


# ---------------------------------------------------------------------------- tallies and objectives
