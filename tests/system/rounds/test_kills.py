"""kill -9 of the coordinator and of sites: the study goes on, and nothing is charged twice."""

from typing import Any

import pytest

SITES = ("aal", "bergen", "cork")
MANY = {"training__rounds": 30, "sites__quorum": 3, "sites__deadline_s": 60}


def check_whole(hospitals: Any, study: str, rounds: int) -> None:
    """All rounds with everybody; each site charged once for each, and all answers taken."""
    assert hospitals.state(study) == "finished: ", hospitals.journal(study)
    closed = hospitals.store.rounds(study)
    assert [record.round for record in closed] == list(range(1, rounds + 1))
    assert {record.sites for record in closed} == {SITES}
    for name in SITES:
        account = hospitals.ledger(name, study)
        assert account.made == {"count": 1, "train": rounds, "evaluate": 1}, name
    assert "refused" not in hospitals.journal(study)


def test_the_coordinator_is_killed_between_and_in_rounds(hospitals: Any) -> None:
    plan = hospitals.plan("coordinator-killed", **MANY)
    hospitals.open(plan)
    for so_far in (3, 10):
        hospitals.wait_until(
            lambda least=so_far: hospitals.rounds(plan.study) >= least, 60, "rounds"
        )
        hospitals.kill_coordinator()
        before = hospitals.rounds(plan.study)
        assert before < 30, "the study was over before the kill"
        hospitals.start_coordinator()
        assert hospitals.rounds(plan.study) >= before
    hospitals.wait_end(plan.study)
    check_whole(hospitals, plan.study, 30)


def test_a_site_is_killed_in_mid_round(hospitals: Any) -> None:
    """With a quorum of all three, the others wait for it to come back."""
    plan = hospitals.plan("site-killed", **MANY)
    hospitals.open(plan)
    for so_far in (3, 10):
        hospitals.wait_until(
            lambda least=so_far: hospitals.rounds(plan.study) >= least, 60, "rounds"
        )
        hospitals.kill("aal")
        assert hospitals.rounds(plan.study) < 30, "the study was over before the kill"
        hospitals.start("aal")
    hospitals.wait_end(plan.study)
    check_whole(hospitals, plan.study, 30)


def test_a_killed_worker_costs_nothing(hospitals: Any) -> None:
    """The node says so and starts it again; the charge is not doubled."""
    plan = hospitals.plan("worker-killed", **MANY)
    hospitals.open(plan)
    hospitals.wait_until(lambda: hospitals.rounds(plan.study) >= 3, 60, "rounds")
    killed = 0
    while not killed and hospitals.rounds(plan.study) < 25:
        killed = hospitals.kill_workers("bergen")
    assert killed
    hospitals.wait_end(plan.study)
    check_whole(hospitals, plan.study, 30)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["coordinator", "site", "everybody"])
def test_kills_in_every_phase(hospitals: Any, who: str) -> None:
    """While gathering, counting, in and between rounds, and in the evaluation; again and again."""
    plan = hospitals.plan(f"phases-{who}", **{**MANY, "training__rounds": 200})
    hospitals.open(plan)

    def gone_on(goal: int) -> bool:
        return hospitals.rounds(plan.study) >= min(goal, 200)

    kills = late = 0
    while hospitals.store.study(plan.study).status in {"open", "running"} and late < 4:
        before = hospitals.rounds(plan.study)
        late += before == 200  # the evaluation; whoever is killed for ever never answers
        if who in {"coordinator", "everybody"}:
            hospitals.kill_coordinator()
        if who in {"site", "everybody"}:
            hospitals.kill("aal")
        if who == "everybody":
            hospitals.kill("bergen", "cork")
        kills += 1
        assert hospitals.rounds(plan.study) >= before
        if who in {"coordinator", "everybody"}:
            hospitals.start_coordinator()
        hospitals.start(*SITES)
        if kills > 3:  # the first kills hit gathering and counting
            hospitals.wait_until(lambda goal=before: gone_on(goal + 9), 60, f"kill {kills}")
    assert kills > 10
    hospitals.wait_end(plan.study)
    check_whole(hospitals, plan.study, 200)
