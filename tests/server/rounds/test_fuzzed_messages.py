"""Whatever a peer sends: a sentence at most, no class name, no fault, and the process lives."""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtwin_client.node.agent import Agent
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.policy import default_policy_text
from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.channel import SERVER_OPTIONS, SERVICE, grpc, method
from fedtwin_protocol.chunks import Chunk
from fedtwin_protocol.content import make_content
from fedtwin_protocol.credentials import load_credentials
from fedtwin_protocol.errors import FedtwinError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import ArraySpec, admit_updates, check_count, check_table

from .fuzzed import messages, spoilt

Code = grpc.StatusCode
OURS = ("fedtwin_", "exchange_pb2", "FromSite", "DecodeError", "Traceback", "Exception", "Error(")
STUDY = "fuzzed-study"
FUZZ = settings(
    deadline=None,
    max_examples=120,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# What our own end says when the link had ended before its last message was written.
TOO_LATE = (Code.INTERNAL, "Internal error from Core")


class Loop:
    """An event loop in a thread, so that many examples meet one coordinator."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def open_ground(ground: Any, loop: Loop) -> Iterator[Any]:
    """A coordinator with an open study that waits for sites; it serves the good site to the end."""
    held = ground.coordinator()
    loop.run(held.__aenter__())
    plan = ground.plan(STUDY, sites__quorum=3, sites__gathering_s=600)
    ground.open(plan)
    yield ground

    async def good_site() -> None:
        async with ground.raw_site(ground, "aal") as site:
            await site.greet()
            await site.join(STUDY)

    loop.run(good_site())
    loop.run(held.__aexit__(None, None, None))


KNOWN = (STUDY, "aal", b"\x00" * 32, "train", "arrays", "metrics", "float64", "num-examples")
FRAMES = st.one_of(
    messages(pb.FromSite, KNOWN).map(lambda made: made.SerializeToString()),
    spoilt(messages(pb.FromSite, KNOWN)),
    st.binary(max_size=100),
    st.binary(max_size=60).map(lambda data: b"\x00" + data),
    st.just(Chunk(sha256=b"\x00" * 32, offset=2**63, data=b"x").to_frame()),
)


@FUZZ
@given(frames=st.lists(FRAMES, min_size=1, max_size=4), greeted=st.booleans())
def test_whatever_a_site_sends_on_its_link(
    open_ground: Any,
    loop: Loop,
    frames: list[bytes],
    greeted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The link goes on, or ends with a sentence about the message."""

    async def play() -> tuple[Code, str]:
        async with open_ground.raw_site(open_ground, "mallory") as site:
            try:
                if greeted:
                    await site.greet()
                for frame in frames:
                    await site.send(frame)
                await site.send(pb.FromSite(ask_catalogue=pb.AskCatalogue()))
                await site.receive("catalogue")
            except grpc.aio.AioRpcError as error:
                return error.code(), str(error.details())
            except asyncio.InvalidStateError:  # it had ended before the last message was sent
                return await site._call.code(), str(await site._call.details())
        return Code.OK, ""

    caplog.clear()
    code, sentence = loop.run(play())
    good = code in {Code.OK, Code.INVALID_ARGUMENT} or (code, sentence) == TOO_LATE
    assert good, (code, sentence)
    assert not [word for word in OURS if word in sentence]
    assert not [record for record in caplog.records if record.exc_info]


CALLS = {
    "Renew": pb.RenewRequest,
    "ListReleases": pb.ListReleasesRequest,
    "FetchFile": pb.FetchFileRequest,
}


@FUZZ
@given(call=st.sampled_from(sorted(CALLS)), data=st.data())
def test_whatever_is_asked_for_in_a_call(
    open_ground: Any,
    loop: Loop,
    call: str,
    data: st.DataObject,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = data.draw(spoilt(messages(CALLS[call], KNOWN)))

    async def play() -> tuple[Code, str]:
        async with open_ground.raw_site(open_ground, "mallory") as site:
            made = site.channel.unary_stream(method(call))(request, timeout=20)
            try:
                async for _ in made:
                    pass
            except grpc.aio.AioRpcError as error:
                return error.code(), str(error.details())
        return Code.OK, ""

    caplog.clear()
    code, sentence = loop.run(play())
    assert not [record for record in caplog.records if record.exc_info]
    expected = {Code.OK, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.NOT_FOUND}
    assert code in expected, (code, sentence)
    assert not [word for word in OURS if word in sentence]


@settings(FUZZ, max_examples=150)
@given(content=messages(pb.Content, KNOWN))
def test_whatever_an_answer_holds_it_is_refused_with_a_sentence(
    open_ground: Any, loop: Loop, content: pb.Content
) -> None:
    """No random content is ever taken for an update; and none makes the judgement itself fail."""
    plan, blobs = open_ground.plan(STUDY), open_ground.home.blobs()
    start = make_content(Payload(arrays={"arrays": {"weights": np.zeros(3)}}), blobs)
    expected = [ArraySpec(name="gradient_sum", dtype="float64", shape=(3,))]
    admit = admit_updates(plan, start, expected, (), {"mallory": 40.0}, blobs)
    answer = pb.Answer(study=STUDY, content=content)
    with pytest.raises(FedtwinError):
        loop.run(admit("mallory", answer))
    for judge in (check_count, lambda found: check_table(found, plan)):
        with pytest.raises(FedtwinError):
            judge(content)


ANSWERS = st.one_of(
    messages(pb.ToSite, KNOWN).map(lambda made: made.SerializeToString()),
    spoilt(messages(pb.ToSite, KNOWN)),
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda data: b"\x00" + data),
)


class Impostor:
    """A coordinator with a true certificate that says whatever it likes."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.port = 0
        self._server: Any = None

    async def start(self, home: Path) -> None:
        leaf = load_credentials(home / "coordinator")
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._link)
        made = grpc.method_handlers_generic_handler(SERVICE, {"Link": handler})
        self._server.add_generic_rpc_handlers((made,))
        tls = grpc.ssl_server_credentials([(leaf.key_pem, leaf.chain_pem)], leaf.roots_pem, True)
        self.port = self._server.add_secure_port("127.0.0.1:0", tls)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def _link(self, requests: object, context: Any) -> None:
        del requests
        await context.read()
        for frame in self.frames:
            await context.write(frame)
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def impostor(ground: Any, loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """It, and a node that dials it."""
    made = Impostor()
    loop.run(made.start(ground.home.folder))
    node = NodeHome(folder=tmp_path_factory.mktemp("node"))
    settings_text = f"consortium: demo\nsite: aal\ncoordinator: localhost:{made.port}\n"
    node.settings_file.write_text(settings_text)
    trust = canonical_bytes(ground.home.settings().trust.model_dump(mode="json"))
    (node.folder / "trust.json").write_bytes(trust)
    node.policy_file.write_text(default_policy_text())

    async def agent() -> Agent:
        from fedtwin_server.coordinator import system_clock

        return Agent(node, system_clock)

    found = loop.run(agent())
    yield made, found, load_credentials(ground.site("aal") / "identity")

    async def shut() -> None:
        await found._workers.stop_all()
        found._shut()
        await made.stop()

    loop.run(shut())


@FUZZ
@given(frames=st.lists(ANSWERS, min_size=1, max_size=4))
def test_whatever_a_coordinator_sends_to_a_node(
    impostor: tuple[Impostor, Agent, Any],
    loop: Loop,
    frames: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The node ends the link in words, dials again, and meets no fault of its own."""
    made, agent, credentials = impostor
    made.frames = frames
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert loop.run(agent._one_link(credentials)) in {"lost", "refused"}
    faults = [record for record in caplog.records if record.exc_info]
    assert not faults, caplog.text
