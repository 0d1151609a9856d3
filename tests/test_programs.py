"""Programs that tests start run as from a shell, with an environment and streams of their own."""

from __future__ import annotations

import signal
import sys
import time

from programs import Program, run


def test_a_program_is_a_fresh_process() -> None:
    code = """
import os, sys
print(sys.argv[1:], os.environ["SAID"], "torch" in sys.modules, "rledit" in sys.modules)
print("and this", file=sys.stderr)
sys.exit(3)
"""
    done = run(code, 1, "two", variables={"SAID": "x"})
    assert (done.returncode, done.stderr) == (3, "and this\n")
    assert done.stdout == "['1', 'two'] x True False\n"
    assert "rledit" in sys.modules


def test_errors_and_signals_are_seen() -> None:
    assert run("raise ValueError('no')").stderr.endswith("ValueError: no\n")
    code = """
import sys, time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
"""
    for number, expected in ((signal.SIGKILL, -9), (signal.SIGINT, 7)):
        program = Program(code)
        while program.runs() and program.said() != "ready\n":
            time.sleep(0.01)
        program.send_signal(number)
        assert program.wait().returncode == expected
