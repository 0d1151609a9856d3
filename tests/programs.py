"""Programs in processes of their own, forked from one that has imported what rledit uses, and nothing of it.

Importing torch, its compiler with the first optimizer, and matplotlib takes longer than what most tests have
to run.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

PREPARED = get_context("forkserver")
PREPARED.set_forkserver_preload(
    [
        *("torch", "torch._dynamo", "gymnasium", "tyro", "rich.progress"),
        *(f"matplotlib.{part}" for part in ("figure", "ticker")),
        *(f"matplotlib.backends.backend_{part}" for part in ("agg", "svg")),
    ]
)


@dataclass(frozen=True)
class Done:
    returncode: int
    """Of one that was killed, the signal's negative number."""
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


class Program:
    """Python code that has just been started.

    Args:
        code: what runs as ``__main__``.
        arguments: follow in ``sys.argv``.
        variables: of the environment, beside or instead of those here.
        largest_file: the limit for what it writes, in bytes.
    """

    def __init__(
        self,
        code: str,
        *arguments: object,
        variables: Mapping[str, str] | None = None,
        largest_file: int | None = None,
    ) -> None:
        self._said = tempfile.TemporaryDirectory(prefix="rledit-program-")
        for name in ("out", "err"):
            Path(self._said.name, name).touch()
        environment = {**os.environ, **(variables or {})}
        given = (code, [str(each) for each in arguments], environment, largest_file, self._said.name)
        self.process = PREPARED.Process(target=_run, args=given)
        self.process.start()

    def wait(self, timeout: float = 120) -> Done:
        """How it ended, and what it has said."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"a program still runs after {timeout} seconds")
        done = Done(self.process.exitcode, self.said("out"), self.said("err"))
        self._said.cleanup()
        return done

    def said(self, stream: str = "out") -> str:
        """So far."""
        return Path(self._said.name, stream).read_text()

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def runs(self) -> bool:
        return self.process.is_alive()


def run(code: str, *arguments: object, **options: object) -> Done:
    """Starts a :class:`Program` and waits for its end."""
    return Program(code, *arguments, **options).wait()  # type: ignore[arg-type]


def _run(
    code: str, arguments: list[str], environment: dict[str, str], largest_file: int | None, folder: str
) -> None:
    for stream, name in ((1, "out"), (2, "err")):
        opened = os.open(Path(folder, name), os.O_WRONLY)
        os.dup2(opened, stream)
        os.close(opened)
    # Shells have what runs in the background ignore it, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
