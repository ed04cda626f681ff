"""A coordinator in this process, with a clock that can be set: wrong clocks, and what is sent.

TLS itself goes by the computer's clock; the guard, the desk and the node go by the one handed in.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from fedtwin.demo.consortium import free_port
from fedtwin.demo.synthetic import PLAN
from fedtwin_client.node.agent import Agent
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.policy import default_policy_text
from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.channel import grpc, method, open_channel
from fedtwin_protocol.credentials import (
    Credentials,
    load_credentials,
    load_key,
    new_key_and_request,
    save_credentials,
)
from fedtwin_protocol.enrolment import enrol, renew
from fedtwin_protocol.errors import IdentityError, LinkError
from fedtwin_protocol.signing import PLAN_TYPE, TrustRoot, load_signing_key, sign
from fedtwin_protocol.study import plan_from_yaml
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.authority import Authority, create_authority
from fedtwin_server.consortium import make_signer, write_settings
from fedtwin_server.coordinator import Coordinator, CoordinatorSettings, Home
from fedtwin_server.invitations import Guest, InvitationBook
from fedtwin_server.service import ExchangeService
from fedtwin_server.tuf_repository import TufRepository

HOUR = timedelta(hours=1)


@dataclass
class Clock:
    """The computer's clock, set wrong by some time."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Ground:
    """A coordinator's folder and a node's."""

    home: Home
    node: NodeHome
    settings: CoordinatorSettings

    @property
    def address(self) -> str:
        return self.settings.public


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A consortium that was founded yesterday."""
    folder, port = tmp_path / "coordinator", free_port()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    create_authority(
        folder,
        consortium="north",
        addresses=["localhost"],
        now=yesterday,
        root_folder=folder / "offline",
    )
    key = make_signer(folder / "oslo.key", "oslo")
    settings = CoordinatorSettings(
        consortium="north",
        addresses=("localhost",),
        listen=f"127.0.0.1:{port}",
        public=f"localhost:{port}",
        trust=TrustRoot(consortium="north", keys=(key,), threshold=1),
    )
    home, node = Home(folder=folder), NodeHome(folder=tmp_path / "node")
    signer = load_signing_key(folder / "oslo.key")
    TufRepository(folder).create(settings.trust, [signer], yesterday)
    write_settings(home, settings)
    node.folder.mkdir()
    node.settings_file.write_text(
        f"consortium: north\nsite: alpha\ncoordinator: {settings.public}\n"
    )
    trust = canonical_bytes(settings.trust.model_dump(mode="json"))
    (node.folder / "trust.json").write_bytes(trust)
    node.policy_file.write_text(default_policy_text())
    return Ground(home=home, node=node, settings=settings)


@asynccontextmanager
async def task_of(work: Awaitable[None]) -> AsyncIterator["asyncio.Future[None]"]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def coordinator(ground: Ground, clock: Clock) -> AsyncIterator[None]:
    ready = asyncio.Event()
    async with task_of(Coordinator(ground.home, clock).serve(ready)):
        await asyncio.wait_for(ready.wait(), 20)
        yield


async def join(ground: Ground) -> None:
    """Invite and enrol the node, by a right clock."""
    store = ground.home.store()
    guest = Guest(role="site", name="alpha", address=ground.address)
    authority = Authority.load(ground.home.folder)
    book = InvitationBook(store.connection)
    invitation = book.create(guest, authority, ground.settings.trust, datetime.now(UTC))
    store.close()
    await enrol(invitation, ground.node.identity)


async def until_logged(caplog: pytest.LogCaptureFixture, sentence: str) -> None:
    async def look() -> None:
        while sentence not in caplog.text:
            await asyncio.sleep(0.02)

    try:
        await asyncio.wait_for(look(), 20)
    except TimeoutError:
        pytest.fail(f"expected {sentence!r} in the log, got:\n{caplog.text}")


@pytest.mark.parametrize(
    ("ahead", "sentences"),
    [
        (
            HOUR,
            [
                "its certificate is not valid yet by the clock of this computer: compare the clock "
                "with the coordinator's",
            ],
        ),
        (
            -HOUR,
            [
                "by the clock of the coordinator: compare the clocks of the coordinator and of the "
                "certificate's holder",
                "the coordinator at localhost:",
            ],
        ),
    ],
)
def test_the_coordinator_s_clock_is_an_hour_off(
    ground: Ground, caplog: pytest.LogCaptureFixture, ahead: timedelta, sentences: list[str]
) -> None:
    """The node keeps trying, says why, and is let in once the clock is right."""
    caplog.set_level(logging.INFO)

    async def play() -> None:
        async with coordinator(ground, Clock()):
            await join(ground)
        async with task_of(Agent(ground.node, Clock()).run()) as node:
            async with coordinator(ground, Clock(ahead)):
                for sentence in sentences:
                    await until_logged(caplog, sentence)
            assert "the link to the coordinator is up" not in caplog.text
            async with coordinator(ground, Clock()):
                await until_logged(caplog, "the link to the coordinator is up")
            assert not node.done()

    asyncio.run(play())


@pytest.mark.parametrize(("ahead", "way"), [(HOUR, "ahead of"), (timedelta(hours=-2), "behind")])
def test_the_node_s_clock_is_off_while_its_certificate_holds(
    ground: Ground, caplog: pytest.LogCaptureFixture, ahead: timedelta, way: str
) -> None:
    """Both sides say so, and the link is up."""
    caplog.set_level(logging.INFO)

    async def play() -> None:
        async with coordinator(ground, Clock()):
            await join(ground)
            if ahead < timedelta(0):
                await pretend_to_be_older(ground)
            async with task_of(Agent(ground.node, Clock(ahead)).run()):
                await until_logged(caplog, "the link to the coordinator is up")
        store = ground.home.store()
        noted = [event.text for event in store.journal("") if event.site == "alpha"]
        store.close()
        seconds = f"{abs(ahead.total_seconds()):.0f}"[:2]
        assert [text for text in noted if f"its clock is {seconds}" in text and way in text]

    asyncio.run(play())
    assert "the clocks of this node and the coordinator differ by" in caplog.text
    assert "check the time service (NTP) here" in caplog.text


async def pretend_to_be_older(ground: Ground) -> None:
    """Give the node a certificate that was issued three hours ago."""
    authority = Authority.load(ground.home.folder)
    earlier = datetime.now(UTC) - 3 * HOUR
    save_credentials(ground.node.identity, leaf_for(authority, earlier))


def leaf_for(authority: Authority, now: datetime) -> Credentials:
    key_pem, request = new_key_and_request()
    leaf = authority.issue_leaf(request, "site", "alpha", now)
    return Credentials(key_pem=key_pem, chain_pem=leaf.chain_pem, roots_pem=authority.roots_pem)


@pytest.mark.parametrize(
    ("ahead", "sentence"),
    [
        (-HOUR, "is not valid before .* by the clock of this computer: compare the clocks"),
        (25 * HOUR, "expired at .* the clock of this computer is wrong"),
    ],
)
def test_the_node_s_clock_lies_outside_its_certificate(
    ground: Ground, ahead: timedelta, sentence: str
) -> None:
    async def play() -> None:
        async with coordinator(ground, Clock()):
            await join(ground)
            with pytest.raises(IdentityError, match=sentence):
                await asyncio.wait_for(Agent(ground.node, Clock(ahead)).run(), 20)

    asyncio.run(play())


def test_a_long_download_ends_with_the_certificate(ground: Ground) -> None:
    """A release of 64 MiB, of which a part has come when the day is over."""
    clock = Clock()
    plan = plan_from_yaml(PLAN)
    key = load_signing_key(ground.home.folder / "oslo.key")
    folder = ground.home.folder / "releases" / plan.study / "1"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_bytes(sign(PLAN_TYPE, plan.to_bytes(), [key]).to_bytes())
    (folder / "statement.json").write_bytes(sign("statement", b"{}", [key]).to_bytes())
    (folder / "model.safetensors").write_bytes(bytes(64 * 1024 * 1024))

    async def play() -> tuple[int, grpc.aio.AioRpcError]:
        came = 0
        async with coordinator(ground, clock):
            await join(ground)
            credentials = load_credentials(ground.node.identity)
            async with open_channel(ground.address, credentials) as channel:
                path = f"targets/{plan.study}/1/model.safetensors"
                request = pb.FetchFileRequest(path=path).SerializeToString()
                call = channel.unary_stream(method("FetchFile"))(request)
                came += len(await call.read())
                clock.ahead = 25 * HOUR
                try:
                    while (data := await call.read()) is not grpc.aio.EOF:
                        came += len(data)
                except grpc.aio.AioRpcError as error:
                    return came, error
        raise AssertionError("all of it came")

    came, error = asyncio.run(play())
    assert 0 < came < 32 * 1024 * 1024
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "spiffe://north/site/alpha expired at" in error.details()


@pytest.mark.parametrize(("seconds", "told"), [(50, False), (75, True)])
def test_clocks_that_differ_by_more_than_a_minute_are_told(
    ground: Ground, caplog: pytest.LogCaptureFixture, seconds: int, told: bool
) -> None:
    """At the node and at the coordinator; less than that is nobody's worry."""
    caplog.set_level(logging.INFO)

    async def play() -> None:
        async with coordinator(ground, Clock()):
            await join(ground)
            async with task_of(Agent(ground.node, Clock(timedelta(seconds=seconds))).run()):
                await until_logged(caplog, "the link to the coordinator is up")

    asyncio.run(play())
    assert ("the clocks of this node and the coordinator differ by" in caplog.text) == told
    assert ("ahead of the coordinator's: one of them is wrong" in caplog.text) == told


