"""Sleep that a request to stop ends."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from gshf_release.errors import Interrupted
from gshf_release.run import interrupt


def test_sleep_lasts_as_long_as_it_is_told() -> None:
    begun = time.monotonic()
    interrupt.sleep(0.25)
    assert time.monotonic() - begun >= 0.25


def test_a_request_to_stop_ends_a_long_sleep() -> None:
    with interrupt.stop_gently():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Interrupted):
            interrupt.sleep(600)
