"""Secure studies over real processes: sites vanish, everybody is killed, nothing is asked twice."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.sum_steps import STEPS, kind_of
from fedtwin_server.study_record import plan_of

from .conftest import Hospitals

SITES = ("aal", "bergen", "cork", "dublin")
SECURE = {
    "privacy__mode": "secure",
    "evaluation": {"bins": 4, "unjudged": True},
    "sites__deadline_s": 60,
    "sites__quorum": 3,
}


@pytest.fixture(scope="module")
def four(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[Hospitals]:
    folder = tmp_path_factory.mktemp("four")
    with LocalConsortium(folder=Path(folder) / "consortium") as consortium:
        made = Hospitals(consortium, wait_until)
        for name in SITES:
            made.admit(name, 80, ("epsilon_lifetime", "1000"))
        made.start(*SITES)
        yield made
        made.store.close()


def check_charges(hospitals: Any, study: str, rounds: int, sites: tuple[str, ...] = SITES) -> None:
    for name in sites:
        made = hospitals.ledger(name, study).made
        assert made["count"] == 1, name
        assert made["train"] <= rounds, name
        assert made["evaluate"] == 1, name


def test_the_coordinator_sees_nothing_but_sums(four: Any) -> None:
    """Whatever a site sent in the study is a step of a sum, and the sum is what is kept."""
    plan = four.plan("sums-only", **SECURE, training__rounds=3)
    four.open(plan)
    four.wait_end(plan.study)
    assert four.state(plan.study) == "finished: ", four.journal(plan.study)
    kept = plan_of(four.store.study(plan.study))
    assert kept.sites.invited == SITES
    assert set(kept.sites.keys) == set(SITES)
    for name in SITES:
        held = {item.held.partition(":")[0] for item in four.left(name) if item.study == plan.study}
        assert held <= {
            "this hospital takes part",
            "step of a secure sum",
            "part of a secure sum, 1 numbers, noised and masked",
            "part of a secure sum, 3 numbers, noised and masked",
            "part of a secure sum, 8 numbers, noised and masked",
        }, held
    assert four.store.answers(plan.study, "query.cohort") == []
    counted, sites = four.store.total(plan.study, "query.cohort")
    assert sites == SITES
    assert abs(counted[0] - 4 * 60) < 6 * 20 * (4 / secure_terms(kept).honest_present) ** 0.5
    check_charges(four, plan.study, 3)


def test_a_site_vanishes_and_the_others_go_on(four: Any) -> None:
    plan = four.plan("one-vanishes", **SECURE, training__rounds=20)
    four.open(plan)
    four.wait_until(lambda: four.rounds(plan.study) >= 3, 60, "rounds")
    four.kill("cork")
    four.wait_until(lambda: four.rounds(plan.study) >= 10, 120, "rounds without it")
    four.start("cork")
    four.wait_end(plan.study, 120)
    assert four.state(plan.study) == "finished: ", four.journal(plan.study)
    took_part = [record.sites for record in four.store.rounds(plan.study)]
    assert took_part[0] == SITES
    assert ("aal", "bergen", "dublin") in took_part
    check_charges(four, plan.study, 20, ("aal", "bergen", "dublin"))


@pytest.mark.slow
def test_everybody_is_killed_in_mid_sum(four: Any) -> None:
    """At each step of a sum once: coordinator and sites go down together, and take it up again."""
    plan = four.plan("all-killed", **SECURE | {"sites__quorum": 4}, training__rounds=40)
    four.open(plan)
    four.wait_until(lambda: four.rounds(plan.study) >= 2, 60, "rounds")
    seen = set()
    for so_far in (5, 15, 25):
        four.wait_until(lambda least=so_far: four.rounds(plan.study) >= least, 60, "rounds")
        four.kill_coordinator()
        four.kill(*SITES)
        seen |= {step for step in STEPS if four.store.answers(plan.study, kind_of("train", step))}
        four.start_coordinator()
        four.start(*SITES)
    four.wait_end(plan.study, 120)
    assert four.state(plan.study) == "finished: ", four.journal(plan.study)
    assert seen, "every kill fell between two sums"
    assert {record.sites for record in four.store.rounds(plan.study)} == {SITES}
    check_charges(four, plan.study, 40)
    for name in SITES:
        assert four.ledger(name, plan.study).made["train"] == 40
    assert "refused" not in four.journal(plan.study)


def test_too_few_sites_make_no_sum(four: Any) -> None:
    """Two of four are gone: the study waits, and goes on when one of them is back."""
    plan = four.plan("two-gone", **SECURE | {"sites__deadline_s": 5}, training__rounds=20)
    four.open(plan)
    four.wait_until(lambda: four.rounds(plan.study) >= 2, 60, "rounds")
    four.kill("aal", "bergen")
    four.wait_until(lambda: "waits" in four.journal(plan.study), 60, "the study to wait")
    before = four.rounds(plan.study)
    assert before < 20
    four.start("aal", "bergen")
    four.wait_end(plan.study, 120)
    assert four.state(plan.study) == "finished: ", four.journal(plan.study)
