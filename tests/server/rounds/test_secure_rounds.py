"""Secure rounds over links: nine sites in one sum or in groups, honest and not."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from fedtwin_client.node.secure_sums import SecureSums
from fedtwin_client.node.sum_desk import SumDesk
from fedtwin_client.training.masked_part import masked_part
from fedtwin_client.training.noise import SeededNoise
from fedtwin_protocol import sum_steps as steps
from fedtwin_protocol.content import make_content
from fedtwin_protocol.groups import assign_groups
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.secure_messages import PART
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.site_key import keep_site_key
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.robust import mean_per_patient
from fedtwin_server.store import Store
from fedtwin_server.study_record import plan_of

from .conftest import Ground, now
from .conftest import plan_of as written_plan

SITES = tuple(f"site-{number}" for number in range(9))
PATIENTS, ROUNDS, SIGMA = 50.0, 3, 1e-3


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory, raw_site: Any) -> Iterator[Ground]:
    made = Ground(tmp_path_factory.mktemp("nine"), raw_site)

    async def members() -> None:
        async with made.coordinator():
            await made.enrol(*SITES)

    asyncio.run(members())
    return made


def plan(study: str, **aggregation: Any) -> StudyPlan:
    """Three rounds with next to no noise, so that the model can be told beforehand."""
    return written_plan(
        study,
        training={"rounds": ROUNDS, "learning_rate": 1.0},
        aggregation={"rule": "sum", **aggregation},
        privacy__mode="secure",
        privacy__noise_multiplier=SIGMA,
        privacy__cohort_count_noise=SIGMA,
        privacy__evaluation_noise=None,
        privacy__colluding_sites=0,
        evaluation={"bins": 2, "unjudged": True},
        sites={"quorum": 6, "invited": SITES, "deadline_s": 20, "gathering_s": 10},
    )


def gradient(site: str, number: int, values: int) -> np.ndarray:
    """What a site's patients sum up to in a round: each of length 1 at most."""
    found = np.random.default_rng((sum(site.encode()), number)).normal(size=values)
    return found / np.linalg.norm(found) * PATIENTS / 2


class Player:
    """A site that answers the steps of secure sums, as its node would."""

    def __init__(self, ground: Ground, store: Store, name: str, study: str, lies: float) -> None:
        identity = ground.site(name) / "identity"
        file = ground.site(name) / f"{study}.sqlite"
        self.sums = SecureSums(file, name, keep_site_key(identity))
        self.desk, self.name, self.lies = SumDesk(self.sums), name, lies
        self.store, self.study = store, study

    async def __call__(self, site: Any, task: pb.Task) -> None:
        signed = plan_of(self.store.study(self.study))
        purpose, step = steps.step_of(task.kind)
        if step == steps.MASKED:
            content = self.part(site, signed, purpose, task)
        else:
            content = self.desk.step(task, signed, now())
        received = await site.answer(task, content)
        assert received.accepted, f"{self.name}, {task.kind}: {received.reason}"

    def part(self, site: Any, signed: StudyPlan, purpose: str, task: pb.Task) -> pb.Content:
        order = self.desk.mask_order(task, signed, now())
        masks = tuple([bytes.fromhex(key) for key in order[n]] for n in ("added", "subtracted"))
        terms = secure_terms(signed, order["sites"])
        values = 1 + len(signed.contract.columns)
        exact, largest = np.array([PATIENTS]), 1.0
        if purpose == "train":
            exact = gradient(self.name, task.round, values) * self.lies
            largest = signed.privacy.clipping_norm
        numbers = masked_part(exact, largest, SIGMA, terms, SeededNoise(len(self.name)), masks)
        return make_content(Payload(arrays={"arrays": {PART: numbers}}), site.blobs)


def play(
    ground: Ground, study: StudyPlan, lies: Mapping[str, float] | None = None
) -> tuple[np.ndarray, StudyPlan, str, list[tuple[str, ...]]]:
    """Model, plan as signed, journal, and who was in each round."""

    async def carry_out() -> Any:
        async with ground.coordinator() as store:
            ground.open(study)
            players = {
                name: Player(ground, store, name, study.study, (lies or {}).get(name, 1.0))
                for name in SITES
            }
            await ground.play(study, players, store, 60)
            for player in players.values():
                player.sums.shut()
            journal = " ".join(event.text for event in store.journal(study.study))
            assert ground.state(study, store) == "finished: ", journal
            rounds = [record.sites for record in store.rounds(study.study)]
            signed = plan_of(store.study(study.study))
            return ground.model(study, store), signed, journal, rounds

    return asyncio.run(carry_out())


def expected(signed: StudyPlan, without: frozenset[str] = frozenset()) -> np.ndarray:
    """The model that the honest groups' means give, put together as the plan says."""
    values = 1 + len(signed.contract.columns)
    model = np.zeros(values)
    for number in range(1, ROUNDS + 1):
        groups = assign_groups(signed.hash, number, SITES, signed.aggregation.groups)
        kept = [group for group in groups if not without & set(group)]
        sums = {group[0]: sum(gradient(site, number, values) for site in group) for group in kept}
        counts = {group[0]: PATIENTS * len(group) for group in kept}
        model -= mean_per_patient(sums, counts, signed.aggregation.robust)
    return model


@pytest.mark.parametrize("groups", [1, 3])
def test_honest_sites(nine: Ground, groups: int) -> None:
    robust = "none" if groups == 1 else "trimmed"
    study = plan(f"honest-{groups}", groups=groups, robust=robust)
    model, signed, journal, rounds = play(nine, study)
    np.testing.assert_allclose(model, expected(signed), atol=1e-3)
    assert {tuple(sorted(sites)) for sites in rounds} == {SITES}
    assert "without one group" not in journal


def test_a_liar_spoils_its_group_and_no_more(nine: Ground) -> None:
    """What no patients can make: the others' groups give the model, and the journal says so."""
    study = plan("liar-in-a-group", groups=3, robust="trimmed")
    model, signed, journal, rounds = play(nine, study, {"site-4": -100.0})
    np.testing.assert_allclose(model, expected(signed, frozenset({"site-4"})), atol=1e-3)
    assert all(len(sites) == 6 and "site-4" not in sites for sites in rounds)
    assert journal.count("goes on without one group") == ROUNDS
    assert "somebody sent what no patients can" in journal


def test_a_liar_within_its_bound_lies_between_honest_groups(nine: Ground) -> None:
    """It pulls as hard as its own patients could: no step leaves the honest groups' range."""
    study = plan("liar-within", groups=3, robust="median")
    model, signed, journal, _ = play(nine, study, {"site-4": -2.0})
    assert "without one group" not in journal, "it is within its bound, and not refused"
    lowest, highest = np.zeros(len(model)), np.zeros(len(model))
    for number in range(1, ROUNDS + 1):
        groups = assign_groups(signed.hash, number, SITES, 3)
        means = [
            sum(gradient(site, number, len(model)) for site in group) / (PATIENTS * len(group))
            for group in groups
            if "site-4" not in group
        ]
        lowest, highest = lowest - np.max(means, axis=0), highest - np.min(means, axis=0)
    assert (model >= lowest - 1e-3).all()
    assert (model <= highest + 1e-3).all()
