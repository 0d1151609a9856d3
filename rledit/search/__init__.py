"""Search: what every way to spend candidates has in common.

``search``     budget, callback, state
``elites``     the best candidates so far
``selection``  the choice of the edit on the validation split
``result``     what a search gives
"""

from .elites import Elites
from .result import INTERRUPTED, Result, Row, Selection
from .search import Search, SearchEnded
from .selection import select

__all__ = ["INTERRUPTED", "Elites", "Result", "Row", "Search", "SearchEnded", "Selection", "select"]
