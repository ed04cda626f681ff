"""A round's sum that no patients can make: refused, said, and the study goes on from before."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import make_content
from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.bounds import check_sum
from fedtwin_server.jury import Jury, Reach
from fedtwin_server.rules import Step
from fedtwin_server.store import Store

VALUES, PATIENTS = 5, 400.0


def plan_of(rounds: int) -> StudyPlan:
    return StudyPlan.model_validate(
        {
            "study": "jury",
            "consortium": "demo",
            "title": "A study",
            "purpose": "To be attacked",
            "cohort": {"index": {"codes": ["TEST//index"]}},
            "features": [{"name": "age", "kind": "age"}],
            "endpoint": {"name": "e", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
            "model": {"family": "logistic_regression"},
            "training": {"rounds": rounds, "learning_rate": 0.5},
            "privacy": {
                "mode": "local",
                "epsilon": 10,
                "delta": 1e-5,
                "clipping_norm": 1.0,
                "noise_multiplier": 3.0,
            },
            "sites": {"quorum": 3},
        }
    )


class Ground:
    """A jury, its store, and a journal; sums come decoded, as from a secure collector."""

    def __init__(self, folder: Path, rounds: int = 3) -> None:
        self.blobs = BlobStore(folder / "blobs")
        self.store = Store(folder / "fedtwin.sqlite")
        self.plan = plan_of(rounds)
        self.journal: list[str] = []
        self.made = 0

    def jury(self) -> Jury:
        """As after a start of the coordinator."""

        async def never(*_: Any) -> Any:
            raise AssertionError("no site is asked: the plan buys no votes")

        reach = Reach(never, never, lambda: None, never, self.journal.append)
        return Jury(self.plan, self.store, self.blobs, {}, reach)

    def state(self, value: float) -> pb.RoundState:
        """A model and its memory."""
        arrays = {"arrays": {"weights": np.full(VALUES, value)}}
        return pb.RoundState(
            parameters=make_content(Payload(arrays=arrays), self.blobs),
            memory=make_content(Payload(arrays={"memory": {"velocity": np.zeros(1)}}), self.blobs),
        )

    def making(self, total: np.ndarray) -> Callable[[], Any]:
        """A round whose sum is `total`."""

        async def make() -> Step:
            self.made += 1
            check_sum(
                total, patients=PATIENTS, clipping_norm=1.0, noise_sd=3.0, whose="the sum of all"
            )
            new = self.state(1.0)
            return Step(parameters=new.parameters, memory=new.memory, sites=("aal", "bergen"))

        return make


def test_an_honest_sum_goes_through(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    good = ground.state(0.0)
    new, sites = asyncio.run(ground.jury().round(1, good, ground.making(np.ones(VALUES))))
    assert new == ground.state(1.0)
    assert sites == ("aal", "bergen")
    assert ground.journal == []


@pytest.mark.parametrize("bad", [1e9, np.inf, np.nan])
def test_an_impossible_sum_is_an_attack(tmp_path: Path, bad: float) -> None:
    """Also after a crash before the round was closed: no second sum is asked for."""
    ground = Ground(tmp_path)
    good = ground.state(0.0)
    for _ in range(2):
        new, sites = asyncio.run(ground.jury().round(1, good, ground.making(np.full(VALUES, bad))))
        assert new == good
        assert sites == ()
    assert ground.made == 1
    assert all("round 1 went wrong: the sum of all has the norm" in line for line in ground.journal)
    assert all("somebody sent what no patients can" in line for line in ground.journal)
    ground.jury().check_any_good()


def test_nothing_but_attacks(tmp_path: Path) -> None:
    ground = Ground(tmp_path, rounds=2)
    for number in (1, 2):
        asyncio.run(
            ground.jury().round(number, ground.state(0.0), ground.making(np.full(VALUES, 1e9)))
        )
    with pytest.raises(PlanError, match="none of the 2 rounds made a model that could be kept"):
        ground.jury().check_any_good()
