"""A coordinator in this process, over real mutual TLS, and sites that answer by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedtwin.demo.consortium import free_port
from fedtwin_protocol.channel import grpc
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.enrolment import enrol
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.signing import TrustRoot, load_signing_key
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.authority import Authority, create_authority
from fedtwin_server.consortium import add_study, make_signer, write_settings
from fedtwin_server.coordinator import Coordinator, CoordinatorSettings, Home
from fedtwin_server.invitations import Guest, InvitationBook
from fedtwin_server.store import Store
from fedtwin_server.study_record import final_parameters
from fedtwin_server.tuf_repository import TufRepository

COUNT = 40.0
VALUES = 3
Answering = Callable[[Any, pb.Task], Awaitable[None]]


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def plan_of(study: str, **changes: Any) -> StudyPlan:
    """A plan for two sites of three; `sites__quorum=3` changes one field of a part."""
    value: dict[str, Any] = {
        "study": study,
        "consortium": "demo",
        "title": "A study",
        "purpose": "To be attacked",
        "cohort": {"index": {"codes": ["TEST//index"]}},
        "features": [{"name": name, "kind": name} for name in ("age", "sex")],
        "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 3, "learning_rate": 0.5},
        "privacy": {
            "mode": "local",
            "epsilon": 10,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 3.0,
            "cohort_count_noise": 2.0,
            "evaluation_noise": 3.0,
            "hospitals_per_patient": 1,
        },
        "sites": {"quorum": 2, "deadline_s": 20, "gathering_s": 10},
        "evaluation": {"bins": 2},
    }
    for name, change in changes.items():
        part, _, key = name.partition("__")
        if key:
            value[part] = {**value.get(part, {}), key: change}
        else:
            value[part] = change
    return StudyPlan.model_validate(value)


async def ended(store: Store, study: str, patience_s: float = 25) -> None:
    """Wait until a study has ended."""
    for _ in range(int(patience_s / 0.05)):
        if store.study(study).status not in {"open", "running"}:
            return
        await asyncio.sleep(0.05)
    record = store.study(study)
    notes = [f"{event.site}: {event.text}" for event in store.journal(study)]
    rounds = len(store.rounds(study))
    raise AssertionError(f"the study is {record.status} after {rounds} rounds; journal: {notes}")


def gradient(site: str, number: int) -> np.ndarray:
    """What an honest site's clipped sum is in a round."""
    seed = sum(site.encode()) + 1000 * number
    return np.random.default_rng(seed).normal(size=VALUES)


def honest_payload(name: str, task: pb.Task) -> Payload:
    """An honest site's answer."""
    if task.kind == "query.cohort":
        return Payload(metrics={"metrics": {"cohort-count": COUNT}})
    if task.kind == "evaluate":
        return Payload(
            metrics={"metrics": {"num-examples": COUNT, "hold-out-table": [9.0, 1.0, 2.0, 8.0]}}
        )
    return Payload(
        arrays={"arrays": {"gradient_sum": gradient(name, task.round)}},
        metrics={"metrics": {"num-examples": COUNT}},
    )


def honest(name: str) -> Answering:
    """A site that answers every task as it should."""

    async def answer(site: Any, task: pb.Task) -> None:
        content = make_content(honest_payload(name, task), site.blobs)
        received = await site.answer(task, content)
        assert received.accepted, f"{name}, {task.kind}, round {task.round}: {received.reason}"

    return answer


def model_of(plan: StudyPlan, *names: str) -> np.ndarray:
    """The model that gradient descent on the honest sites' sums gives."""
    parameters = np.zeros(VALUES)
    for number in range(1, plan.training.rounds + 1):
        total = sum(gradient(name, number) for name in names)
        parameters = parameters - plan.training.learning_rate * total / (COUNT * len(names))
    return parameters


