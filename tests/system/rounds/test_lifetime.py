"""A patient's lifetime budget over real processes: who is spent is left out, and nobody sees it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_client.node.ledger import Ledger

SITES = ("oslo", "paris")
# At these numbers a lifetime has room for one such study, not for two.
POLICY = (("epsilon_lifetime", "3"), ("epsilon_per_study", "3"))
DEAR: dict[str, Any] = {
    "mode": "local",
    "epsilon": 2.9,
    "delta": 1e-5,
    "clipping_norm": 1.0,
    "noise_multiplier": 3.0,
    "cohort_count_noise": 20.0,
    "hospitals_per_patient": 1,
}


@pytest.fixture(scope="module")
def spent(
    tmp_path_factory: pytest.TempPathFactory,
    new_hospitals: type[Any],
    wait_until: Callable[..., None],
) -> Iterator[Any]:
    """Two hospitals whose first study, on patients under sixty, is over."""
    folder = tmp_path_factory.mktemp("lifetime")
    with LocalConsortium(folder=folder / "consortium") as consortium:
        made = new_hospitals(consortium, wait_until)
        for name in SITES:
            made.admit(name, 120, *POLICY)
        made.start(*SITES)
        made.open(young(made, "young"))
        made.wait_end("young")
        assert made.state("young") == "finished: "
        yield made


def young(hospitals: Any, study: str, **changes: Any) -> Any:
    return hospitals.plan(
        study,
        cohort__maximum_age_years=59,
        privacy=DEAR,
        training__rounds=3,
        **changes,
    )


def members(hospitals: Any, name: str, study: str) -> set[int]:
    with Ledger(hospitals.site(name).ledger_file) as ledger:
        return set(ledger.members(ledger.account(study).reservation.plan_hash) or ())


def test_the_spent_are_left_out_of_the_next_study_and_nobody_outside_learns_it(spent: Any) -> None:
    """The second study is on everybody: only those of sixty and more are in it."""
    everybody = spent.plan("everybody", privacy=DEAR)
    spent.open(everybody)
    spent.wait_end("everybody")
    assert spent.state("everybody") == "finished: "
    for name in SITES:
        first, second = members(spent, name, "young"), members(spent, name, "everybody")
        assert first
        assert second
        assert not first & second
        assert len(first | second) == 120
        said = f"{len(first)} patients are left out because their lifetime budget is spent"
        assert said in spent.log(name)
        held = " ".join(item.held for item in spent.left(name))
        assert "left out" not in held
        assert "budget" not in held
    outside = spent.journal("everybody") + spent.log("coordinator")
    assert "budget" not in outside
    assert "left out" not in outside


def test_too_few_left_is_a_refusal_without_its_reason(spent: Any) -> None:
    spent.open(young(spent, "young-again"))
    spent.wait_until(
        lambda: set(spent.store.decisions("young-again")) == set(SITES), 30, "both decisions"
    )
    assert not any(spent.store.decisions("young-again").values())
    outside = spent.journal("young-again") + spent.log("coordinator")
    assert "budget" not in outside
    assert "patients" not in spent.journal("young-again")
    for name in SITES:
        assert "study young-again is declined" in spent.log(name)


def test_check_says_it_to_the_hospital_alone(spent: Any) -> None:
    home = str(spent.site("oslo").folder)
    said = spent.consortium.run("client", "check", "--study", "everybody", "--home", home)
    used = len(members(spent, "oslo", "everybody"))
    assert f"of these {120 - used} are not used by the study" in said
