"""What every method of unlearning is given, and what it gives back.

A method is a function ``(problem, budget, seed) -> MethodResult`` with an entry in :data:`METHODS`, made by
:func:`method`. Methods know nothing of audits, and never see the test split. What all of them keep to: the
problem's model, the caller's random state and modes stay as they are, and the same seed gives the same model
on the same machine and number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Literal, Protocol, TypeAlias

from torch import nn

from ..edits.edit import Edit
from ..runtime import plain_modes
from ..samples import Samples
from ..storage.files import Json
from ..zoo.training import Hyperparameters

Need: TypeAlias = Literal[
    "gradients", "forget data", "retain data", "forget classes", "architecture", "training"
]
"""What a method needs besides the weights: gradients of the model; samples that are to be forgotten, or
kept; whole classes to forget rather than single samples; a new network of the same architecture; the recipe
that the model was trained with, and that architecture."""

GROUPS = ("forget", "retain")
"""The groups that all samples of a problem have."""


@dataclass(frozen=True, eq=False)
class UnlearningProblem:
    """One request to forget, as methods see it. All samples have the groups "forget" and "retain".

    Attributes:
        model: trained, in eval mode; methods leave it as it is.
        train: all that the model was trained on.
        reward: the part of it that candidates are scored on.
        validation: never trained on, for choosing settings and edits.
        classes: C of the logits.
        targets: names of the modules that a low-rank edit may change.
        forget: the classes to forget; empty where single samples are to be forgotten.
        build: makes the same architecture with random weights; None if that is not possible.
        training: what the model was trained with; None if unknown.

    Raises:
        ValueError: fewer than two classes, classes to forget that the model does not have or that are all
            there are, or samples without one of the groups.
    """

    model: nn.Module
    train: Samples
    reward: Samples
    validation: Samples
    classes: int
    targets: tuple[str, ...]
    forget: tuple[int, ...] = ()
    build: Callable[[], nn.Module] | None = None
    training: Hyperparameters | None = None

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes: expected at least 2, got {self.classes}")
        if unknown := [label for label in self.forget if not 0 <= label < self.classes]:
            raise ValueError(f"forget: expected classes 0..{self.classes - 1}, got {unknown}")
        if len(set(self.forget)) == self.classes:
            raise ValueError("forget: expected at least one class to remain, got all of them")
        for name in ("train", "reward", "validation"):
            split: Samples = getattr(self, name)
            if missing := [group for group in GROUPS if group not in split.groups]:
                raise ValueError(
                    f"{name}: expected samples with the groups forget and retain, "
                    f"{' and '.join(missing)} missing"
                )


@dataclass(frozen=True)
class Budget:
    """What a method may spend. None stands for the method's own default, as published.

    Attributes:
        candidates: evaluations, of searches for an edit.
        epochs: passes over the data, of methods that train, for each setting that they try.

    Raises:
        ValueError: for a number below 1.
    """

    candidates: int = 6400
    epochs: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("candidates", self.candidates), ("epochs", self.epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What a method made.

    Attributes:
        model: after forgetting, in eval mode; not the problem's.
        edit: the low-rank edit that made it, where there is one.
        evaluations: candidates that were scored, or settings that were tried, on samples.
        steps: optimizer steps, or batches whose gradients were taken, of all settings that were tried.
        settings: those that were chosen, for the record.
    """

    model: nn.Module
    edit: Edit | None = None
    evaluations: int = 0
    steps: int = 0
    settings: Mapping[str, Json] = field(default_factory=dict)


class MethodFunction(Protocol):
    def __call__(self, problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult: ...


@dataclass(frozen=True)
class Method:
    """A method with what tables say of it.

    Attributes:
        name: as the command line has it.
        title: as tables have it.
        source: paper, with its arXiv number or venue.
        needs: see :data:`Need`.
        run: the function, which checks what it needs first.
    """

    name: str
    title: str
    source: str
    needs: frozenset[Need]
    run: MethodFunction

    def __call__(self, problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
        """Run the method.

        Raises:
            ValueError: if the problem lacks what the method needs, or its model or samples do not allow it.
            FloatingPointError: if every setting gave logits that are not numbers.
        """
        return self.run(problem, budget, seed)

    def check(self, problem: UnlearningProblem) -> None:
        """Raise ValueError if the problem lacks what the method needs."""
        if "forget classes" in self.needs and not problem.forget:
            raise ValueError(
                f"{self.name}: expected a problem with classes to forget, since the method cannot "
                "forget single samples; got none"
            )
        if "architecture" in self.needs and problem.build is None:
            raise ValueError(
                f"{self.name}: expected a problem with build, since the method needs a network with random "
                "weights; got none"
            )
        if "training" in self.needs and (problem.build is None or problem.training is None):
            raise ValueError(
                f"{self.name}: expected a problem with build and training, since the method trains from "
                "scratch; got none"
            )


METHODS: dict[str, Method] = {}
"""All methods by name, in the order of tables."""


def method(
    name: str, *, title: str, source: str, needs: Iterable[Need]
) -> Callable[[MethodFunction], MethodFunction]:
    """Enter a function into :data:`METHODS`.

    What takes its place checks the problem first, and runs it in torch's plain modes.

    Raises:
        ValueError: for a name that is taken.
    """

    def enter(function: MethodFunction) -> MethodFunction:
        if name in METHODS:
            raise ValueError(f"name: {name!r} is taken")

        @wraps(function)
        def run(problem: UnlearningProblem, budget: Budget, seed: int) -> MethodResult:
            entry.check(problem)
            with plain_modes(grad=True):
                return function(problem, budget, seed)

        entry = METHODS[name] = Method(name, title, source, frozenset(needs), run)
        return run

    return enter