def test_an_invitation_shown_to_a_coordinator_whose_clock_is_ahead(ground: Ground) -> None:
    async def play() -> None:
        async with coordinator(ground, Clock(HOUR)):
            with pytest.raises(LinkError, match="compare the clock with the coordinator's"):
                await join(ground)

    asyncio.run(play())


def test_no_private_key_is_sent(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that enrolment and renewal send, in every spelling of the key that came of it."""
    sent: list[bytes] = []

    def recorded(method: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
        async def call(self: ExchangeService, request: bytes, context: Any) -> bytes:
            sent.append(request)
            return await method(self, request, context)

        return call

    monkeypatch.setattr(ExchangeService, "enrol", recorded(ExchangeService.enrol))
    monkeypatch.setattr(ExchangeService, "renew", recorded(ExchangeService.renew))

    async def play() -> list[bytes]:
        async with coordinator(ground, Clock()):
            await join(ground)
            first = load_credentials(ground.node.identity)
            async with open_channel(ground.address, first) as channel:
                second = await renew(channel, ground.node.identity, first)
        assert load_credentials(ground.node.identity) == second
        return [first.key_pem, second.key_pem]

    keys = [load_key(pem) for pem in asyncio.run(play())]
    assert len(sent) == 2
    for message, key in zip(sent, keys, strict=True):
        point = key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        secret = key.private_numbers().private_value
        assert point in message  # it is the request for this very key
        assert secret.to_bytes(32, "big") not in message
        assert secret.to_bytes(32, "little") not in message
        assert f"{secret:064x}".encode() not in message.lower()
        assert b"PRIVATE" not in message
    assert keys[0].private_numbers() != keys[1].private_numbers()


def test_a_renewed_certificate_for_somebody_else_is_not_kept(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that answers with another site's certificate."""
    authority = Authority.load(ground.home.folder)

    async def swapped(self: ExchangeService, request: bytes, context: Any) -> bytes:
        wanted = pb.RenewRequest.FromString(request)
        leaf = authority.issue_leaf(wanted.request, "site", "beta", datetime.now(UTC))
        return pb.IssuedCredentials(
            chain_pem=leaf.chain_pem, roots_pem=authority.roots_pem
        ).SerializeToString()

    monkeypatch.setattr(ExchangeService, "renew", swapped)

    async def play() -> None:
        async with coordinator(ground, Clock()):
            await join(ground)
            first = load_credentials(ground.node.identity)
            async with open_channel(ground.address, first) as channel:
                with pytest.raises(IdentityError, match=r"expected a certificate for .*alpha"):
                    await renew(channel, ground.node.identity, first)
            assert load_credentials(ground.node.identity) == first

    asyncio.run(play())


def test_a_list_that_cannot_be_renewed_is_said_and_stops_nobody(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk: the coordinator goes on, and tries again."""
    ahead = timedelta(0)
    path = ground.home.folder / "revoked.crl"

    async def scenario() -> bool:
        nonlocal ahead
        ready = asyncio.Event()
        made = Coordinator(ground.home, lambda: datetime.now(UTC) + ahead)
        async with task_of(made.serve(ready)) as serving:
            await asyncio.wait_for(ready.wait(), 20)
            path.unlink()
            path.mkdir()
            ahead = timedelta(hours=13)
            async with asyncio.timeout(20):
                while "the revocation list cannot be renewed" not in caplog.text:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            return serving.done()

    assert not asyncio.run(scenario())
