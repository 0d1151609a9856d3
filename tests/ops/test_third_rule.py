"""An edit rule that no compiled core knows: registered in one place, it works with every backend."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from exact_tails import LOGIT_PARTS, Case, exact_tail
from flat_ops import score_tail
from gpu_backends import DEVICE, gpu_backend
from pairwise import pairwise
from torch import Tensor, nn

import rledit
from rledit import ops
from rledit.ops import KINDS, Backend, Candidates, Counts, EditRule, backend, tail
from rledit.ops.rules import RuleKind
from rledit.ops.score_tail import from_schema

CASES = {
    "first": Case(samples=151, sizes=(31, 17, 3), rank=3),
    "all": Case(sizes=(40, 21, 13, 6), edited=(0, 1, 2), rank=3, functions=("tanh", "gelu")),
    "own weights": Case(samples=65, edited=(0,), own=(0, 1), candidates=6),
    "two classes": Case(sizes=(45, 7, 2), parts=LOGIT_PARTS, groups=9),
}
BACKENDS = ("reference", "native", "triton", "cuda")


@pytest.fixture(autouse=True)
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes each row in proportion to its norm."""
    rule = RuleKind(
        formula="W + |rows of W| * scale * (left @ right)",
        edit_=lambda weight, delta: weight.add_(weight.norm(dim=-1, keepdim=True) * delta),
        relative=True,
    )
    monkeypatch.setitem(KINDS, "rows", rule)


def backend_of(name: str) -> Backend:
    return gpu_backend(name) if name in ("triton", "cuda") else backend(name)


