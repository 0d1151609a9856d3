"""Types of the compiled core, csrc/bindings/module.cpp. Arrays are C-contiguous; nothing is converted."""

from typing import Any

from numpy.typing import NDArray

_Array = NDArray[Any]

def apply_lowrank_(weight: _Array, left: _Array, right: _Array, world: str, scale: float) -> None: ...

class PreparedTail:
    def __init__(
        self,
        activations: _Array,
        weights: list[_Array],
        biases: list[_Array | None],
        nonlinearities: list[str],
        labels: _Array,
        groups: _Array,
        precision: str,
        weights_stay: bool = False,
        fit: _Array | None = None,
        ridge: float = 1e-3,
    ) -> None: ...
    def score(
        self,
        weights: list[_Array | None],
        lefts: list[_Array | None],
        rights: list[_Array | None],
        candidates: int,
        world: str,
        scale: float,
        wanted: list[str],
        bins: int,
        margin_limit: float,
        algebra: str = ...,
    ) -> tuple[_Array, ...]: ...
    @property
    def bytes(self) -> int: ...

def tally_logits(
    logits: _Array, labels: _Array, groups: _Array, wanted: list[str], bins: int, margin_limit: float
) -> tuple[_Array, ...]: ...
def tally_features(
    features: _Array,
    labels: _Array,
    groups: _Array,
    fit: _Array,
    ridge: float,
    classes: int,
    wanted: list[str],
) -> tuple[_Array, _Array]: ...
def weigh_shares(counts: _Array, shares: list[tuple[int, float, float]]) -> _Array: ...
def available_isas() -> list[str]: ...
def active_isa() -> str: ...
def select_isa(name: str) -> None: ...
def num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def _quota_cpus(membership: str, root: str) -> int: ...
def probe_peak(precision: str, seconds: float) -> float: ...
def probe_bandwidth(bytes: int, seconds: float) -> float: ...
