"""The machine's clocks."""

from __future__ import annotations

import time

import pytest
from fray.clock import SystemClock

pytestmark = pytest.mark.unit


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock here counts the time of a suspended machine")
def test_clock_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    awake_s, suspended_s = 1000.0, 500.0
    readings = {time.CLOCK_MONOTONIC: awake_s, time.CLOCK_BOOTTIME: awake_s + suspended_s}
    monkeypatch.setattr(time, "clock_gettime", readings.__getitem__)
    assert SystemClock().now() == awake_s + suspended_s
