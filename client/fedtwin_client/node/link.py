"""One life of the node's only connection: greet, ask for studies, answer tasks, keep a pulse.

Every message is written to the list of what left before it leaves.
"""

import asyncio
import logging
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Any, Final

from fedtwin_client.node.departures import Departure
from fedtwin_client.node.log_desk import LogDesk
from fedtwin_client.node.outbox import Outbox, Outgoing
from fedtwin_client.node.studies import KnownStudies, KnownStudy
from fedtwin_client.node.study_desk import StudyDesk
from fedtwin_client.node.task_desk import TaskDesk, in_words
from fedtwin_client.node.workers import Clock
from fedtwin_protocol.blobs import BlobRef, BlobStore
from fedtwin_protocol.channel import LEASE_S, grpc, method
from fedtwin_protocol.chunks import chunk_from_frame, is_chunk
from fedtwin_protocol.content import ref_of
from fedtwin_protocol.errors import FedtwinError, LinkError, LogError, WireError
from fedtwin_protocol.stream import Outlet, Traffic
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.wire import PROTOCOL_VERSION, blob_ref, parse

log = logging.getLogger("fedtwin.link")
LARGEST_MODEL: Final = 16 * 1024**3
LARGEST_SKEW_S: Final = 60.0
LOOK_S: Final = 0.5


