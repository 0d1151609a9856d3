"""What a scorer promises beside the right counts: refusals, precision, memory, threads, any layout."""

from __future__ import annotations

import gc
import pickle
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rledit import Samples, Scorer, Task, Unlearning

COUNT = 700  # more than one batch of the prefix, and no multiple of it
PARTS = ["correct", "predicted", "confusion", "loss"]
SPLITS = ("reward", "validation")


def samples(count: int = COUNT) -> Samples:
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (count,), generator=random)
    labels[:3] = torch.arange(3)
    return Samples(
        torch.randn(count, 6, generator=random), labels, {"forget": labels == 2, "retain": labels != 2}
    )


class Net(nn.Module):
    def __init__(self, forward: Callable[[Net, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        if self.function is not None:
            return self.function(self, x)
        return self.out(torch.relu(self.b(torch.relu(self.a(x)))))


def suffix_net() -> Net:
    return Net(lambda net, x: net.out(torch.sigmoid(net.b(net.a(x)))))


def whole_net() -> Net:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net.b(net.a(x))
        return net.out(h if float(h.sum()) != 1e9 else x)  # Python looks at what an edit changes

    return Net(forward)


def factors(n: int = 9, r: int = 2) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    return torch.randn(n, 8, r, generator=random) / 4, torch.randn(n, r, 8, generator=random)


def scorer(model: nn.Module | None = None, **options: str) -> Scorer:
    return Task(Net() if model is None else model, ["b"], samples(), Unlearning()).scorer(**options)


def assert_equal(ours: object, theirs: object) -> None:
    for mine, other in zip(ours.counts, theirs.counts, strict=True):
        assert torch.equal(mine, other)


def tied(net: Net) -> Net:
    net.b.weight = nn.Parameter(torch.randn(8, 8))
    net.c = nn.Linear(8, 8)
    net.c.weight = net.b.weight
    return net


REFUSED = {
    "tied weights": (
        r"weight of 'b' is used elsewhere.*\(it is also c.weight\)",
        lambda: tied(Net(lambda net, x: net.out(net.b(net.a(x)) + net.c(net.a(x))))),
    ),
    "weight used as such": (
        r"weight of 'b' is used elsewhere.*\(a forward reads it\)",
        lambda: Net(lambda net, x: net.out(net.b(net.a(x)) @ net.b.weight)),
    ),
    "target used as a function": (
        r"weight of 'b' is used elsewhere.*\(a forward reads it\)",
        lambda: Net(lambda net, x: net.out(net.a(x) @ net.b.weight + net.b.bias)),
    ),
    "batch-dependent before": (
        "depend on the other samples of its batch",
        lambda: Net(lambda net, x: net.out(net.b(net.a(x) - net.a(x).mean(0)))),
    ),
    "batch-dependent after": (
        "depend on the other samples of its batch",
        lambda: Net(lambda net, x: net.out(net.b(net.a(x)).softmax(0))),
    ),
    "random": (
        "its forward is not deterministic",
        lambda: Net(lambda net, x: net.out(nn.functional.dropout(net.b(net.a(x)), 0.5, True))),
    ),
}


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("count", [4, COUNT])
def test_networks_that_cannot_be_scored_are_refused(name: str, count: int, scale: float) -> None:
    """By their cause, whatever the size of their logits."""
    message, build = REFUSED[name]
    net = build()
    function = net.function
    net.function = lambda net, x: scale * function(net, x)
    with pytest.raises(ValueError, match=message):
        Task(net, ["b"], samples(count), Unlearning())


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("way", ["tail", "suffix"])
def test_sound_networks_are_accepted_whatever_the_size_of_their_logits(
    way: str, scale: float, offset: float
) -> None:
    net = Net(lambda net, x: scale * net.out(torch.tanh(net.b(net.a(x)))) + scale * offset)
    if way == "tail":
        net.function = lambda net, x: net.out(torch.tanh(net.b(net.a(x))))
        with torch.no_grad():
            net.out.weight *= scale
            net.out.bias *= scale
            net.out.bias += scale * offset
    assert scorer(net).way == way


def test_a_forward_that_cannot_be_traced_is_said_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = Task(whole_net(), ["b"], samples(), Unlearning())
        for _ in range(2):
            task.scorer().score({"b": factors()})
    (said,) = caught
    assert "the network cannot be traced" in str(said.message)
    assert "every candidate runs it whole" in str(said.message)
    assert said.filename == __file__  # the line that made the task


def test_zero_weights_can_be_edited() -> None:
    model = Net()
    nn.init.zeros_(model.b.weight)
    tied_too = tied(Net(lambda net, x: net.out(net.b(net.a(x)) + net.c(net.a(x)))))
    nn.init.zeros_(tied_too.b.weight)
    ours = scorer(model)
    assert not torch.equal(ours.score({}).correct["forget"], ours.score({"b": factors()}).correct["forget"])
    with pytest.raises(ValueError, match="used elsewhere"):  # the check's edit is not zero as well
        scorer(tied_too)


@pytest.mark.parametrize("make", [Net, suffix_net])
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_layout_and_dtype_of_factors_do_not_matter(make: Callable[[], Net], world: str) -> None:
    ours = scorer(make())
    left, right = factors()
    expected = ours.score({"b": (left, right)}, world, wanted=PARTS)
    strided = left.transpose(0, 2).contiguous().transpose(0, 2), right.repeat(1, 1, 2)[..., :8]
    assert not strided[0].is_contiguous()
    for pair in (strided, (left.double(), right.double()), (left.requires_grad_(), right)):
        assert_equal(ours.score({"b": pair}, world, wanted=PARTS), expected)


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("make", [Net, suffix_net, whole_net])
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_own_weights_take_the_place_of_the_models(make: Callable[[], Net], world: str) -> None:
    ours = scorer(make())
    left, right = factors()
    weight = ours.editable.weights()["b"]
    delta = left @ right
    edited = weight + delta if world == "shift" else weight * (1 + delta)
    before = edited.clone()
    once = ours.score({"b": (left, right)}, world).counts.correct
    assert (ours.score({}, weights={"b": edited}).counts.correct - once).abs().max() <= 1  # rounding
    back = ours.score({"b": (-left, right)}, "shift", weights={"b": weight + delta}).counts.correct
    assert (back - ours.score({}).counts.correct).abs().max() <= 1
    assert torch.equal(edited, before)


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("make", [Net, suffix_net, whole_net])
def test_weights_that_blew_up_count_as_nothing(make: Callable[[], Net]) -> None:
    ours = scorer(make())
    weights = ours.editable.weights()["b"].repeat(3, 1, 1)
    weights[1, 0, 0], weights[2, 0, 0] = torch.nan, torch.inf
    tally = ours.score({}, weights={"b": weights}, wanted=["correct", "loss"])
    assert tally.correct["retain"][0] > 0
    assert tally.correct["retain"][1] == 0
    assert tally.loss["retain"].isfinite().all()
    assert tally.loss["retain"][1] > 1e38


@pytest.mark.parametrize("make", [Net, suffix_net])
@pytest.mark.parametrize("world", ["shift", "mask"])
def test_backends_agree(make: Callable[[], Net], world: str) -> None:
    native = scorer(make(), backend="native").score({"b": factors()}, world, wanted=PARTS)
    reference = scorer(make(), backend="reference").score({"b": factors()}, world, wanted=PARTS)
    # Two float32 computations: at most a sample or two of 700 in the boundary band.
    assert (native.counts.correct - reference.counts.correct).abs().max() <= 2
    torch.testing.assert_close(native.counts.loss, reference.counts.loss, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("make", [Net, suffix_net])
def test_bfloat16_is_near_and_not_the_same(make: Callable[[], Net]) -> None:
    exact = scorer(make()).score({"b": factors()}, wanted=PARTS).counts
    rounded = scorer(make(), precision="bfloat16").score({"b": factors()}, wanted=PARTS).counts
    assert not torch.equal(rounded.loss, exact.loss)
    # Operands off by 2^-9 each move the mean loss by less than 1% here, and counts by less than 1%.
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.01, atol=0.0)
    assert (rounded.correct - exact.correct).abs().max() <= 0.01 * COUNT


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("make", [Net, suffix_net, whole_net])
def test_scorers_of_one_task_work_on_threads(make: Callable[[], Net]) -> None:
    ours = scorer(make())
    expected = ours.score({"b": factors()}, "mask")
    with ThreadPoolExecutor(4) as executor:
        for tally in executor.map(lambda _: ours.score({"b": factors()}, "mask"), range(12)):
            assert_equal(tally, expected)
        # A scorer checks itself with edited weights when it is built: others must not see them.
        running = [executor.submit(ours.score, {"b": factors()}, "mask") for _ in range(6)]
        Scorer(ours.editable, ours.samples, ours.objective)
        for job in running:
            assert_equal(job.result(), expected)


def test_only_what_the_suffix_reads_is_cached() -> None:
    padded = (COUNT + 63) // 64 * 64
    labels_and_groups = padded * (4 + 8) + padded // 64 * 8 * 2
    weights = sum(p.numel() for p in Net().parameters()) * 4
    assert scorer().cached_bytes <= padded * 8 * 4 + labels_and_groups + weights
    assert scorer(suffix_net()).cached_bytes == COUNT * 8 * 4


def test_datasets_give_what_tensors_give() -> None:
    whole = samples()
    data = TensorDataset(next(whole.batches(COUNT)), whole.labels)
    streamed = Samples.from_dataset(data, whole.groups, batch_size=33)
    ours, theirs = (Task(Net(), ["b"], s, Unlearning()).scorer() for s in (streamed, whole))
    assert_equal(ours.score({"b": factors()}), theirs.score({"b": factors()}))


def test_activations_that_overflow_are_refused() -> None:
    model = Net()
    with torch.no_grad():
        model.a.weight.fill_(1e38)
    with pytest.raises(ValueError, match=r"expected logits that are finite"):
        scorer(model)


# -------------------------------------------------------------------- what the fused op must not pass over


def negated(module: nn.Module) -> None:
    module.register_forward_hook(lambda module, inputs, output: -output)


def patched(module: nn.Module) -> None:
    module.forward = lambda x: -nn.functional.linear(x, module.weight, module.bias)  # type: ignore[method-assign]


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("alter", [negated, patched])
def test_a_layer_that_does_more_than_its_class_is_not_fused(alter: Callable[[nn.Module], None]) -> None:
    model = Net()
    alter(model.out)
    ours = scorer(model)
    assert ours.way != "tail"
    split = samples()
    hits = model(next(split.batches(COUNT))).argmax(1) == split.labels
    tally = ours.score({})
    assert int(tally.correct["retain"][0]) == int((hits & split.groups["retain"]).sum())


def test_a_parametrized_target_is_refused_before_anything_is_learned() -> None:
    model = Net()
    nn.utils.parametrizations.weight_norm(model.b)
    with pytest.raises(TypeError, match="'b' is parametrized"):
        scorer(model)


@pytest.mark.parametrize("world", ["shift", "mask"])
@pytest.mark.parametrize("make", [Net, suffix_net])
def test_one_candidate_leaves_the_weights_alone(make: Callable[[], Net], world: str) -> None:
    ours = scorer(make())
    before = ours.score({})
    one = {"b": factors(1)}
    first, second = ours.score(one, world), ours.score(one, world)
    assert_equal(first, second)
    assert_equal(ours.score({}), before)


@pytest.mark.parametrize("world", ["shift", "mask"])
def test_parts_of_a_population_add_up(world: str) -> None:
    left, right = factors(9)
    ours = scorer(suffix_net())
    together = ours.score({"b": (left, right)}, world)
    for n in range(9):
        alone = ours.score({"b": (left[n : n + 1], right[n : n + 1])}, world)
        difference = (together.counts.correct[n] - alone.counts.correct[0]).abs()
        assert int(difference.max()) <= 1  # another algebra may round a near tie the other way


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
@pytest.mark.parametrize("make", [Net, suffix_net, whole_net])
def test_the_callers_model_may_change_or_go(make: Callable[[], Net]) -> None:
    model = make()
    before = model.b.weight.detach().clone()
    task = Task(model, ["b"], samples(), Unlearning(), samples(50))
    assert torch.equal(task.weights()["b"], before)  # the checks' edits are undone to the bit
    assert torch.equal(model.b.weight, before)
    made = [task.scorer(split=split).score({"b": factors()}, "mask", wanted=PARTS) for split in SPLITS]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
    gone = weakref.ref(model.b)
    del model
    gc.collect()
    assert gone() is None  # nothing of the caller's is kept
    for split, expected in zip(SPLITS, made, strict=True):
        ours = task.scorer(split=split)
        assert_equal(ours.score({"b": factors()}, "mask", wanted=PARTS), expected)
    assert torch.equal(task.weights()["b"], before)


@pytest.mark.parametrize("make", [Net, suffix_net])
def test_samples_that_a_task_does_not_know_are_checked_too(make: Callable[[], Net]) -> None:
    task = Task(make(), ["b"], samples(), Unlearning())
    other = Samples(torch.randn(30, 6), samples().labels[:30], samples(30).groups)
    before = task.weights()["b"].clone()
    known = Task(make(), ["b"], other, Unlearning()).scorer().score({"b": factors()}, wanted=PARTS)
    assert_equal(Scorer(task.editable, other, task.objective).score({"b": factors()}, wanted=PARTS), known)
    assert torch.equal(task.weights()["b"], before)
    with torch.no_grad():
        task.editable.model.out.bias += 1  # what was kept of it is not true any more
    Scorer(task.editable, task.samples, task.objective)


def leaves_early(net: Net, x: Tensor) -> Tensor:
    """Out of a target by an exception that the forward itself catches, as feature extractors do."""
    try:
        net.b(torch.relu(net.a(x)))
    except LookupError as found:
        x = found.args[0]
    return net.out(torch.relu(x))


def leave(module: nn.Module, arguments: object, output: Tensor) -> None:
    raise LookupError(output)


@pytest.mark.filterwarnings("ignore:the network cannot be traced")
def test_checks_leave_no_edit_behind() -> None:
    net = Net(leaves_early)
    net.b.register_forward_hook(leave)
    task = Task(net, ["b"], samples(), Unlearning())
    assert torch.equal(task.weights()["b"], net.b.weight)
    inputs = torch.cat(list(samples().batches(COUNT)))
    expected = (net(inputs).argmax(1) == samples().labels)[samples().groups["forget"]].sum()
    assert int(task.scorer().score({}).correct["forget"]) == int(expected)


def test_a_task_and_its_weights_may_go_to_another_process() -> None:
    """Torch moves the memory of the tensors that it sends; scorers read theirs where it is."""
    task = Task(Net(), ["b"], samples(), Unlearning())
    scorer = task.scorer()
    edits = {"b": (torch.randn(4, 8, 2), torch.randn(4, 2, 8))}
    expected = scorer.score(edits, "mask", wanted=PARTS)
    sent = ForkingPickler.dumps(task), ForkingPickler.dumps(task.weights())
    task.weights()["b"].zero_()  # the caller's own
    assert not any(weight.is_shared() for weight in task.editable.weights().values())
    again = scorer.score(edits, "mask", wanted=PARTS)
    there = pickle.loads(sent[0]).scorer().score(edits, "mask", wanted=PARTS)
    for part in PARTS:
        for other in (again, there):
            assert torch.equal(getattr(other.counts, part), getattr(expected.counts, part))


class Itself(nn.Linear):
    def __deepcopy__(self, memo: object) -> Itself:
        return self


def test_a_target_that_cannot_be_copied_is_left_alone() -> None:
    net = Net()
    net.b = Itself(8, 8)
    before = net.b.weight.clone()
    with pytest.raises(ValueError, match="'b' returns itself"):
        Task(net, ["b"], samples(), Unlearning())
    assert torch.equal(net.b.weight, before)
