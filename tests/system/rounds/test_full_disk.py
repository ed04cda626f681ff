"""A hospital's disk is full in mid-study: a sentence, nothing lost, and on when there is room."""

import resource
from typing import Any


def limit(process: Any, size: int) -> None:
    """Let a running process write no file beyond a size; -1: as it was."""
    value = resource.RLIM_INFINITY if size < 0 else size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (value, resource.RLIM_INFINITY))


def wait_for_the_sentence(hospitals: Any, study: str, before: int) -> None:
    """Until the node has said what is wrong, and the others have gone on without it."""
    hospitals.wait_until(
        lambda: "cannot be used: the disk" in hospitals.log("bergen")[before:], 60, "the sentence"
    )
    full_at = hospitals.rounds(study)
    hospitals.wait_until(lambda: hospitals.rounds(study) > full_at + 1, 60, "the others")


def test_no_room_for_the_ledger(hospitals: Any) -> None:
    """The other two go on; the full one says so, and takes part again when there is room."""
    plan = hospitals.plan("full-disk", training__rounds=40, sites__deadline_s=3)
    hospitals.open(plan)
    hospitals.wait_until(lambda: hospitals.rounds(plan.study) >= 3, 60, "rounds")
    before = len(hospitals.log("bergen"))
    # More than its log will have, and less than the write-ahead files of its databases.
    limit(hospitals.running["bergen"], before + 16_384)
    try:
        wait_for_the_sentence(hospitals, plan.study, before)
    finally:
        limit(hospitals.running["bergen"], -1)
    hospitals.wait_end(plan.study, 90)
    assert hospitals.state(plan.study) == "finished: "
    closed = hospitals.store.rounds(plan.study)
    used = sum("bergen" in record.sites for record in closed)
    assert 3 <= used < 40, "the disk was never full for a whole round"
    hospitals.wait_until(
        lambda: not hospitals.ledger("bergen", plan.study).open, 30, "the account to be closed"
    )
    assert hospitals.ledger("bergen", plan.study).made["train"] >= used
    assert "Traceback" not in hospitals.log("bergen")[before:]
    again = hospitals.plan("room-again", sites__quorum=3)
    hospitals.open(again)
    hospitals.wait_end(again.study)
    assert hospitals.state(again.study) == "finished: "
