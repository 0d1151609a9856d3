"""Two builds of rledit against each other: is a change slower?

    python -m benchmarks.builds --before FOLDER

FOLDER holds another rledit that can be imported, such as a checkout of an older commit with its compiled
core in ``rledit/``. Each build works in a process of its own and they take turns, so that a slow minute of
the machine is everybody's. Counts must be the same to the integer.
"""
