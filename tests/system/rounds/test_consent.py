"""Who withdraws, or is erased, between two rounds of a running study is absent from the next.

In mode `none` every update is exact, so that each round's model says which patients were in it: it
is computed again here, with the patient and without, and compared.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_client.assemble import site_secret
from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.patients import absent_from, erase, withdraw
from fedtwin_client.records.pseudonyms import IdentityMap
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn, load_rows
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import read_content
from fedtwin_protocol.parameters import flatten, initial_parameters
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb

ROUNDS = 150
CHANGES: dict[str, Any] = {
    "privacy__mode": "none",
    "training__rounds": ROUNDS,
    "training__learning_rate": 0.1,
    "sites__quorum": 1,
    "sites__gathering_s": 2,
    "sites__smallest_cohort": 5,
}


@pytest.fixture(scope="module")
def hospital(
    hospitals_class: Any,
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: Callable[..., None],
) -> Iterator[Any]:
    """One hospital that may give exact sums away."""
    folder = tmp_path_factory.mktemp("consent")
    with LocalConsortium(folder=folder / "consortium") as consortium:
        made = hospitals_class(consortium, wait_until)
        made.admit("aal", 80, ("modes", "[none]"), ("smallest_cohort", "5"))
        made.start("aal")
        yield made
        made.store.close()


def patients(hospital: Any, plan: StudyPlan) -> tuple[CohortRows, list[str]]:
    """The cohort without whom left before, and each patient's number."""
    home, now = hospital.site("aal"), datetime.now(UTC)
    records = home.records
    rows = load_rows(plan, records, now)
    rows = rows.without(absent_from(home, frozenset(rows.subject_ids.tolist()), now))
    way_back = IdentityMap(records / "identities.sqlite")
    return rows, [way_back.who_is(subject).value for subject in rows.subject_ids.tolist()]


def models(hospital: Any, plan: StudyPlan) -> list[Mapping[str, np.ndarray]]:
    """The parameters before the first round and after each."""
    blobs = BlobStore(Path(hospital.home.folder) / "contents")
    states = [pb.RoundState.FromString(one.state) for one in hospital.store.rounds(plan.study)]
    after = [read_content(state.parameters, blobs).arrays["arrays"] for state in states]
    return [initial_parameters(plan), *after]


def rounds_of(hospital: Any, plan: StudyPlan, rows: CohortRows) -> list[bool]:
    """For each round, whether its model is the exact step that these patients make."""
    app, path = BuiltIn(plan, rows, b"n" * 32), models(hospital, plan)
    divisor = float(hospital.count)
    found = []
    for number, (model, following) in enumerate(pairwise(path), start=1):
        payload = Payload(arrays={"arrays": model})
        task = TaskInput(kind="train", round_number=number, payload=payload, reported_count=divisor)
        total = np.asarray(app.answer(task).arrays["arrays"]["gradient_sum"])
        step = plan.training.learning_rate * total / divisor
        found.append(np.allclose(flatten(model) - step, flatten(following), rtol=0, atol=1e-12))
    return found


@pytest.mark.parametrize("how", ["withdraw", "erase"])
def test_a_patient_who_leaves_between_two_rounds_is_not_in_the_next(
    hospital: Any, how: str
) -> None:
    plan = hospital.plan(f"to-{how}", **CHANGES)
    rows, numbers = patients(hospital, plan)
    (place,) = np.flatnonzero(~rows.holdout)[[7 if how == "withdraw" else 9]]
    hospital.open(plan)
    hospital.wait_until(lambda: hospital.rounds(plan.study) >= 3, 60, "rounds")
    before = hospital.rounds(plan.study)
    home = hospital.site("aal")
    act = withdraw if how == "withdraw" else erase
    act(home, site_secret(home), numbers[place], None, datetime.now(UTC))
    after = hospital.rounds(plan.study)
    assert after < ROUNDS, "the study was over before the patient left"
    hospital.wait_end(plan.study)
    assert hospital.state(plan.study) == "finished: ", hospital.journal(plan.study)
    gone = int(rows.subject_ids[place])
    hospital.count = float((~rows.holdout).sum())
    present = rounds_of(hospital, plan, rows)
    absent = rounds_of(hospital, plan, rows.without({gone}))
    left = present.index(False)
    assert present == [True] * left + [False] * (ROUNDS - left)
    assert absent == [False] * left + [True] * (ROUNDS - left)
    # A task under way when the command began may still count the patient, and none after its end.
    assert before <= left <= after + 1