def edited(weight: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """The rule as its formula says it, in float64."""
    weight, left, right = weight.double(), left.double(), right.double()
    return weight + weight.square().sum(-1, keepdim=True).sqrt() * scale * (left @ right)


def as_weights(arguments: tuple, scale: float) -> tuple:
    """The same candidates with edited weights of their own and without factors."""
    x, weights, biases, functions, labels, groups, lefts, rights = arguments
    own = [
        weight if left is None else edited(weight, left, right, scale)
        for weight, left, right in zip(weights, lefts, rights, strict=True)
    ]
    nothing = [None] * len(own)
    return x, own, biases, functions, labels, groups, nothing, nothing


def mapped(change: Callable[[Tensor], Tensor], arguments: tuple) -> tuple:
    """The arguments with every tensor changed, those in lists, too."""

    def of(value: object) -> object:
        if isinstance(value, list):
            return [of(item) for item in value]
        return change(value) if isinstance(value, Tensor) else value

    return tuple(map(of, arguments))


def on_device(arguments: tuple) -> tuple:
    return mapped(lambda tensor: tensor.to(DEVICE), arguments)


@pytest.mark.slow
@pairwise(case=CASES, name=BACKENDS, precision=["float32", "bfloat16"])
def test_counts_are_those_of_the_edited_weights(
    case: str, name: str, precision: str, assert_counts: Callable[..., float]
) -> None:
    chosen = CASES[case]
    arguments = chosen.build()
    isa = {"triton": "", "cuda": "tf32x3"}.get(name, "")
    logits, bound = exact_tail(as_weights(arguments, chosen.scale), "shift", 1.0, precision, isa)
    given = (*arguments, "rows", chosen.scale, precision, list(chosen.parts))
    counts = score_tail(backend_of(name), *on_device(given))
    # Twice more for the edit itself: the norm and left @ right are sums of at most as many terms.
    assert_counts(Counts(*(part.cpu() for part in counts)), logits, 3 * bound, *arguments[4:6])


def test_the_reference_edits_in_float64() -> None:
    case = CASES["first"]
    wide = mapped(lambda x: x.double() if x.is_floating_point() else x, case.build())
    rest = ("float32", ["correct", "loss"])
    ours = ops.score_tail(*wide, "rows", case.scale, *rest)
    same = ops.score_tail(*as_weights(wide, case.scale), "shift", 1.0, *rest)
    assert torch.equal(ours.correct, same.correct)
    torch.testing.assert_close(ours.loss, same.loss, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", BACKENDS)
def test_weights_are_edited_in_place(name: str) -> None:
    random = torch.Generator().manual_seed(0)
    weight, left, right = (
        torch.randn(shape, generator=random) for shape in ((3, 5, 7), (3, 5, 2), (3, 2, 7))
    )
    expected = edited(weight, left, right, 0.3)
    strided = weight.transpose(1, 2).contiguous().to(DEVICE).transpose(1, 2)
    for own in (weight.clone().to(DEVICE), strided):
        backend_of(name).edit_(own, left.to(DEVICE), right.to(DEVICE), EditRule("rows", 0.3))
        torch.testing.assert_close(own.cpu().double(), expected, rtol=1e-5, atol=1e-6)
    ops.apply_lowrank_(weight, left, right, "rows", 0.3)
    torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at_once", [1, 2, 5, 9])
def test_few_candidates_are_formed_at_a_time(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["first"].but(candidates=9)
    arguments = (*case.build(), "rows", case.scale, "float32", list(case.parts))
    expected = score_tail(backend("native"), *arguments)
    sizes: list[int] = []
    formed = Candidates.formed

    def noted(self: Candidates, layers: object) -> Candidates:
        sizes.append(self.size)
        return formed(self, layers)  # type: ignore[arg-type]

    monkeypatch.setattr(Candidates, "formed", noted)
    monkeypatch.setattr(tail, "FORMED_BYTES", at_once * 4 * 31 * 17 + 3)
    counts = score_tail(backend("native"), *arguments)
    assert max(sizes) == at_once
    assert sum(sizes) == 9
    for ours, theirs in zip(counts, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_the_layers_own_weights_stay_as_they_are() -> None:
    case = CASES["all"]
    arguments = (*case.build(), "rows", case.scale, "float32", ["correct"])
    problem, candidates, wanted = from_schema(*arguments, 1024, 16.0)
    before = [weight.clone() for weight in problem.weights]
    prepared = backend("native").prepare_tail(problem)
    first, second = prepared.score(candidates, wanted), prepared.score(candidates, wanted)
    assert torch.equal(first.correct, second.correct)
    assert all(map(torch.equal, problem.weights, before))


@pytest.mark.parametrize("name", BACKENDS)
def test_candidates_that_do_not_fit_are_named(name: str) -> None:
    case = CASES["first"]
    arguments = (*case.build(), "rows", case.scale, "float32", ["correct"])
    problem, candidates, wanted = from_schema(*on_device(arguments), 1024, 16.0)
    prepared = backend_of(name).prepare_tail(problem)
    (left, _), nothing = candidates.lefts, [None, None]
    for changes, message in (
        ({"lefts": nothing}, r"lefts\[0\], rights\[0\]: expected both factors or none"),
        ({"lefts": [left[:, :-1], None]}, r"lefts\[0\]: expected shape \[5, 17, R\]"),
        ({"lefts": [left[:-1], None]}, r"candidates: expected 4.*got 5"),
        ({"lefts": nothing, "rights": nothing}, r"candidates: expected 1.*got 5"),
        ({"lefts": [left]}, r"one entry for each of 2 layers"),
        ({"weights": [torch.zeros(5, 17, 30, device=DEVICE), None]}, r"weights\[0\]: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared.score(candidates._replace(**changes), wanted)


@pytest.mark.parametrize("kind", ["tail", "suffix"])
def test_a_scorer_takes_it(kind: str) -> None:
    torch.manual_seed(0)
    between = nn.Tanh() if kind == "tail" else nn.Softplus()
    model = nn.Sequential(nn.Linear(9, 12), between, nn.Linear(12, 3))
    inputs, labels = torch.randn(90, 9), torch.randint(3, (90,))
    samples = rledit.Samples(inputs, labels, rledit.forget_groups(labels, 1))
    scorer = rledit.Task(model, ["0"], samples, rledit.Unlearning()).scorer()
    assert (scorer.way, scorer.backend) == (kind, "native")
    left, right = 0.5 * torch.randn(6, 12, 2), torch.randn(6, 2, 9)
    ours = scorer.score({"0": (left, right)}, "rows", 0.5)
    weights = edited(model[0].weight.detach(), left, right, 0.5).float()
    theirs = scorer.score({}, weights={"0": weights})
    for group in ("forget", "retain"):
        assert torch.equal(ours.correct[group], theirs.correct[group])