class LinkSession:
    """The link from its opening to its end.

    Args:
        study_desk: decides on studies.
        task_desk: answers tasks.
        studies: what the node knows of them.
        outbox: the list of what left.
        incoming: where models arrive.
        clock: the time.
        log_desk: what the coordinator shows of its public log.
    """

    def __init__(
        self,
        study_desk: StudyDesk,
        task_desk: TaskDesk,
        studies: KnownStudies,
        outbox: Outbox,
        incoming: BlobStore,
        clock: Clock,
        log_desk: LogDesk,
    ) -> None:
        self._study_desk = study_desk
        self._task_desk = task_desk
        self._studies = studies
        self._outbox = outbox
        self._clock = clock
        self._log_desk = log_desk
        self._outlet: Outlet[pb.FromSite] = Outlet()
        self._traffic = Traffic(incoming, self._want, self._chunk, outgoing=BlobStore(outbox.blobs))
        self._digest = b""
        self._announced: set[tuple[str, bool]] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._at_work: set[str] = set()
        self._catalogue_turn = asyncio.Lock()
        self._heartbeat_s = 10.0
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Live until the link ends.

        Raises:
            grpc.aio.AioRpcError: the coordinator or the network ended it.
            FedtwinError: the coordinator sent something that was not agreed.
        """
        call = channel.stream_stream(method("Link"))()
        parts = [
            asyncio.create_task(self._outlet.drain(lambda frame: _write(call, frame))),
            asyncio.create_task(self._read(call)),
            asyncio.create_task(self._pulse()),
            asyncio.create_task(self._notice_commands()),
        ]
        try:
            self._greet()
            watched = {*parts, self._broken}
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            if not self._broken.cancel() and not self._broken.cancelled():
                self._broken.exception()
            self._outlet.close()
            self._traffic.close()
            for part in (*parts, *self._work):
                part.cancel()
            await asyncio.gather(*parts, *self._work, return_exceptions=True)
            call.cancel()

    def _greet(self) -> None:
        hello = pb.Hello(
            protocol=PROTOCOL_VERSION,
            software=f"fedtwin {version('fedtwin')}",
            sent_ms=self._now_ms(),
            root_version=self._log_desk.watch.root_version,
        )
        self._send(pb.FromSite(hello=hello), "hello", "name and version of the software, the time")

    async def _read(self, call: Any) -> None:
        while True:
            try:
                async with asyncio.timeout(LEASE_S):
                    data = await call.read()
            except TimeoutError as error:
                text = f"nothing was heard from the coordinator for {LEASE_S:.0f} s"
                raise LinkError(text) from error
            if data is grpc.aio.EOF:
                await _check_end(call)
                return
            if is_chunk(data):
                self._traffic.on_chunk(chunk_from_frame(data))
            else:
                self._dispatch(parse(pb.ToSite, data))

    def _dispatch(self, message: pb.ToSite) -> None:
        match message.WhichOneof("body"):
            case "welcome":
                self._greeted(message.welcome)
            case "pulse":
                self._ask_if_changed(message.pulse.catalogue_digest)
            case "catalogue":
                self._start(self._take_catalogue(message.catalogue))
            case "task":
                self._start(self._take_task(message.task))
            case "want":
                self._traffic.on_want(message.want)
            case "received":
                self._task_desk.receipt(message.received)
            case "log_news":
                self._log_desk.hear(message.log_news)
            case _:
                raise WireError("the coordinator sent an empty message")

    def _greeted(self, welcome: pb.Welcome) -> None:
        skew = abs(self._now_ms() - welcome.server_ms) / 1000
        if skew > LARGEST_SKEW_S:
            log.warning(
                "the clocks of this node and the coordinator differ by %.0f s: check the time "
                "service (NTP) here; certificates and the ledger depend on it",
                skew,
            )
        self._heartbeat_s = max(0.2, welcome.heartbeat_ms / 1000)
        log.info("the link to the coordinator is up")
        self._log_desk.watch.learn_roots(list(welcome.roots))
        self._tell_log()
        self._ask_if_changed(welcome.catalogue_digest)

    def _ask_if_changed(self, digest: bytes) -> None:
        if digest != self._digest:
            self._digest = digest
            message = pb.FromSite(ask_catalogue=pb.AskCatalogue())
            self._send(message, "catalogue request", "a request for the open studies")

    def _tell_log(self) -> None:
        """Say what this node holds of the log; the answer is the newest head."""
        message = pb.FromSite(held_log_head=self._log_desk.statement())
        self._send(message, "log head", "the public log's head, and a commitment to the ledger")

    async def _take_catalogue(self, catalogue: pb.Catalogue) -> None:
        try:
            await self._log_desk.shown()
        except LogError as error:
            log.error("studies are not looked at: %s", error)
            return
        async with self._catalogue_turn:
            for offer in catalogue.offers:
                await self._study_desk.hear(offer, self._announce)

    async def _notice_commands(self) -> None:
        """Go on with studies that a person decided on by command."""
        mark = self._studies.change_mark()
        while True:
            await asyncio.sleep(LOOK_S)
            if (now := self._studies.change_mark()) == mark:
                continue
            mark = now
            async with self._catalogue_turn:
                for study in self._studies.all():
                    if study.decision != "new":
                        await self._study_desk.proceed(study, self._announce)

    def _announce(self, study: KnownStudy, take_part: bool) -> None:
        if (study.plan_hash, take_part) in self._announced:
            return
        self._announced.discard((study.plan_hash, not take_part))
        self._announced.add((study.plan_hash, take_part))
        decision = pb.Decision(
            study=study.study, plan_hash=bytes.fromhex(study.plan_hash), take_part=take_part
        )
        held = "this hospital takes part" if take_part else "this hospital does not take part"
        self._send(pb.FromSite(decision=decision), "decision", held, study.study)

    async def _take_task(self, task: pb.Task) -> None:
        if task.task_id in self._at_work:
            return
        self._at_work.add(task.task_id)
        try:
            await self._log_desk.shown()
            outgoing = self._task_desk.kept(task)
            if outgoing is None:
                study = self._task_desk.check(task)
                outgoing = await self._answer(task)
                log.info("study %s: %s, round %d, answered", study.study, task.kind, task.round)
            self._send_answer(outgoing)
        except FedtwinError as error:
            answer = self._task_desk.fault(task, error)
            self._send(
                pb.FromSite(answer=answer),
                "answer",
                f"a refusal: {answer.fault.text}",
                task.study,
                task.round,
            )
        finally:
            self._at_work.discard(task.task_id)

    async def _answer(self, task: pb.Task) -> Outgoing:
        if ref_of(task.content) is None:
            return await self._task_desk.answer(task)
        ref = blob_ref(task.content.blob, LARGEST_MODEL)
        with self._task_desk.needing(ref):
            await self._traffic.fetch(ref)
            return await self._task_desk.answer(task)

    def _send_answer(self, outgoing: Outgoing) -> None:
        answer = pb.Answer.FromString(outgoing.head)
        if outgoing.blob is not None:
            self._traffic.offer(
                BlobRef(sha256=bytes.fromhex(outgoing.blob_sha256), size=outgoing.blob_size)
            )
        study = self._studies.by_hash(answer.plan_hash.hex())
        held = in_words(answer, study.plan) if study else "an answer"
        self._send(pb.FromSite(answer=answer), "answer", held, outgoing.study, outgoing.round)

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            message = pb.FromSite(pulse=pb.Pulse(sent_ms=self._now_ms()))
            self._send(message, "heartbeat", "the time")
            self._tell_log()

    def _send(
        self,
        message: pb.FromSite,
        kind: str,
        held: str,
        study: str = "",
        round_number: int | None = None,
    ) -> None:
        self._write_down(message.ByteSize(), kind, held, study, round_number)
        self._outlet.send(message)

    def _write_down(
        self, size: int, kind: str, held: str, study: str = "", round_number: int | None = None
    ) -> None:
        self._outbox.sent(
            Departure(
                time=self._clock(),
                kind=kind,
                study=study,
                round=round_number,
                bytes=size,
                held=held,
            )
        )

    def _want(self, want: pb.Want) -> None:
        message = pb.FromSite(want=want)
        self._send(message, "content request", "the hash of a content that the coordinator offers")

    async def _chunk(self, frame: bytes) -> None:
        self._write_down(len(frame), "content", "a part of an answer's arrays")
        await self._outlet.send_bulk(frame)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Work that could not be done ends the link: it is taken up again with the next one."""
        self._work.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)


async def _write(call: Any, frame: bytes) -> None:
    """Write a frame; a link that had ended is told by how it ended, not as a fault of ours."""
    try:
        await call.write(frame)
    except asyncio.InvalidStateError:
        await _check_end(call)
        raise LinkError("the coordinator closed the link while something was being sent") from None


async def _check_end(call: Any) -> None:
    """Raise what the coordinator or the network ended the link with, if not by closing it."""
    code = await call.code()
    if code != grpc.StatusCode.OK:
        none = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(code, none, none, await call.details())
