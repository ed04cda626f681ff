"""The MLLP door over real sockets: framing, acknowledgement after storing, limits, TLS."""

import asyncio
import ssl
import sys
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import hl7
import pytest

from fedtwin_client.records.hl7 import mllp
from fedtwin_client.records.hl7.mllp import MllpDoor, MllpSettings, MllpTls
from fedtwin_client.records.hl7.mllp_frames import FrameCutter
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.pseudonyms import Pseudonyms
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.source import Desk
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from ..small_authority import SmallAuthority
from .hl7_parts import NOW, OBR, PID, SECRET, message, msh, obx
from .mllp_site import END, START, codes, framed, numbered, run, serving


def test_a_message_is_acknowledged_once_it_is_kept() -> None:
    async def scenario() -> None:
        async with serving() as site:
            site.memory.open.clear()
            reader, writer = await site.dial()
            writer.write(framed(numbered(1)))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            assert site.memory.calls == 1
            site.memory.open.set()
            answer = hl7.parse((await reader.readuntil(END))[1:-2].decode())
            assert codes([answer]) == [("AA", "M1")]
            fields = [str(answer["MSH"][0][number]) for number in (3, 4, 5, 6, 9, 11, 12)]
            assert fields == ["TWIN", "HOSP", "LAB", "HOSP", "ACK^R01^ACK", "P", "2.5.1"]
            assert 1 <= len(str(answer["MSH"][0][10])) <= 20
            assert [event.numeric_value for event in site.memory.results] == [5]
            writer.close()

    run(scenario)


def test_any_way_of_cutting_packets() -> None:
    async def scenario() -> None:
        async with serving() as site:
            one, two = framed(numbered(1)), framed(numbered(2))
            both = [("AA", "M1"), ("AA", "M2")]
            assert codes(await site.send(one + two)) == both
            assert codes(await site.send(one, two)) == both
            pieces = [bytes([byte]) for byte in one]
            assert codes(await site.send(*pieces)) == [("AA", "M1")]
            assert (
                codes(await site.send(one[:50], one[50:] + two[:9], two[9:], pause_s=0.02)) == both
            )
            assert site.tally.reasons == {}
            assert len(site.memory.results) == 2

    run(scenario)


def test_what_is_no_message_is_put_aside_and_the_next_is_read() -> None:
    async def scenario() -> None:
        async with serving() as site:
            one = framed(numbered(1))
            assert codes(await site.send(b"GET / HTTP/1.1\r\n\r\n" + one)) == [("AA", "M1")]
            assert codes(await site.send(one[:60] + one)) == [("AA", "M1")]
            assert codes(await site.send(one + one[:60])) == [("AA", "M1")]
            assert codes(await site.send(framed("hello") + one)) == [("AE", ""), ("AA", "M1")]
            assert site.tally.reasons == {
                "bytes that stand in no MLLP frame": 1,
                "a message without its end: the connection was closed, or another began": 2,
                "not an HL7 message: it does not begin with MSH and its delimiters": 1,
            }

    run(scenario)


def test_what_cannot_be_used_is_answered_with_its_reason() -> None:
    async def scenario() -> None:
        async with serving() as site:
            wrong, good = numbered(1, "high"), numbered(2)
            (answer, other) = await site.send(framed(wrong) + framed(good))
            assert codes([answer, other]) == [("AE", "M1"), ("AA", "M2")]
            assert str(answer["MSA"][0][3]) == "expected a number, found text"
            assert str(answer["ERR"][0][3]) == "102^Data type error^HL70357"
            half = message(msh(), PID, OBR, obx("high"), obx("5", sub="2"))
            assert codes(await site.send(framed(half))) == [("AA", "M1")]
            latin = numbered(3, f18="UNICODE UTF-8").replace("JANE", "JOSÉ").encode("latin-1")
            assert codes(await site.send(framed(latin))) == [("AE", "M3")]
            assert codes(await site.send(framed(message(msh("SIU^S12"), PID)))) == [("AA", "M1")]
            assert await site.send(framed(message(msh("ACK"), "MSA|AA|7"))) == []
            merge = message(msh("ADT^A40"), "PID|1||1^^^H^MR", "MRG|2^^^H^MR")
            assert codes(await site.send(framed(merge))) == [("AA", "M1")]

    run(scenario)


