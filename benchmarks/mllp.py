"""HL7 v2 messages a second through the MLLP door into the node's own store, each on disk before AA.

Senders are a process of their own: several connections, each with some messages under way. They
need some 30 microseconds of CPU a message, less than a tenth of what the node needs. A message is
an ORU of five results. The store is the real live tail, encrypted as a node's is.

Baseline, in the same run: what python-hl7's parser alone reads of these messages in a CPU second.
Both are the best of a few turns, because other work on the machine only ever takes from them.
Told beside it: the way of a plain interface, one connection and one message at a time.
"""

import asyncio
import sys
import tempfile
import time
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from figures import Figure

MESSAGES, CONNECTIONS, UNDER_WAY = 8_000, 8, 32
ALONE, PARSED, TURNS = 200, 2_000, 3
NOW = datetime(2026, 3, 1, tzinfo=UTC)
START, END = b"\x0b", b"\x1c\r"


def measure(options: Namespace) -> list[Figure]:
    """The figure of this module.

    Raises:
        RuntimeError: a message was not acknowledged as stored, or its results are not there.
    """
    del options
    with tempfile.TemporaryDirectory() as folder:
        alone = asyncio.run(_rate(Path(folder) / "alone", ALONE, 1, 1))
        together = max(
            asyncio.run(_rate(Path(folder) / f"{turn}", MESSAGES, CONNECTIONS, UNDER_WAY))
            for turn in range(TURNS)
        )
    print(f"  one connection, one message at a time: {alone:.0f} messages/s")
    return [
        Figure(
            id="mllp-per-s",
            value=round(together, 1),
            unit="messages/s",
            baseline=round(max(_parsed() for _ in range(TURNS)), 1),
            goal=1000.0,
            higher_is_better=True,
        )
    ]


def _parsed() -> float:
    """Messages that python-hl7 parses in a CPU second."""
    import hl7

    texts = [_message(number).strip(START + END).decode() for number in range(PARSED)]
    began = time.process_time()
    for text in texts:
        hl7.parse(text)
    return PARSED / (time.process_time() - began)


async def _rate(folder: Path, messages: int, connections: int, under_way: int) -> float:
    """Messages a second from the first byte sent to the last acknowledgement."""
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.node.sealing import make_keys
    from fedtwin_client.records.hl7.mllp import MllpDoor, MllpSettings
    from fedtwin_client.records.hl7.patients import Whose
    from fedtwin_client.store.live import LiveStore
    from fedtwin_client.store.timeline import Timeline

    home = NodeHome(folder=folder)
    folder.mkdir()
    home.settings_file.write_text("consortium: demo\nsite: aal\ncoordinator: here:1\n")
    make_keys(home)
    with LiveStore(home.records, b"s" * 32, lambda: NOW) as store:
        door = MllpDoor("lab", MllpSettings(port=0), Whose())
        desk = store.desk("lab", ZoneInfo("UTC"))
        serving = asyncio.create_task(door.serve(desk, store.keep(desk)))
        while door.port is None:
            await asyncio.sleep(0.01)
        arguments = map(str, (door.port, messages, connections, under_way))
        sender = await asyncio.create_subprocess_exec(
            sys.executable, __file__, *arguments, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await sender.communicate()
        serving.cancel()
        await asyncio.wait([serving])
    found = Timeline.open(home.records).events()["numeric_value"]
    if len(found) - found.null_count != 5 * messages:
        raise RuntimeError(f"expected {5 * messages} results, found {len(found)} rows")
    return messages / float(said)


def _message(number: int) -> bytes:
    head = f"MSH|^~\\&|LAB|HOSP|TWIN|HOSP|20240501093100||ORU^R01^ORU_R01|M{number}|P|2.5.1"
    order = f"OBR|1|P{number}^EHR|F{number}^LAB|24331-1^Lipid panel^LN|||20240501080000"
    results = [
        f"OBX|{n}|NM|2093-3^Cholesterol^LN|{n}|{180 + n}|mg/dL^^UCUM|||||F" for n in range(5)
    ]
    person = f"PID|1||{number % 500}^^^HOSP^MR||DOE^JANE||19600203|F"
    return START + "\r".join([head, person, order, *results, ""]).encode() + END


async def _connection(port: int, numbers: range, under_way: int) -> None:
    """Send messages, with so many unanswered; every answer must be AA, in order."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    free = asyncio.Semaphore(under_way)

    async def listen() -> None:
        for number in numbers:
            answer = await reader.readuntil(END)
            if b"MSA|AA|M%d\r" % number not in answer.replace(b"|\r", b"\r"):
                raise RuntimeError(f"message {number} was answered by {answer!r}")
            free.release()

    listening = asyncio.create_task(listen())
    for number in numbers:
        await free.acquire()
        writer.write(_message(number))
        await writer.drain()
    await listening
    writer.close()


async def _send(port: int, messages: int, connections: int, under_way: int) -> None:
    each = messages // connections
    began = time.perf_counter()
    await asyncio.gather(
        *(
            _connection(port, range(each * part, each * (part + 1)), under_way)
            for part in range(connections)
        )
    )
    print(time.perf_counter() - began)


if __name__ == "__main__":
    asyncio.run(_send(*map(int, sys.argv[1:])))
