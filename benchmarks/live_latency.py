"""How long after a result arrived it is in the patient's timeline, and its subscriber told.

All at once, as processes: the node that listens (200 HL7 v2 messages of five results a second by
MLLP, 500 messages a second by MQTT, a FHIR server polled every second), a reader that asks for one
patient's timeline again and again, a subscriber, and two compactions: one of 200,000 waiting events
and one more. The store is encrypted and holds a million events already.

A result arrives when it is written into the socket, published, or stands in an answer of the
server. It is readable when the reader first finds it: that counts the reader's own turn, too.
The slowest of all counts. The limit of one second stands beside it as the baseline.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cohort_scale
import numpy as np
from figures import Figure
from live_senders import MOSQUITTO, SYSTEM, broker, free_port

SECRET = b"s" * 32
WRITTEN, WAITING, BATCH = 1_000_000, 200_000, 5_000
SECONDS, COMPACTIONS_AT_S, SETTLED_S = 40, (12, 27), 4
DOORS = ("mllp", "mqtt", "poll")


def measure(options: Namespace) -> list[Figure]:
    """The two figures; none where there is no mosquitto.

    Raises:
        RuntimeError: a process ended early, or a result that was sent is not there.
    """
    del options
    if MOSQUITTO is None:
        print("live-…-s need mosquitto (Debian: apt-get install mosquitto)", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sealed"
        _prepare(folder)
        arrived, readable, told = _run(folder)
    said = {"readable": _late(arrived, readable), "told": _late(arrived, told)}
    for what, doors in said.items():
        for door, seconds in doors.items():
            half, most, last = np.percentile(seconds, [50, 99, 100])
            print(
                f"  {door} -> {what:8} {len(seconds):6,} results, ms:"
                f" p50 {1e3 * half:.0f}, p99 {1e3 * most:.0f}, max {1e3 * last:.0f}"
            )
    return [
        Figure(
            id=f"live-{what}-s",
            value=round(max(float(seconds.max()) for seconds in doors.values()), 3),
            unit="s",
            baseline=1.0,
            goal=1.0,
        )
        for what, doors in said.items()
    ]


def _prepare(folder: Path) -> None:
    """A store with events in its files, and as many waiting as make a compaction due."""
    from fedtwin_client.store.tail import Batch, Tail

    cohort_scale.VALUES, cohort_scale.PATIENTS = WRITTEN, WRITTEN // 100
    cohort_scale.make(folder)
    with Tail(folder / "records") as tail:
        for start in range(0, WAITING, BATCH):
            versions = [_waiting(number) for number in range(start, start + BATCH)]
            tail.add([Batch(door="before", versions=versions)], frozenset(), cohort_scale.NOW)


def _waiting(number: int):  # type: ignore[no-untyped-def]
    from fedtwin_client.records.events import Event
    from fedtwin_client.records.source import Version

    event = Event(
        subject_id=1_000 + number % 2_000,
        time=cohort_scale.NOW,
        code="LOINC//8867-4",
        numeric_value=70.0,
        available_time=cohort_scale.NOW,
        unit="/min",
        source=f"before:{number}#0",
    )
    return Version(origin=f"before:{number}", updated=None, events=[event])


def _run(folder: Path) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """When each result arrived, was first read, and was told, by its record."""
    mllp, mqtt, poll = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        stack.enter_context(broker(folder.parent, mqtt))
        sender = stack.enter_context(_process("live_senders.py", poll, mllp, mqtt, SECONDS))
        node = stack.enter_context(_process(__file__, "node", folder, mllp, mqtt, poll))
        _expect(node, "open")
        reader = stack.enter_context(_process(__file__, "read", folder))
        subscriber = stack.enter_context(_process(__file__, "watch", folder))
        _expect(reader, "ready")
        _expect(subscriber, "ready")
        sender.stdin.write("go\n")  # type: ignore[union-attr]
        sender.stdin.flush()  # type: ignore[union-attr]
        began = time.monotonic()
        for at_s in COMPACTIONS_AT_S:
            time.sleep(max(0.0, began + at_s - time.monotonic()))
            node.send_signal(signal.SIGUSR1)
        sent = json.loads(_line(sender))
        time.sleep(SETTLED_S)
        seen = []
        for process in (reader, subscriber):
            process.send_signal(signal.SIGTERM)
            seen.append(json.loads(_line(process)))
        node.send_signal(signal.SIGTERM)
        print(f"  {_line(node).strip()}")
        _expect(node, "closed")
    arrived = _by_record(folder, sent)
    absent = arrived.keys() - seen[1].keys()
    if absent:
        raise RuntimeError(f"{len(absent)} records were never told, such as {min(absent)}")
    return arrived, *seen


def _by_record(folder: Path, sent: dict[str, list[float]]) -> dict[str, float]:
    """When each record arrived: its value is its number."""
    from fedtwin_client.store.timeline import Timeline

    events = Timeline.open(folder / "records").events(codes=["LOINC//8867-4"])
    found = {}
    for source, value in zip(
        events["source"].to_pylist(), events["numeric_value"].to_pylist(), strict=True
    ):
        door = source.partition(":")[0]
        if door in sent:
            found[source.partition("#")[0]] = sent[door][int(value)]
    numbers = {door: len(times) for door, times in sent.items()}
    there = {door: sum(one.startswith(f"{door}:") for one in found) for door in numbers}
    if there != numbers | {"mllp": 5 * numbers["mllp"]}:
        raise RuntimeError(f"of {numbers} messages (mllp: five records each) {there} are there")
    return found


def _late(arrived: dict[str, float], seen: dict[str, float]) -> dict[str, np.ndarray]:
    """Seconds from arrival, by door; of those that were looked for."""
    return {
        door: np.array(
            [
                seen[record] - when
                for record, when in arrived.items()
                if record.startswith(f"{door}:") and record in seen
            ]
        )
        for door in DOORS
    }


@contextmanager
def _process(*words: object) -> Iterator[subprocess.Popen[str]]:
    script, *others = map(str, words)
    command = [sys.executable, str(Path(__file__).parent / script), *others]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _line(process: "subprocess.Popen[str]") -> str:
    line = process.stdout.readline()  # type: ignore[union-attr]
    if not line:
        raise RuntimeError(f"{process.args!r} ended early")
    return str(line)


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    if (found := _line(process).strip()) != word:
        raise RuntimeError(f"expected {word!r} of {process.args!r}, found {found!r}")


async def _node(folder: Path, mllp: int, mqtt: int, poll: int) -> None:
    """Listen as `fedtwin client listen` does, and compact when told to."""
    from datetime import UTC, datetime

    from fedtwin_client.doors import read_doors
    from fedtwin_client.listening import listen
    from fedtwin_client.store.compaction import compact

    def now() -> datetime:
        return datetime.now(UTC)

    doors = {
        "mllp": {"kind": "mllp", "port": mllp, "patients": {"authority": "HOSP", "system": SYSTEM}},
        "mqtt": {
            "kind": "mqtt",
            "host": "127.0.0.1",
            "port": mqtt,
            "topic": "ward/{patient}",
            "client_id": "node",
            "tls": False,
            "system": SYSTEM,
        },
        "poll": {
            "kind": "fhir-poll",
            "url": f"http://127.0.0.1:{poll}/fhir",
            "types": ["Patient", "Observation"],
            "systems": [SYSTEM],
            "every_s": 1.0,
        },
    }
    (folder / "doors.yaml").write_text(json.dumps({"doors": doors}))
    store, loop = folder / "records", asyncio.get_running_loop()
    due, ended, spent = asyncio.Queue[None](), asyncio.Event(), list[str]()
    loop.add_signal_handler(signal.SIGUSR1, due.put_nowait, None)
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    async def compacting() -> None:
        while True:
            await due.get()
            began = time.monotonic()
            events = await asyncio.to_thread(compact, store, now())
            spent.append(f"{events:,} events in {time.monotonic() - began:.1f} s")

    tasks = [
        asyncio.create_task(listen(store, SECRET, read_doors(folder, now), now)),
        asyncio.create_task(compacting()),
    ]
    await asyncio.sleep(2)
    print("open", flush=True)
    await asyncio.wait([*tasks, asyncio.create_task(ended.wait())], return_when="FIRST_COMPLETED")
    for task in tasks:
        task.cancel()
    cpu = f"{time.process_time():.0f} s of CPU"
    print(f"the node took {cpu}; compactions beside it:", "; ".join(spent), flush=True)
    await asyncio.gather(*tasks, return_exceptions=True)
    print("closed", flush=True)


def _read(folder: Path) -> None:
    """One patient's timeline again and again: when each record was first seen there."""
    from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
    from fedtwin_client.store.patient import patient_events
    from fedtwin_client.store.timeline import Timeline

    subject = Pseudonyms(SECRET).of(Identity(SYSTEM, "0"))
    seen: dict[str, float] = {}
    print("ready", flush=True)
    while not _ENDED:
        began = time.monotonic()
        found = patient_events(Timeline.open(folder / "records"), subject)
        now = time.monotonic()
        for source in found["source"].to_pylist():
            seen.setdefault(source.partition("#")[0], now)
        time.sleep(max(0.0, began + 0.1 - now))
    print(json.dumps(seen), flush=True)


async def _watch(folder: Path) -> None:
    """When each record was told."""
    from fedtwin_client.store.watch import watch

    seen: dict[str, float] = {}
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def following() -> None:
        async for change in watch(folder / "records"):
            seen.setdefault(change.origin, time.monotonic())

    task = asyncio.create_task(following())
    await asyncio.sleep(0.5)
    print("ready", flush=True)
    await asyncio.wait([task, asyncio.create_task(ended.wait())], return_when="FIRST_COMPLETED")
    print(json.dumps(seen), flush=True)


_ENDED: list[int] = []

if __name__ == "__main__":
    what, home, *ports = sys.argv[1:]
    if what == "node":
        asyncio.run(_node(Path(home), *map(int, ports)))
    elif what == "watch":
        asyncio.run(_watch(Path(home)))
    else:
        signal.signal(signal.SIGTERM, lambda number, _: _ENDED.append(number))
        _read(Path(home))
