"""Models that are sound in ways that once got them refused, misjudged, or their callers surprised."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rledit import Samples, Task, Unlearning, forget_groups

INPUTS = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
GROUPS = forget_groups(LABELS, 1)
SAMPLES = Samples(INPUTS, LABELS, GROUPS)
UNTRACED = pytest.mark.filterwarnings("ignore:the network cannot be traced")


class Net(nn.Module):
    """a -> tanh -> b -> tanh -> out, where ``forward`` does not say otherwise."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.act = nn.Tanh()
        self.function = forward
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if self.function is not None:
            return self.function(self, x)
        return self.out(self.act(self.b(self.act(self.a(x)))))


def factors(weight: Tensor, n: int = 4) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    o, i = weight.flatten(1).shape
    return torch.randn(n, o, 1, generator=random), torch.randn(n, 1, i, generator=random)


@torch.no_grad()
def assert_like_edited(
    model: nn.Module, target: str, samples: Samples = SAMPLES, way: str | None = None
) -> Task:
    """Scores are those of the model itself, edited in place and restored."""
    task = Task(model, [target], samples, Unlearning())
    scorer = task.scorer()
    assert way is None or scorer.way == way
    weight = model.get_submodule(target).weight
    left, right = factors(weight)
    inputs = torch.cat(list(samples.batches()))
    for world in ("shift", "mask"):
        ours = scorer.score({target: (left, right)}, world)
        original = weight.clone()
        for n in range(len(left)):
            delta = (left[n] @ right[n]).view_as(weight)
            weight.copy_(original + delta if world == "shift" else original * (1 + delta))
            hits = model(inputs).argmax(1) == samples.labels
            for group, mask in samples.groups.items():
                assert int(ours.correct[group][n]) == int((hits & mask).sum()), (world, n, group)
        weight.copy_(original)
    return task


# ------------------------------------------------------------------------------------ what forward is


class Defaults(Net):
    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        dims: Any = (0, 1),
        names: Any = ("h",),
        options: Any = None,
        *,
        scales: Any = [1.0, 2.0],  # noqa: B006
    ) -> Any:
        h = torch.tanh(self.b(torch.tanh(self.a(x))))
        return scales[1] * self.out(h if options is None else h * 0) + dims[0]


def test_containers_as_defaults_of_forward() -> None:
    assert_like_edited(Defaults(), "b", way="suffix")


def keyword(net: Any, x: Tensor) -> Tensor:
    return net.out(input=torch.tanh(net.b(input=net.a(x))))


def keyword_and_branch(net: Any, x: Tensor) -> Tensor:
    return keyword(net, x) if float(x.sum()) > -1e9 else x


@UNTRACED
@pytest.mark.parametrize("forward", [keyword, keyword_and_branch])
@pytest.mark.parametrize("target", ["b", "out"])
def test_layers_called_by_keyword(forward: Any, target: str) -> None:
    assert_like_edited(Net(forward), target)


def under_autocast(net: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return net.out(torch.tanh(net.b(torch.tanh(net.a(x)))))


def test_autocast_inside_forward_is_run_whole_and_named() -> None:
    with pytest.warns(UserWarning, match="autocast inside forward"):
        assert_like_edited(Net(under_autocast), "b", way="whole")


class SequenceFirst(nn.Module):
    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(6, 6)
        self.attention = nn.MultiheadAttention(6, heads)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.inner(x.transpose(0, 1)))
        return self.out((x + self.attention(x, x, x, need_weights=False)[0]).mean(0))


@UNTRACED
def test_a_batch_that_is_not_the_first_dimension_inside() -> None:
    tokens = torch.randn(60, 5, 6, generator=torch.Generator().manual_seed(0))
    samples = Samples(tokens, LABELS, GROUPS)
    for target in ("inner", "out"):
        assert_like_edited(SequenceFirst().eval(), target, samples)


def test_a_batch_that_is_taken_for_the_sequence_is_named() -> None:
    class Wrong(SequenceFirst):
        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.attention(x, x, x)[0].mean(1))

    samples = Samples(torch.randn(60, 5, 6), LABELS, GROUPS)
    with pytest.raises(ValueError, match=r"depend on the other samples of its batch.*batch_first=True"):
        Task(Wrong(), ["out"], samples, Unlearning())


def test_a_module_under_two_names() -> None:
    model = Net()
    model.fc = model.b
    for name in ("b", "fc"):
        task = assert_like_edited(model, name)
        assert list(task.weights()) == [name]
    with pytest.raises(ValueError, match="shares its weight with"):
        Task(model, ["b", "fc"], SAMPLES, Unlearning())


# ------------------------------------------------------------------------------------------ subclasses


