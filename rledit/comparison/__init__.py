"""Methods side by side: the same requests, the same seeds, the same audits, in one table.

``task``     what is compared on: a request and what its audits read; named ones and a user's own file
``cells``    the folder of a comparison, whose finished cells are never measured again
``workers``  jobs over processes that may die
``measure``  what happens in them: a network and its retrained twin, then a method and its audits
``compare``  all of that in order
``table``    rows as CSV and Markdown, and which methods are on the front
``fronts``   the same as figures
"""

from .compare import compare
from .task import NAMED_TASKS, ComparisonTask, TaskSource

__all__ = ["NAMED_TASKS", "ComparisonTask", "TaskSource", "compare"]
