"""Tasks and scorers take the memory of one copy of the model, whatever its targets, precision and way."""

from __future__ import annotations

import sys

import pytest
from programs import run

MEASURE = """
import ctypes, gc, sys, warnings, torch, rledit
from torch import nn
# malloc gives back what is freed at once, so that the kernel knows what is in use.
assert ctypes.CDLL(None).mallopt(-3, 65536) == 1, "M_MMAP_THRESHOLD"
torch.set_num_threads(1)
torch.manual_seed(0)
warnings.simplefilter("ignore")

def peak(reset=False):
    if reset:
        open("/proc/self/clear_refs", "w").write("5")
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmRSS" if reset else "VmHWM"].split()[0]) * 1024

class Chain(nn.Module):  # of equal layers
    def __init__(self, wide, depth, function=torch.relu, whole=False):
        super().__init__()
        self.stem, self.out = nn.Linear(9, wide), nn.Linear(wide, 3)
        self.layers = nn.ModuleList(nn.Linear(wide, wide) for _ in range(depth))
        self.function, self.whole = function, whole
    def forward(self, x):
        x = self.function(self.stem(x))
        for layer in self.layers:
            x = self.function(layer(x))
        x = self.out(x)
        if self.whole and float(x.sum()) > 1e9:
            return -x
        return x

class Images(nn.Module):
    def __init__(self, wide, depth):
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, wide, 3, padding=1), nn.Linear(wide, 3)
        self.layers = nn.ModuleList(nn.Conv2d(wide, wide, 3, padding=1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(wide) for _ in range(depth))
    def forward(self, x):
        x = torch.relu(self.stem(x))
        for layer, norm in zip(self.layers, self.norms):
            x = torch.relu(norm(layer(x)))
        return self.out(x.mean((2, 3)))

class Words(nn.Module):
    def __init__(self, wide, depth):
        super().__init__()
        self.words, self.chain = nn.Embedding(40 * wide, 9), Chain(wide, depth)
    def forward(self, x):
        return self.chain(self.words(x).mean(1))

labels = torch.arange(60) % 3
groups = rledit.forget_groups(labels, 1)
flat = torch.randn(60, 9)
small_images, words = torch.randn(60, 3, 2, 2), torch.randint(300, (60, 4))
class Compared(rledit.Unlearning):  # with the unedited model, which is scored at once
    needs_unedited = True
    def relative_to(self, unedited):
        return self

def chain(wide, depth, function=torch.relu, whole=False, dtype=torch.float32):
    return lambda tiny: Chain(8 if tiny else wide, depth, function, whole).to(dtype)

layers = ["layers.%d" % i for i in range(4)]
CASES = {
    "tail of the last layer": (chain(1500, 4), ["out"], flat),
    "tail of one layer": (chain(2000, 1), layers[:1], flat),
    "tail of all layers": (chain(1000, 4), layers, flat),
    "tail behind a target": (chain(2000, 1), ["stem"], flat),
    "suffix of one layer": (chain(2000, 1, nn.functional.elu), layers[:1], flat),
    "suffix of two layers": (chain(1500, 2, nn.functional.elu), layers[:2], flat),
    "suffix behind a target": (chain(1500, 4, nn.functional.elu), ["stem"], flat),
    "whole of one layer": (chain(2000, 1, whole=True), layers[:1], flat),
    "whole of all layers": (chain(1000, 4, whole=True), layers, flat),
    "early convolution": (lambda tiny: Images(8 if tiny else 256, 6), ["stem"], small_images),
    "late convolution": (lambda tiny: Images(8 if tiny else 256, 6), ["layers.5"], small_images),
    "half, tail": (chain(1000, 10, dtype=torch.bfloat16), ["out"], flat.bfloat16()),
    "half, suffix": (chain(1000, 10, nn.functional.elu, dtype=torch.float16), ["stem"], flat.half()),
    "half, whole": (chain(1000, 10, whole=True, dtype=torch.bfloat16), ["stem"], flat.bfloat16()),
    "half, words": (lambda tiny: Words(8 if tiny else 1000, 10).bfloat16(), ["chain.out"], words),
}
for kind in sys.argv[1:] or CASES:
    make, targets, inputs = CASES[kind]
    samples = rledit.Samples(inputs, labels, groups)
    def score(model):
        return rledit.Task(model, targets, samples, Compared()).scorer()
    score(make(True)).score({})
    model = make(False)
    gc.collect()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    before = peak(reset=True)
    scorer = score(model)
    print(kind, scorer.way, (peak() - before) / size, sep="|", flush=True)
    del scorer, model
"""

WAYS = {"tail": "tail", "half, tail": "tail", "whole": "whole", "half, whole": "whole", "half, words": "tail"}
# Of each way, of several layers, of convolutions and of half precision. The first one takes a little for
# good, which of a large model is little.
SAMPLE = (
    "tail of the last layer",
    "tail of all layers",
    "suffix behind a target",
    "late convolution",
    "half, whole",
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status")
@pytest.mark.parametrize(
    "kinds", [pytest.param(SAMPLE, id="sample"), pytest.param((), id="all", marks=pytest.mark.exhaustive)]
)
def test_a_task_and_its_scorer_take_one_copy_of_the_model(kinds: tuple[str, ...]) -> None:
    done = run(MEASURE, *kinds, variables={"RLEDIT_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    measured = [line.split("|") for line in done.stdout.splitlines()]
    assert len(measured) == (len(kinds) or 15)
    for kind, way, share in measured:
        assert way == WAYS.get(kind, WAYS.get(kind.split()[0], "suffix")), kind
        # 1.4 to 4.1 with copies for checks, folding, packing or float32
        assert 0.8 < float(share) < 1.3, kind
