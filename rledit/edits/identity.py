"""Whether weights are those that an edit was learned for, in whatever precision they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..storage.fingerprint import CASTS, dtype_name, fingerprint
from .weights import Weight


@dataclass(frozen=True)
class LearnedFor:
    """The weights that an edit was learned for.

    Attributes:
        fingerprint: :func:`rledit.storage.fingerprint` of them.
        casts: :func:`rledit.storage.fingerprints` of them; empty where it was not recorded.
    """

    fingerprint: str
    casts: Mapping[str, str] = field(default_factory=dict)

    def check(self, weights: Mapping[str, Weight], found: str, force: bool, cast: bool) -> bool:
        """Whether these weights are another precision of those learned for.

        Args:
            weights: the targets', by name.
            found: their fingerprint.
            force: take any weights.
            cast: take the weights in another precision.

        Raises:
            ValueError: other weights (unless `force`), or a cast of them (unless `cast` or `force`).
        """
        if found == self.fingerprint or (force and not cast):
            return False
        recognized = self._recognize(weights, found)
        if recognized and cast:
            return True
        if force:
            return False
        names = list(weights)
        if recognized:
            raise ValueError(
                f"the weights of {names} are {recognized}: either apply the edit in the precision that it "
                "was learned in and cast the edited model, or apply it to these with cast=True "
                "(rledit apply --cast)"
            )
        raise ValueError(
            f"the edit was learned for other weights of {names}: expected {self.fingerprint}, found {found}; "
            "force=True (rledit apply --force) applies it anyway"
        )

    def _recognize(self, weights: Mapping[str, Weight], found: str) -> str:
        """A description of how these weights come from those learned for; "" if they do not."""
        for name, cast in self.casts.items():
            if found == cast:
                return f"those that the edit was learned for, cast to {name}"
        for dtype in CASTS:  # the other way round: these have more precision
            if fingerprint(weights, dtype) == self.fingerprint:
                name = dtype_name(dtype)
                return f"those that the edit was learned for in another precision: there they were {name}"
        return ""