def test_a_full_disk_asks_for_the_message_again() -> None:
    async def scenario() -> None:
        async with serving() as site:
            site.memory.full = True
            (answer,) = await site.send(framed(numbered(1)))
            assert codes([answer]) == [("AR", "M1")]
            assert str(answer["MSA"][0][3]) == "could not be stored; send it again"
            site.memory.full = False
            assert codes(await site.send(framed(numbered(1)))) == [("AA", "M1")]
            assert len(site.memory.results) == 1

    run(scenario)


def test_a_fault_of_ours_asks_again_and_tells_nothing_of_the_patient(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("4711 DOE^JANE")

    async def scenario() -> None:
        async with serving() as site:
            monkeypatch.setattr(mllp.Hl7Reader, "read", fail)
            assert codes(await site.send(framed(numbered(1)))) == [("AR", "M1")]

    with caplog.at_level("DEBUG", logger="fedtwin_client"):
        run(scenario)
    assert "ValueError" in caplog.text
    assert "4711" not in caplog.text
    assert "DOE" not in caplog.text


def test_a_message_that_is_too_large_is_answered_and_not_held() -> None:
    async def scenario() -> None:
        async with serving(largest=5_000) as site:
            large = framed(msh() + "\r" + "x" * 400_000)
            (answer, other) = await site.send(large + framed(numbered(2)))
            assert codes([answer, other]) == [("AE", "M1"), ("AA", "M2")]
            assert "larger" in str(answer["MSA"][0][3])

    run(scenario)


def test_memory_does_not_grow_with_what_has_no_end() -> None:
    def peak(start: bytes) -> int:
        cutter = FrameCutter(10_000)
        cutter.feed(start)
        tracemalloc.start()
        for _ in range(100):
            cutter.feed(b"x" * 50_000)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(START) < 500_000
    assert peak(b"") < 500_000


def test_many_messages_on_many_connections_are_answered_in_order() -> None:
    async def scenario() -> None:
        async with serving(pending=8) as site:

            async def one(start: int) -> list[tuple[str, str]]:
                numbers = range(start, start + 40)
                return codes(await site.send(*(framed(numbered(number)) for number in numbers)))

            answers = await asyncio.gather(*(one(100 * start) for start in range(5)))
            for start, found in enumerate(answers):
                assert found == [("AA", f"M{100 * start + number}") for number in range(40)]
            assert len(site.memory.results) == 200

    run(scenario)


def test_silent_stalled_and_surplus_connections_are_closed() -> None:
    async def scenario() -> None:
        async with serving(idle_s=0.2, stalled_s=0.05, connections=1) as site:
            reader, writer = await site.dial()
            other, second = await site.dial()
            assert await other.read() == b""
            writer.write(framed(numbered(1)))
            assert b"MSA|AA|M1" in await reader.readuntil(END)
            writer.write(framed(numbered(2))[:30])
            assert await reader.read() == b""
            assert list(site.tally.reasons.values()) == [1]
            writer.close()
            second.close()

    run(scenario)


def test_a_sender_that_hangs_up_without_waiting_is_stored() -> None:
    async def scenario() -> None:
        async with serving() as site:
            _, writer = await site.dial()
            writer.write(framed(numbered(1)) + framed(numbered(2)))
            await writer.drain()
            writer.transport.abort()
            await asyncio.sleep(0.2)
            assert len(site.memory.results) in {0, 1, 2}
            assert codes(await site.send(framed(numbered(1)) + framed(numbered(2)))) == [
                ("AA", "M1"),
                ("AA", "M2"),
            ]
            assert len(site.memory.results) == 2

    run(scenario)


def test_a_clock_that_runs_a_little_ahead_is_forgiven() -> None:
    async def scenario() -> None:
        async with serving() as site:
            ahead = [f"{NOW + timedelta(seconds=seconds):%Y%m%d%H%M%S}" for seconds in (60, 600)]
            sent = [numbered(n).replace("20240501080000", time) for n, time in enumerate(ahead)]
            answers = await site.send(*map(framed, sent))
            assert codes(answers) == [("AA", "M0"), ("AE", "M1")]

    run(scenario)


def test_the_client_of_python_hl7_is_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving() as site:
            file = tmp_path / "messages.hl7"
            file.write_bytes(b"".join(framed(numbered(number)) for number in range(3)))
            client = str(Path(sys.executable).parent / "mllp_send")
            process = await asyncio.create_subprocess_exec(
                *(client, "--port", str(site.door.port), "--file", str(file), "127.0.0.1"),
                stdout=asyncio.subprocess.PIPE,
            )
            said, _ = await process.communicate()
            assert said.count(b"MSA|AA|M") == 3
            assert len(site.memory.results) == 3

    run(scenario)


def test_tls_asks_for_the_senders_certificate(tmp_path: Path) -> None:
    authority = SmallAuthority(tmp_path)
    door, sender = authority.issue("localhost"), authority.issue("lab")
    tls = MllpTls(certificate=door.certificate, key=door.key, senders=authority.certificate)

    def context(known: bool) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(authority.certificate))
        if known:
            made.load_cert_chain(sender.certificate, sender.key)
        return made

    async def ask(dialled: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
        reader, writer = dialled
        try:
            writer.write(framed(numbered(2)))
            return await reader.readuntil(END)
        finally:
            writer.close()

    async def scenario() -> None:
        async with serving(tls=tls) as site:
            reader, writer = await site.dial(ssl=context(True), server_hostname="localhost")
            writer.write(framed(numbered(1)))
            assert b"MSA|AA|M1" in await reader.readuntil(END)
            writer.close()
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await ask(await site.dial(ssl=context(False), server_hostname="localhost"))
            assert len(site.memory.results) == 1

    run(scenario)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    def door(**options: Any) -> MllpDoor:
        return MllpDoor("lab", MllpSettings(**options), Whose())

    with pytest.raises(RecordError, match="anybody who reaches"):
        door(host="0.0.0.0")
    assert door(host="0.0.0.0", trusted_network=True).name == "lab"
    with pytest.raises(RecordError, match="expected a character set"):
        door(encoding="rot13")

    async def scenario() -> None:
        async with serving() as site:
            desk = Desk(
                reading=Reading(source="lab", zone=ZoneInfo("UTC"), now=NOW, tally=site.tally),
                pseudonyms=Pseudonyms(SECRET),
                known={},
            )
            assert site.door.port is not None
            with pytest.raises(RecordError, match="cannot listen on"):
                await door(port=site.door.port).serve(desk, site.memory)
            tls = MllpTls(certificate=tmp_path / "a", key=tmp_path / "b")
            with pytest.raises(RecordError, match="cannot use the TLS files"):
                await door(port=0, tls=tls).serve(desk, site.memory)

    run(scenario)


def test_the_nodes_own_store_keeps_each_message_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        with LiveStore(tmp_path / "store", SECRET, lambda: NOW) as store:
            desk = store.desk("lab", ZoneInfo("UTC"))
            async with serving(desk=desk, keep=store.keep(desk)) as site:
                sent = [framed(numbered(number % 3, f"{number}")) for number in range(9)]
                assert {code for code, _ in codes(await site.send(*sent))} == {"AA"}
                assert codes(await site.send(framed("hello"))) == [("AE", "")]

    run(scenario)
    rows = Timeline.open(tmp_path / "store").events().to_pylist()
    assert sorted(row["numeric_value"] for row in rows if row["unit"]) == [6, 7, 8]
    assert len(rows) == 5
