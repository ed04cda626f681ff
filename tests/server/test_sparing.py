"""How much of what is refused is written: the first ones, some later, and how many were not."""

import logging

import pytest

from fedtwin_server.sparing import Allowance, SparingLog


def test_a_bucket_refills_with_time_and_never_overflows() -> None:
    moments = iter([0, 0, 0, 0, 1, 1, 1, 100, 100, 100, 100, 50, 50.5])
    bucket = Allowance(lambda: float(next(moments)), burst=3, per_second=2)
    taken = [bucket.take() for _ in range(12)]
    assert taken == [True, True, True, True, True, False, True, True, True, False, False, True]


def test_refusals_kept_back_are_counted_and_faults_always_pass(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    log = logging.getLogger("fedtwin.test_sparing")
    sparing = SparingLog(Allowance(lambda: now, burst=2, per_second=1))
    log.addFilter(sparing)
    try:
        for number in range(7):
            log.warning("refused %d", number)
        log.error("a fault")
        log.info("news")
        now = 1.0
        log.warning("refused %d", 7)
    finally:
        log.removeFilter(sparing)
    expected = ["refused 0", "refused 1", "a fault"]
    last = "refused 7 (before it, 5 refusals were not written)"
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == [*expected, last]
