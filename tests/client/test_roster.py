"""Nobody's row is used but those of the members that the ledger wrote down."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.node import worker_process
from fedtwin_client.node.worker_process import Told, WorkerProcess
from fedtwin_client.training.pseudonym_list import pack, unpack
from fedtwin_client.training.roster import Roster
from fedtwin_client.training.worker import Worker
from fedtwin_client.training.worker_wire import Frame
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.study import StudyPlan


def test_a_list_survives_packing_sorted_and_each_once() -> None:
    assert list(unpack(pack([5, 2**62, 3, 5]))) == [3, 5, 2**62]
    assert len(pack(range(1000))) == 8000


def test_whoever_is_not_a_member_is_absent_whenever_the_members_are_told() -> None:
    """Before and after the cohort was built; a patient who came later (9) is no member."""
    roster = Roster()
    absent = roster.outside([1, 2, 3, 9])
    assert absent() == frozenset()
    roster.confine(pack([1, 2, 3]))
    assert absent() == {9}
    assert absent() is absent(), "the very same set while nothing changes"
    roster.confine(pack([2]))
    assert absent() == {1, 3, 9}
    assert roster.outside([2, 4])() == {4}
    roster.confine(pack([]))
    assert absent() == {1, 2, 3, 9}, "an empty list is nobody, not everybody"
    roster.confine(None)
    assert absent() == frozenset()


@pytest.mark.parametrize("members", [None, [7, 8]])
def test_every_new_worker_process_is_told_the_members_before_its_first_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[int] | None
) -> None:
    """Also one that is started again because it died."""
    orders: list[str] = []

    async def listen(process: asyncio.subprocess.Process, order: Frame) -> object:
        orders.append(order.head["op"])
        if order.head["op"] == "members":
            assert list(unpack(order.body)) == members
        return Frame(head={"ok": True})

    monkeypatch.setattr(worker_process, "_once", listen)
    monkeypatch.setattr(worker_process.sys, "executable", "/bin/cat")

    async def ask() -> None:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        worker = WorkerProcess(
            tmp_path, tmp_path, tmp_path, "", now, told=Told(members=lambda: members)
        )
        await worker.ask({"op": "cohort"})
        await worker.stop()
        await worker.ask({"op": "task"})
        await worker.stop()

    asyncio.run(ask())
    first = [] if members is None else ["members"]
    assert orders == [*first, "cohort", *first, "task"]


PLAN = StudyPlan.model_validate(
    {
        "study": "members",
        "consortium": "demo",
        "title": "Members only",
        "purpose": "To be joined late",
        "cohort": {"index": {"codes": ["TEST//visit"]}, "holdout_fraction": 0.25},
        "features": [{"name": "age", "kind": "age"}],
        "endpoint": {"name": "o", "kind": "event", "codes": ["TEST//o"], "horizon_days": 2},
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 1, "learning_rate": 0.5},
        "privacy": {
            "mode": "local",
            "epsilon": 1,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 5.0,
        },
        "sites": {"quorum": 2, "smallest_cohort": 5},
    }
)


def test_the_worker_counts_and_uses_members_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = CohortRows(
        subject_ids=np.arange(100, 140),
        features=np.ones((40, len(PLAN.contract.columns))),
        labels=np.ones(40),
        holdout=np.arange(40) % 4 == 0,
        columns=PLAN.contract.columns,
        exclusions={},
        missing={},
        implausible={},
    )
    monkeypatch.setattr("fedtwin_client.training.built_in.load_rows", lambda *_: rows)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    worker = Worker(PLAN, tmp_path, BlobStore(tmp_path / "blobs"), "", now)
    cohort = worker.answer(Frame(head={"op": "cohort", "consent": "opt_out"}))
    assert list(unpack(cohort.body)) == list(range(100, 140))
    worker.answer(Frame(head={"op": "members"}, body=pack([*range(100, 120), 999])))
    cohort = worker.answer(Frame(head={"op": "cohort", "consent": "opt_out"}))
    assert list(unpack(cohort.body)) == list(range(100, 120))
    assert (cohort.head["training"], cohort.head["held_out"]) == (15, 5)
    worker.answer(Frame(head={"op": "members", "everybody": True}))
    assert len(unpack(worker.answer(Frame(head={"op": "cohort", "consent": "opt_out"})).body)) == 40