class Ground:
    """A consortium's coordinator; its sites' folders are those of a `RawSite`."""

    count = COUNT
    values = VALUES
    plan = staticmethod(plan_of)
    honest = staticmethod(honest)
    honest_payload = staticmethod(honest_payload)
    model_of = staticmethod(model_of)
    ended = staticmethod(ended)

    def __init__(self, folder: Path, raw_site: Any) -> None:
        self.folder, self.raw_site = folder, raw_site
        self.port = free_port()
        self.home = Home(folder=folder / "coordinator")
        offline = folder / "offline"
        create_authority(
            self.home.folder,
            consortium="demo",
            addresses=["localhost"],
            now=now(),
            root_folder=offline,
        )
        self.key_file = offline / "signer.key"
        trust = TrustRoot(
            consortium="demo", keys=(make_signer(self.key_file, "signer"),), threshold=1
        )
        settings = CoordinatorSettings(
            consortium="demo",
            addresses=("localhost",),
            listen=f"127.0.0.1:{self.port}",
            public=f"localhost:{self.port}",
            trust=trust,
        )
        TufRepository(self.home.folder).create(trust, [load_signing_key(self.key_file)], now())
        write_settings(self.home, settings)

    def site(self, name: str) -> Path:
        """A site's folder."""
        return self.folder / name

    @asynccontextmanager
    async def coordinator(self) -> AsyncIterator[Store]:
        """The coordinator, serving; hands out a second look at its database."""
        ready = asyncio.Event()
        coordinator = Coordinator(self.home)
        serving = asyncio.create_task(coordinator.serve(ready))
        store = self.home.store()
        try:
            await asyncio.wait(
                {serving, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
            yield store
            assert not serving.done(), "the coordinator has ended by itself"
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            store.close()

    async def enrol(self, *names: str) -> None:
        """Make members of sites, while the coordinator runs."""
        settings, store = self.home.settings(), self.home.store()
        authority = Authority.load(self.home.folder)
        for name in names:
            guest = Guest(role="site", name=name, address=settings.public)
            invitation = InvitationBook(store.connection).create(
                guest, authority, settings.trust, now()
            )
            await enrol(invitation, self.site(name) / "identity")
        store.close()

    def open(self, plan: StudyPlan) -> None:
        """Sign a plan and open the study."""
        file = self.folder / f"{plan.study}.yaml"
        file.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
        add_study(self.home, file, [self.key_file], None, now())

    async def carry_out(
        self, plan: StudyPlan, players: dict[str, Answering], store: Store, patience_s: float = 25
    ) -> None:
        """Open a study and have sites play it to its end, whatever it is."""
        self.open(plan)
        await self.play(plan, players, store, patience_s)

    async def play(
        self, plan: StudyPlan, players: dict[str, Answering], store: Store, patience_s: float = 25
    ) -> None:
        """Have sites play an open study to its end."""
        playing = [
            asyncio.create_task(self._attend(name, plan.study, answering))
            for name, answering in players.items()
        ]
        try:
            await ended(store, plan.study, patience_s)
        finally:
            for task in playing:
                task.cancel()
            found = await asyncio.gather(*playing, return_exceptions=True)
        faults = [fault for fault in found if isinstance(fault, Exception)]
        assert not faults, faults

    async def _attend(self, name: str, study: str, answering: Answering) -> None:
        """One site: joins, answers its tasks, dials again when its link is cut."""
        while True:
            async with self.raw_site(self, name) as site:
                with suppress(grpc.aio.AioRpcError, ConnectionError):
                    await site.greet()
                    await site.join(study)
                    while True:
                        task = (await site.receive("task", 60)).task
                        if task.study == study:
                            await answering(site, task)
            await asyncio.sleep(0.05)

    def model(self, plan: StudyPlan, store: Store) -> np.ndarray:
        """The study's final parameters, flat."""
        blobs = self.home.blobs()
        arrays = read_content(final_parameters(store, plan, blobs), blobs).arrays["arrays"]
        return np.concatenate([np.ravel(array) for array in arrays.values()])

    def state(self, plan: StudyPlan, store: Store) -> str:
        """Status and reason."""
        record = store.study(plan.study)
        return f"{record.status}: {record.reason}"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, raw_site: Any) -> Ground:
    """A coordinator with three members: aal, bergen and mallory."""
    made = Ground(tmp_path_factory.mktemp("ground"), raw_site)

    async def members() -> None:
        async with made.coordinator():
            await made.enrol("aal", "bergen", "mallory")

    asyncio.run(members())
    return made
