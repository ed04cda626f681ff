"""What tests of several folders share: a consortium of real processes, and a site that lies."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_client.cohort.rows import CohortRows
from fedtwin_client.training.apps import TaskInput
from fedtwin_client.training.built_in import BuiltIn
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.channel import grpc, method, open_channel
from fedtwin_protocol.chunks import Chunk, chunk_from_frame, is_chunk
from fedtwin_protocol.content import make_content, read_content
from fedtwin_protocol.credentials import Credentials, load_credentials, new_key_and_request
from fedtwin_protocol.parameters import initial_parameters
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.refusals import explained
from fedtwin_protocol.signing import envelope_from_bytes
from fedtwin_protocol.study import StudyPlan, plan_from_bytes
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.wire import PROTOCOL_VERSION, parse
from fedtwin_server.authority import Authority

# How long an example takes depends on what else this machine does.
settings.register_profile("suite", deadline=None, max_examples=40)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A report names the published cases that each test is about."""
    for item in items:
        for mark in item.iter_markers("case"):
            item.user_properties.extend(("case", name) for name in mark.args)


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of a test is read from, or left in, the folders of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[LocalConsortium]:
    """A folder for a consortium of real processes; whatever was started is ended."""
    with LocalConsortium(folder=tmp_path / "consortium") as made:
        yield made


class RawSite:
    """A site's end of the link that sends what it is told to, honest or not.

    Args:
        consortium: which one it is a member of.
        name: an enrolled site, whose credentials it uses.
        credentials: others, instead.
    """

    def __init__(
        self, consortium: LocalConsortium, name: str, credentials: Credentials | None = None
    ) -> None:
        self.credentials = credentials or load_credentials(consortium.site(name) / "identity")
        self.channel = open_channel(f"localhost:{consortium.port}", self.credentials)
        self.blobs = BlobStore(consortium.site(name) / "raw")
        self.received: list[pb.ToSite] = []
        self.chunks: list[Chunk] = []
        self._tasks: list[pb.ToSite] = []
        self._call = self.channel.stream_stream(method("Link"))()

    async def __aenter__(self) -> "RawSite":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        await self.channel.close()

    async def send(self, message: pb.FromSite | bytes) -> None:
        """Send a message, or bytes that are none."""
        data = message if isinstance(message, bytes) else message.SerializeToString()
        await self._call.write(data)

    async def greet(self) -> pb.Welcome:
        """Open the conversation as a node does."""
        await self.send(pb.FromSite(hello=pb.Hello(protocol=PROTOCOL_VERSION, software="raw")))
        return (await self.receive("welcome")).welcome

    async def receive(self, kind: str, patience_s: float = 20.0) -> pb.ToSite:
        """The next message of a kind; others are passed over, but no task is lost.

        Raises:
            grpc.aio.AioRpcError: the coordinator ended the link; with its code and sentence.
        """

        if kind == "task" and self._tasks:
            return self._tasks.pop(0)
        async with asyncio.timeout(patience_s):
            while (data := await self._call.read()) is not grpc.aio.EOF:
                if is_chunk(data):
                    self.chunks.append(chunk_from_frame(data))
                    continue
                message = parse(pb.ToSite, data)
                self.received.append(message)
                if message.WhichOneof("body") == kind:
                    return message
                if message.WhichOneof("body") == "task":
                    self._tasks.append(message)
        raise await self._ended(f"a {kind}")

    async def next_chunk(self, patience_s: float = 20.0) -> Chunk:
        """The next chunk of a content; messages before it are passed over."""
        async with asyncio.timeout(patience_s):
            while (data := await self._call.read()) is not grpc.aio.EOF:
                if is_chunk(data):
                    return chunk_from_frame(data)
        raise await self._ended("a chunk")

    async def _ended(self, wanted: str) -> Exception:
        code, text = await self._call.code(), await self._call.details()
        if code == grpc.StatusCode.OK:
            return AssertionError(f"the link ended before {wanted} came")
        none = grpc.aio.Metadata()
        return grpc.aio.AioRpcError(code, none, none, text)

    async def join(self, study: str, take_part: bool = True) -> bytes:
        """Ask for the catalogue, say yes (or no) to a study; returns the plan's hash."""
        await self.send(pb.FromSite(ask_catalogue=pb.AskCatalogue()))
        catalogue = (await self.receive("catalogue")).catalogue
        plans = [
            plan_from_bytes(envelope_from_bytes(o.plan_envelope).body) for o in catalogue.offers
        ]
        (plan,) = [plan for plan in plans if plan.study == study]
        plan_hash = bytes.fromhex(plan.hash)
        await self.send(
            pb.FromSite(decision=pb.Decision(study=study, plan_hash=plan_hash, take_part=take_part))
        )
        return plan_hash

    async def answer(
        self, task: pb.Task, content: pb.Content | None, **changes: object
    ) -> pb.Received:
        """Answer a task, with fields changed at will; returns what became of it."""
        fields: dict[str, object] = {
            "task_id": task.task_id,
            "study": task.study,
            "plan_hash": task.plan_hash,
            "round": task.round,
            "content": content,
        }
        await self.send(pb.FromSite(answer=pb.Answer(**{**fields, **changes})))
        return (await self.receive("received")).received


