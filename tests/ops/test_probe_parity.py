"""Probes in native tails against exact float64 arithmetic: every route, precision and instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact_tails import U32, Case, exact_tail
from native_arguments import ALGEBRAS, assert_bits, part_of, prepare, score_tail
from torch import Tensor

from rledit import _native
from rledit.ops import Candidates, EditRule, Layer, Probe, TailProblem, Wanted, backend, halves
from rledit.ops.score_tail import run_tail
from rledit.ops.tally_features import FeatureTally

ISAS = _native.available_isas()
BOTH = ["recalled", "nearest"]
RIDGE = 1e-2


@pytest.fixture(autouse=True)
def _restore(keep_native_state: None, one_thread: None) -> None:
    pass


CASES = {
    "single layer": Case(sizes=(13, 5), samples=372),
    "two layers": Case(sizes=(37, 19, 5), samples=372),
    "two layers, later": Case(sizes=(37, 19, 5), samples=372, edited=(1,)),
    "two layers, both": Case(sizes=(21, 33, 3), samples=700, edited=(0, 1), functions=("tanh",)),
    "narrow": Case(sizes=(45, 3, 7), samples=700, candidates=11),
    "one feature": Case(sizes=(9, 1, 2), samples=129, groups=64),
    "three layers": Case(sizes=(37, 43, 21, 5), samples=372, functions=("gelu", "silu")),
    "three layers, all": Case(sizes=(40, 21, 13, 6), samples=151, edited=(0, 1, 2), rank=3),
    "own weights": Case(sizes=(37, 5, 3), samples=129, edited=(0,), own=(0, 1)),
    "many chunks": Case(sizes=(12, 9, 4), samples=2300, candidates=2),
    "unedited": Case(sizes=(20, 17, 4), samples=200, edited=(), candidates=1),
}


def arrays(case: Case, algebra: str = "automatic", precision: str = "float32") -> dict[str, object]:
    """Arguments for native_arguments.score_tail, with a probe."""
    x, weights, biases, functions, labels, groups, lefts, rights = case.build()

    def optional(tensors: list[Tensor | None]) -> list[np.ndarray | None]:
        return [None if tensor is None else tensor.numpy() for tensor in tensors]

    return {
        "activations": (x + labels[:, None] % 3).numpy(), "weights": optional(weights),
        "biases": optional(biases), "nonlinearities": functions, "labels": labels.numpy(),
        "groups": groups.numpy(), "lefts": optional(lefts), "rights": optional(rights),
        "candidates": case.candidates, "world": "shift", "scale": case.scale, "precision": precision,
        "wanted": ["correct", *BOTH], "bins": 1, "margin_limit": 1.0, "algebra": algebra,
        "fit": halves(labels).numpy(), "ridge": RIDGE,
    }  # fmt: skip


def exact_features(case: Case, world: str, precision: str, isa: str) -> tuple[Tensor, Tensor]:
    """What the last layer reads, [N, S, D] in float64, and a bound [N, S] on its error."""
    x, weights, biases, functions, labels, groups, lefts, rights = case.build()
    x = x + labels[:, None] % 3
    if len(weights) == 1:
        n = case.candidates
        return x.double().expand(n, -1, -1), torch.zeros(n, len(x), dtype=torch.float64)
    before = slice(0, len(weights) - 1)
    some = (
        x,
        weights[before],
        biases[before],
        functions[before],
        labels,
        groups,
        lefts[before],
        rights[before],
    )
    features, bound = exact_tail(some, world, case.scale, precision, isa)
    n = case.candidates  # where only the last layer is edited, all have the same features
    return features.expand(n, -1, -1), bound.expand(n, -1)


def assert_known(counts: Tensor, exact: Tensor, sure: Tensor, judged: Tensor) -> None:
    """Counts [N, G] must be those of the hits [N, J] but for samples that are not sure [N, J]."""
    least = (exact & sure).double() @ judged.T
    assert (counts >= least).all()
    assert (counts <= least + (~sure).double() @ judged.T).all()


def check(case: Case, world: str, precision: str, isa: str, algebra: str) -> float:
    """Returns the share of samples whose two best scores are too close to tell."""
    arguments = arrays(case, algebra, precision) | {"world": world}
    recalled, nearest = (torch.from_numpy(part) for part in score_tail(**arguments)[6:8])
    features, bound = exact_features(case, world, precision, isa)
    labels, groups, fit = (torch.from_numpy(arguments[name]) for name in ("labels", "groups", "fit"))
    learned, judged = features[:, fit], features[:, ~fit]
    pivot = learned.mean(1, keepdim=True)
    tally = FeatureTally(labels, groups, fit, int(labels.max()) + 1)
    # Both kinds of scores are smooth in the features: how far they can move is measured, in three directions.
    random = torch.Generator().manual_seed(7)
    band = []
    kinds = (
        (recalled, lambda a, b: tally._ridge(a, b, RIDGE)[0]),
        (nearest, lambda a, b: tally._means(a, b)[0]),
    )
    for counts, of in kinds:
        exact = of(learned - pivot, judged - pivot)
        reach = torch.zeros_like(exact[..., 0])
        for _ in range(3):
            signs = torch.randint(0, 2, features.shape, generator=random) * 2.0 - 1
            moved = features + signs * (bound[..., None] + 4 * U32 * features.abs())
            a, b = moved[:, fit], moved[:, ~fit]
            mean = a.mean(1, keepdim=True)
            shift = (of(a - mean, b - mean) - exact).nan_to_num(0.0).abs().amax(-1)
            reach = torch.maximum(reach, shift)
        best = exact.topk(2, -1).values
        scale = exact.nan_to_num(0.0, neginf=0.0).abs().amax((1, 2))[:, None]
        sure = best[..., 0] - best[..., 1] > 4 * reach + 1e-4 * scale
        hits = exact.argmax(-1) == labels[~fit]
        assert_known(counts, hits, sure, groups[:, ~fit].double())
        band.append(float((~sure).double().mean()))
    return max(band)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("name", CASES)
def test_probes_of_a_tail(name: str, world: str, isa: str) -> None:
    _native.select_isa(isa)
    for algebra in ALGEBRAS:
        band = check(CASES[name], world, "float32", isa, algebra)
        assert band < 0.1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("name", ["single layer", "two layers", "three layers, all"])
def test_probes_of_a_bfloat16_tail(name: str, world: str, isa: str) -> None:
    _native.select_isa(isa)
    for algebra in ALGEBRAS:
        check(CASES[name], world, "bfloat16", isa, algebra)
        ours = score_tail(**arrays(CASES[name], algebra, "bfloat16") | {"world": world})
        fine = score_tail(**arrays(CASES[name], algebra) | {"world": world})
        judged = CASES[name].samples // 2
        for mine, exact in zip(ours[6:8], fine[6:8], strict=True):
            assert np.abs(mine - exact).max() <= max(2, 0.05 * judged)
        if name == "single layer":  # whose features nothing has rounded
            assert_bits(ours[6:8], fine[6:8])


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("name", ["single layer", "two layers", "three layers", "many chunks"])
def test_counts_do_not_depend_on_threads_or_company(name: str, world: str) -> None:
    parts = ["correct", "loss", *BOTH, "lower_loss"]
    arguments = arrays(CASES[name]) | {"world": world, "wanted": parts, "algebra": "formed"}
    expected = score_tail(**arguments)
    for threads in (1, 2, 5):
        _native.set_num_threads(threads)
        assert_bits(score_tail(**arguments), expected)
    alone = [score_tail(**part_of(arguments, n, n + 1)) for n in range(CASES[name].candidates)]
    assert_bits(map(np.concatenate, zip(*alone, strict=True)), expected)


@pytest.mark.parametrize("name", ["two layers", "three layers", "many chunks"])
def test_a_probe_changes_no_other_count(name: str) -> None:
    case = CASES[name]
    arguments = arrays(case) | {"wanted": ["correct", "predicted", "confusion", "loss", "lower_loss"]}
    plain = {key: value for key, value in arguments.items() if key not in ("fit", "ridge")}
    without, prepared = score_tail(**plain), score_tail(**arguments)
    probing = score_tail(**arguments | {"wanted": [*arguments["wanted"], *BOTH]})
    for number, (a, b, c) in enumerate(zip(without, prepared, probing, strict=True)):
        if number in (6, 7):  # the probes' own
            continue
        np.testing.assert_allclose(a, b, rtol=0 if number != 3 else 1e-12)  # losses in another order
        np.testing.assert_array_equal(b, c)


def test_both_probes_are_what_each_is_alone() -> None:
    arguments = arrays(CASES["two layers"])
    tail = prepare(arguments)
    both = score_tail(**arguments)
    for part, at in (("recalled", 6), ("nearest", 7)):
        alone = score_tail(**arguments | {"wanted": [part]})
        np.testing.assert_array_equal(alone[at], both[at])
    assert tail.bytes > 0


def test_candidates_that_blow_up_are_known_by_heart() -> None:
    arguments = arrays(CASES["two layers"])
    sound = score_tail(**arguments)
    lefts = arguments["lefts"]
    lefts[0] = lefts[0].copy()
    lefts[0][1, 3, 0] = np.inf
    lefts[0][3, 2, 1] = 1e25
    ours = score_tail(**arguments)
    judged = (arguments["groups"] & ~arguments["fit"]).sum(1)
    for part, before in zip(ours[6:8], sound[6:8], strict=True):
        np.testing.assert_array_equal(part[[1, 3]], np.stack([judged, judged]))
        np.testing.assert_array_equal(part[[0, 2, 4]], before[[0, 2, 4]])


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_a_tail_says_what_its_features_say(world: str) -> None:
    """The op on features that torch has computed, on every backend that runs here."""
    case = CASES["two layers"]
    x, weights, biases, functions, labels, groups, lefts, rights = case.build()
    layers = tuple(map(Layer, weights, biases, functions))
    problem = TailProblem(x, layers, labels, groups, probe=Probe(halves(labels), RIDGE))
    candidates = Candidates(case.candidates, EditRule(world, case.scale), lefts, rights, [None, None])
    features, _ = run_tail(problem, candidates)
    for each in (backend("native"), backend("reference")):
        counts = each.prepare_tail(problem).score(candidates, Wanted(BOTH))
        probe = each.prepare_probe(labels, groups, case.sizes[-1], problem.probe)
        recalled, nearest = probe.count(features, Wanted(["correct", *BOTH]))
        assert (counts.recalled - recalled).abs().max() <= 1
        assert (counts.nearest - nearest).abs().max() <= 1
        assert probe.count(features, Wanted(["correct"]))[0].numel() == 0
