"""Where modules and names have moved: the old ones still work, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "activation_cache": "storage.cache",
    "baselines": "methods.retrain",
    "data": "zoo.data",
    "debiasing": "recipes.debiasing",
    "edit": "edits.edit",
    "edit_file": "edits.file",
    "edit_weights": "edits.weights",
    "fairness": "objectives",
    "fairness.metrics": "objectives.fairness",
    "fairness.objective": "objectives.debias",
    "files": "storage.files",
    "fingerprint": "storage.fingerprint",
    "models": "zoo.models",
    "ppo.policy": "policies.gaussian",
    "ppo.selection": "search.selection",
    "runs": "experiments",
    "training": "zoo.training",
    "unlearning": "recipes.unlearning",
    "worlds.actions": "engine.actions",
    "worlds.directions": "engine.directions",
    "worlds.episodes": "engine.episodes",
    "worlds.observations": "engine.observations",
    "worlds.step_graph": "engine.step_graph",
    "worlds.workers": "engine.workers",
}
"""Modules of 0.1 by their names within rledit, and where they are now, with all that lay in them."""

NAMES = {
    "edit": {"World": "ops.rules:Kind"},
    "edit_weights": {"listed": "targets"},
    "ppo.policy": {
        "Agent": "ppo.agent",
        "NotFiniteError": "ppo.agent",
        "PARAMETER_LIMIT": "ppo.agent",
        "one_thread": "runtime",
    },
    "ppo.selection": {"Elites": "search.elites", "Selection": "search.result", "mean_actions": "ppo.trainer"},
    "training": {"seeded": "runtime"},
}
"""Names that have moved out of their module; after a colon, their new names."""

RENAMED = {
    "zoo.data": {"LabelledImages": "LabeledImages"},
    "zoo.data.dataset": {"LabelledImages": "LabeledImages"},
    "zoo.models": {"HEAD_RECIPE": "HEAD_HYPERPARAMETERS", "MLP_RECIPE": "MLP_HYPERPARAMETERS"},
    "zoo.models.toxicity": {
        "HEAD_RECIPE": "HEAD_HYPERPARAMETERS",
        "MLP_RECIPE": "MLP_HYPERPARAMETERS",
        "SYNTHETIC_RECIPE": "SYNTHETIC_HYPERPARAMETERS",
    },
    "zoo.training": {"RECIPES": "HYPERPARAMETERS", "Recipe": "Hyperparameters"},
}
"""Names that have changed within their module; each of these modules calls :func:`renamed`."""

_PREFIX = "rledit."


def new_name(old: str) -> str | None:
    """The full name of what an old full name stands for now, or None if it is not one that has moved."""
    if not old.startswith(_PREFIX):
        return None
    parts = old.removeprefix(_PREFIX).split(".")
    for length in range(len(parts), 0, -1):  # the longest name that has moved, and what lies in it
        moved = MOVED.get(".".join(parts[:length]))
        if moved is not None:
            return _PREFIX + ".".join([moved, *parts[length:]])
    return None


class _Alias(Loader):
    """The module under its new name is the module under its old one, unless some of it went elsewhere."""

    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._new)
        elsewhere = NAMES.get(spec.name.removeprefix(_PREFIX), {})
        if elsewhere:
            together = ModuleType(spec.name, module.__doc__)
            public = {name: value for name, value in vars(module).items() if not name.startswith("__")}
            vars(together).update(public)
            if self._new.removeprefix(_PREFIX) in RENAMED:
                together.__getattr__ = module.__getattr__  # type: ignore[method-assign]
            for name, home in elsewhere.items():
                place, _, renamed_to = home.partition(":")
                found = getattr(importlib.import_module(_PREFIX + place), renamed_to or name)
                setattr(together, name, found)
            module = together
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # importlib has put the alias's there


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = new_name(fullname)
        if new is None:
            return None
        _warn(fullname, new, above=1)
        return ModuleSpec(fullname, _Alias(new))


def _warn(old: str, new: str, above: int) -> None:
    """Blame the code ``above`` frames above the caller; importlib's are skipped by warnings itself."""
    warnings.warn(f"{old} is deprecated, use {new} instead", DeprecationWarning, stacklevel=2 + above)


def install() -> None:
    """Make old names importable. First on the path: the files of a moved package would else be found through
    its alias, and loaded once more under the old name."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def attribute(package: str, name: str) -> ModuleType:
    """What ``package.name`` was, a module that has moved; AttributeError for anything else."""
    old = f"{package}.{name}"
    new = MOVED.get(old.removeprefix(_PREFIX))
    if new is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    _warn(old, _PREFIX + new, above=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(old)


def renamed(module: str, name: str) -> object:
    """What ``module.name`` was, which has another name now; AttributeError for anything else."""
    new = RENAMED[module.removeprefix(_PREFIX)].get(name)
    if new is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    _warn(f"{module}.{name}", f"{module}.{new}", above=2)
    return getattr(sys.modules[module], new)
