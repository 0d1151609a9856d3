"""Names of identity groups that cannot be taken for the groups of a run itself."""

from __future__ import annotations

import logging
from dataclasses import replace

from ...zoo.data import Comments

logger = logging.getLogger("rledit")

RESERVED = ("utility", "bias")
"""What the samples of a run call comments and bias sentences."""


def without_reserved_names(comments: Comments) -> Comments:
    """The same comments, with a group called "bias" as "bias (group)", and so on; with a warning."""
    taken = [name for name in comments.identities if name in RESERVED]
    if not taken:
        return comments
    names = {name: free_name(name, "group", (*RESERVED, *comments.identities)) for name in taken}
    for name, other in names.items():
        logger.warning(
            "%s: the identity group %r is called %r here, since a run has a group of that name.",
            comments.name,
            name,
            other,
        )
    return replace(
        comments, identities={names.get(name, name): mask for name, mask in comments.identities.items()}
    )


def free_name(name: str, kind: str, taken: tuple[str, ...]) -> str:
    """``name (kind)``, with a number where that is taken."""
    number, free = 1, f"{name} ({kind})"
    while free in taken:
        number += 1
        free = f"{name} ({kind} {number})"
    return free
