"""Who asks for quiet gets it, and nobody else."""

from __future__ import annotations

import logging
import threading

import pytest

from rledit.experiments.quiet import quiet

logger = logging.getLogger("rledit")


def test_only_the_thread_that_asks_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    inside, outside = threading.Event(), threading.Event()

    def other() -> None:
        assert inside.wait(60)
        logger.warning("from the other thread")
        outside.set()

    thread = threading.Thread(target=other)
    thread.start()
    level = logger.level
    with quiet():
        inside.set()
        assert outside.wait(60)
        assert logger.level == level
        logger.warning("unheard")
        logger.error("an error")
        with quiet():
            logger.warning("unheard, too")
        logger.warning("still unheard")
    thread.join()
    logger.warning("heard again")
    assert caplog.messages == ["from the other thread", "an error", "heard again"]


def test_an_exception_ends_the_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError), quiet():
        raise RuntimeError
    logger.warning("heard")
    assert caplog.messages == ["heard"]