@pytest.fixture(scope="session")
def raw_site() -> type[RawSite]:
    """The class; a test makes as many as it needs."""
    return RawSite


def issue(
    home: Path,
    role: str,
    name: str,
    *,
    now: datetime | None = None,
    lifetime: timedelta = timedelta(hours=1),
) -> Credentials:
    """A key and a certificate from the CA of a coordinator's folder, noted down nowhere."""
    authority = Authority.load(home)
    key_pem, request = new_key_and_request()
    leaf = authority.issue_leaf(request, role, name, now or datetime.now(UTC), lifetime)
    return Credentials(key_pem=key_pem, chain_pem=leaf.chain_pem, roots_pem=authority.roots_pem)


def ask(
    address: str,
    credentials: Credentials,
    call: str = "ListReleases",
    request: bytes = b"",
    metadata: tuple[tuple[str, str], ...] = (),
) -> tuple[grpc.StatusCode, str | bytes]:
    """Make one call; returns the status with the answer, or with the sentence of a refusal."""

    async def once() -> tuple[grpc.StatusCode, str | bytes]:
        async with open_channel(address, credentials) as channel:
            try:
                made = channel.unary_unary(method(call))
                return grpc.StatusCode.OK, await made(request, timeout=20, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                return error.code(), str(explained(error, address))

    return asyncio.run(once())


@pytest.fixture(name="issue", scope="session")
def issue_fixture() -> Callable[..., Credentials]:
    """The function `issue`, for tests of other files."""
    return issue


@pytest.fixture(name="ask", scope="session")
def ask_fixture() -> Callable[..., tuple[grpc.StatusCode, str | bytes]]:
    """The function `ask`, for tests of other files."""
    return ask


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Wait for something to become true, with a limit and a reason.

    Limits of 10 s and more only end what hangs; on a machine with much else to do they are longer.
    """

    def wait(condition: Callable[[], object], patience_s: float = 30.0, what: str = "") -> None:
        if patience_s >= 10.0:
            patience_s *= 4
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {patience_s:g} s in vain: {what}"
            time.sleep(0.05)

    return wait


class FlowerInProcess:
    """A Flower study without processes: the coordinator's rule, and each site's ClientApp.

    Args:
        plan: of rule `flower` and a built-in model family.
        rows: the sites' cohorts.
        folder: for contents.
    """

    def __init__(self, plan: StudyPlan, rows: Mapping[str, CohortRows], folder: Path) -> None:
        from fedtwin_client.training.flower import ClientAppRunner, client_app

        self.plan = plan
        self.blobs = BlobStore(folder)
        self.state = pb.RoundState(
            parameters=make_content(
                Payload(arrays={"arrays": initial_parameters(plan)}), self.blobs
            )
        )
        self._runners = {}
        for site, cohort in rows.items():
            app = BuiltIn(plan, cohort, b"n" * 32)
            wrapped = client_app(lambda _, app=app: app)
            self._runners[site] = ClientAppRunner(wrapped, plan, own=app)
        self.counts = {
            site: float(
                runner.answer(
                    TaskInput(
                        kind="query.cohort", round_number=0, payload=Payload(), reported_count=None
                    )
                ).metrics["metrics"]["cohort-count"]
            )
            for site, runner in self._runners.items()
        }

    def learn(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Rounds `first` to `last` by a rule that knows nothing but the state; the model."""
        from fedtwin_server.flower import FlowerRule

        rule = FlowerRule(self.plan, self.blobs)
        for number in range(first, last + 1):

            async def ask(kind: str, contents: Mapping[str, pb.Content]) -> dict[str, pb.Answer]:
                return {
                    site: self.answer(kind, site, content) for site, content in contents.items()
                }

            step = asyncio.run(rule.step(number, self.state, self.counts, ask))
            self.state = pb.RoundState(parameters=step.parameters, memory=step.memory)
        return self.model

    def answer(self, kind: str, site: str, content: pb.Content) -> pb.Answer:
        """What a site replies."""
        task = TaskInput(
            kind=kind,
            round_number=1,
            payload=read_content(content, self.blobs),
            reported_count=self.counts[site],
        )
        return pb.Answer(content=make_content(self._runners[site].answer(task), self.blobs))

    @property
    def model(self) -> dict[str, np.ndarray]:
        """The parameters now."""
        arrays = read_content(self.state.parameters, self.blobs).arrays["arrays"]
        return {name: np.array(array) for name, array in arrays.items()}


@pytest.fixture
def flower_in_process() -> type[FlowerInProcess]:
    """The class; a test makes as many as it needs."""
    return FlowerInProcess