class SamePad(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Standardized(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return super()._conv_forward(x, weight, bias)


class Cosine(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(F.normalize(input, dim=-1), F.normalize(self.weight, dim=-1))


@pytest.mark.parametrize(
    "first", [SamePad(1, 4, 3), Standardized(1, 4, 3), nn.Sequential(nn.Conv2d(1, 4, 3), SamePad(4, 4, 3))]
)
def test_convolutions_with_a_forward_of_their_own(first: nn.Module) -> None:
    model = nn.Sequential(first, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    images = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    target = "0.1" if isinstance(first, nn.Sequential) else "0"
    assert_like_edited(model, target, Samples(images, LABELS, GROUPS), way="suffix")


def test_a_linear_layer_with_a_forward_of_its_own() -> None:
    model = Net()
    model.b = Cosine(8, 8)
    assert_like_edited(model, "b", way="suffix")
    assert_like_edited(model, "a", way="suffix")


def test_a_target_with_a_hook_that_acts() -> None:
    model = Net()
    model.b.register_forward_hook(lambda module, inputs, output: output.clamp(-0.3, 0.3))
    assert_like_edited(model, "b", way="suffix")


@UNTRACED
def test_a_target_with_a_forward_put_on_it() -> None:
    model = Net()
    model.b.forward = lambda x: -F.linear(x, model.b.weight, model.b.bias)  # type: ignore[method-assign]
    assert_like_edited(model, "b")


# -------------------------------------------------------------------------------------------- infinities


class Pooled(nn.Module):
    """Attention over words that are not padding: -inf on the cut."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.query = nn.Embedding(11, 8), nn.Linear(8, 1)
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        bias = torch.zeros(1).expand(ids.shape).masked_fill(ids == 0, float("-inf"))
        h = torch.tanh(self.inner(self.words(ids)))
        weight = torch.softmax(self.query(h).squeeze(-1) + bias, 1)
        return self.out((weight.unsqueeze(-1) * h).sum(1))


def test_masks_of_minus_infinity_on_the_cut() -> None:
    ids = torch.randint(0, 11, (60, 7), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = 1
    assert_like_edited(Pooled().eval(), "inner", Samples(ids, LABELS, GROUPS), way="suffix")
    ids[33] = 0  # nothing but padding: 0 / 0
    with pytest.raises(ValueError, match="logits of sample 33 are not finite"):
        Task(Pooled().eval(), ["inner"], Samples(ids, LABELS, GROUPS), Unlearning()).scorer()


def rules_out(net: Any, x: Tensor) -> Tensor:
    return net.out(torch.tanh(net.b(torch.tanh(net.a(x))))) + torch.tensor([0.0, 0.0, -torch.inf])


def rules_out_by_sample(net: Any, x: Tensor) -> Tensor:
    logits = net.out(torch.tanh(net.b(torch.tanh(net.a(x)))))
    return logits.masked_fill(F.pad(x[:, :2] > 1, (0, 1)), -torch.inf)


@pytest.mark.parametrize("forward", [rules_out, rules_out_by_sample])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_classes_that_are_ruled_out(forward: Any, backend: Any) -> None:
    task = assert_like_edited(Net(forward), "b", way="suffix")
    with torch.no_grad():
        logits = Net(forward)(INPUTS)
    tally = task.scorer(backend).score({}, wanted=["predicted", "loss"])
    assert int(tally.counts.predicted.sum()) == 60
    own = F.cross_entropy(logits, LABELS, reduction="none")
    possible = GROUPS["forget"] & own.isfinite()
    if bool(own[GROUPS["forget"]].isfinite().all()):
        assert float(tally.loss["forget"][0]) == pytest.approx(float(own[possible].sum()), rel=1e-5)
    assert tally.counts.loss.isfinite().all()


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sample 0 has nan"):
        Task(Net(lambda net, x: net.out(net.b(net.a(x))) * torch.nan), ["b"], SAMPLES, Unlearning())


# ------------------------------------------------------------------------------------ what models carry


def test_tensors_that_a_forward_pass_left_behind() -> None:
    def keeps(net: Any, x: Tensor) -> Tensor:
        net.features = torch.tanh(net.a(x))
        net.more = {"list": [net.features * 2]}
        return net.out(torch.tanh(net.b(net.features)))

    model = Net(keeps)
    model(INPUTS)  # with gradients
    assert model.features.grad_fn is not None
    assert_like_edited(model, "b")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_style_weight_norm_on_another_layer() -> None:
    model = Net()
    nn.utils.weight_norm(model.a)
    model(INPUTS)
    assert_like_edited(model, "b")
    with torch.no_grad():
        model.a.weight_g.mul_(3.0)  # the weight itself is computed when the layer is called
    assert_like_edited(model, "b")


SEEN: list[Tensor] = []
TIMES = collections.Counter()


def test_hooks_that_watch_stay_with_the_caller() -> None:
    model, enclosed = Net(), []

    class Meter:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.sizes.append(len(output))

    meter = Meter()
    model.act.register_forward_hook(lambda module, inputs, output: SEEN.append(output))
    model.b.register_forward_hook(lambda module, inputs, output: enclosed.append(output))
    model.b.register_forward_pre_hook(lambda module, inputs: TIMES.update(["b"]))
    model.a.register_forward_hook(meter)
    scorer = Task(model, ["b"], SAMPLES, Unlearning()).scorer()
    scorer.score({"b": factors(model.b.weight)})
    assert not SEEN
    assert not enclosed
    assert not TIMES
    assert not meter.sizes
    assert scorer.way == "tail"  # nothing is left on its layers
    assert len(model.b._forward_hooks) == 1
    model(INPUTS)
    assert (len(SEEN), len(enclosed), TIMES["b"], meter.sizes) == (2, 1, 1, [60])


def test_hooks_that_act_are_part_of_the_model() -> None:
    steer, log = torch.randn(8, generator=torch.Generator().manual_seed(3)), []
    for hook in (
        lambda module, inputs, output: output + steer,
        lambda module, inputs, output: output.add_(steer),  # in place
        lambda module, inputs, output: log.append(0) or output * 2,
    ):
        model = Net(lambda net, x: net.out(torch.sigmoid(net.b(torch.tanh(net.a(x))))))
        model.a.register_forward_hook(hook)
        assert_like_edited(model, "b")
        log.clear()
        Task(model, ["b"], SAMPLES, Unlearning()).scorer().score({})
        assert not log


def test_a_view_that_refuses_another_layout_is_tried_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.two(torch.tanh(self.one(x))))
            return self.out(x.view(x.size(0), -1))

    images = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert_like_edited(Views().eval(), "two", Samples(images, LABELS, GROUPS), way="suffix")
    assert capfd.readouterr().err == ""


# ----------------------------------------------------------------------------------------- torch's modes


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
}


@UNTRACED
@pytest.mark.parametrize("forward", [None, keyword, keyword_and_branch], ids=["tail", "suffix", "whole"])
def test_modes_around_the_call_make_no_difference(forward: Any) -> None:
    model = Net(forward)
    edit = {"b": factors(model.b.weight)}
    expected = Task(model, ["b"], SAMPLES, Unlearning()).scorer().score(edit, wanted=["correct", "loss"])

    def assert_same() -> None:
        scorer = Task(model, ["b"], SAMPLES, Unlearning()).scorer()
        ours = scorer.score(edit, wanted=["correct", "loss"])
        assert all(torch.equal(a, b) for a, b in zip(ours.counts, expected.counts, strict=True))

    for mode in MODES.values():
        with mode():
            assert_same()
    torch.set_default_dtype(torch.float64)
    try:
        assert_same()
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        made_inside = Samples(INPUTS.clone(), LABELS.clone(), GROUPS)
        model = Net(forward)
    assert Task(model, ["b"], made_inside, Unlearning()).scorer().score(edit).candidates == 4


# --------------------------------------------------------------------------- targets without an effect


class Auxiliary(Net):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.aux = nn.Linear(8, 3)
        self.how = how
        self.zero = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.b(torch.tanh(self.a(x))))
        branch = self.how.startswith("untraced") and float(x.sum()) < -1e9
        if self.training or branch:
            return self.out(h) + self.aux(h)
        if self.how.endswith("called"):
            self.aux(h)
        if self.how.endswith("gated"):
            return self.out(h) + self.zero * self.aux(h)
        return self.out(h)


@pytest.mark.parametrize("how", ["unused", "called", "untraced unused", "untraced called", "untraced gated"])
@pytest.mark.parametrize("targets", [["aux"], ["b", "aux"]])
def test_targets_without_an_effect_are_refused(how: str, targets: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"targets: 'aux' has no effect on the model in eval mode: "):
            Task(Auxiliary(how), targets, SAMPLES, Unlearning())


@UNTRACED
@pytest.mark.parametrize("branch", [False, True], ids=["traced", "untraced"])
def test_targets_that_are_only_dead_for_now_are_accepted(branch: bool) -> None:
    def lora(net: Any, x: Tensor) -> Tensor:
        h = torch.tanh(net.a(x))
        h = h + net.up(net.b(h))
        return net.out(h if not branch or float(x.sum()) > -1e9 else x)

    model = Net(lora)
    model.up = nn.Linear(8, 8, bias=False)
    nn.init.zeros_(model.up.weight)
    Task(model, ["b", "up"], SAMPLES, Unlearning())  # either alone does nothing at first

    def relu(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.b(torch.tanh(net.a(x))) - 20.0)
        return net.out(h if not branch or float(x.sum()) > -1e9 else x)

    Task(Net(relu), ["b"], SAMPLES, Unlearning())
    blank = Samples(torch.zeros(9, 6), LABELS[:9], forget_groups(LABELS[:9], 1))
    Task(Net(keyword_and_branch if branch else None), ["a"], blank, Unlearning())  # only zeros to read
