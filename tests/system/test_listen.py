"""`fedtwin client listen` as a process: what it acknowledged is in the timelines, killed or not."""

import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fedtwin.demo.consortium import free_port
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.sealing import make_keys
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.tail import FILE, Change
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.store.watch import watch


def result(number: int, patient: int, value: float) -> bytes:
    """An ORU^R01 with one glucose value, in its frame."""
    when = f"{datetime.now(UTC) - timedelta(minutes=1):%Y%m%d%H%M%S}+0000"
    lines = (
        f"MSH|^~\\&|LAB|HOSP|NODE|HOSP|{when}||ORU^R01|m{number}|P|2.5",
        f"PID|1||{patient}^^^MRN^MR||X",
        f"OBR|1|o{number}|f{number}|2345-7^Glucose^LN|||{when}",
        f"OBX|1|NM|2345-7^Glucose^LN||{value}|mmol/L|||||F|||{when}",
    )
    return b"\x0b" + "\r".join(lines).encode() + b"\r\x1c\r"


_NUMBER = re.compile(r"/f(\d+)/")


class Listening:
    """A node's folder, and its process that listens."""

    def __init__(self, folder: Path) -> None:
        self.home = NodeHome(folder=folder)
        folder.mkdir(mode=0o700, parents=True)
        settings = {"consortium": "demo", "site": "aal", "coordinator": "localhost:1"}
        self.home.settings_file.write_text(yaml.safe_dump(settings))
        make_keys(self.home)
        self.port = free_port()
        doors = {"laboratory": {"kind": "mllp", "port": self.port}}
        (folder / "doors.yaml").write_text(yaml.safe_dump({"doors": doors}))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ("client", "listen", "--home", str(self.home.folder))
        with (self.home.folder / "listen.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedtwin.main", *words], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, self.log
            time.sleep(0.05)
        raise AssertionError(self.log)

    @property
    def log(self) -> str:
        return (self.home.folder / "listen.log").read_text()

    def stop(self, how: int) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)

    def values(self) -> dict[str, float]:
        found = Timeline.open(self.home.records).events(codes=["LOINC//2345-7"])
        sources = (source.partition("#")[0] for source in found["source"].to_pylist())
        return dict(zip(sources, found["numeric_value"].to_pylist(), strict=True))


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    made = Listening(tmp_path / "node")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop(signal.SIGKILL)


@contextmanager
def line_to(listening: Listening) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", listening.port), 20) as line:
        yield line


def answers(line: socket.socket, number: int) -> list[bytes]:
    """So many acknowledgements, or as many as came before the line was cut."""
    data = b""
    with suppress(OSError):
        while data.count(b"\x1c\r") < number and (part := line.recv(65536)):
            data += part
    return [frame for frame in data.split(b"\x1c\r") if frame]


def test_a_result_is_in_the_timeline_and_told_to_whoever_watches(listening: Listening) -> None:
    listening.start()

    async def first() -> Change:
        async for change in watch(listening.home.records, after=0):
            return change
        raise AssertionError

    with line_to(listening) as line:
        line.sendall(result(1, 4711, 7.8))
        (acknowledged,) = answers(line, 1)
    assert b"MSA|AA|m1" in acknowledged
    assert list(listening.values().values()) == [7.8]
    change = asyncio.run(asyncio.wait_for(first(), 20))
    assert len(change.subjects) == 1
    assert listening.stop(signal.SIGTERM) in {0, -signal.SIGTERM, 130, 143}
    assert "4711" not in listening.log
    assert "7.8" not in listening.log


def test_two_do_not_listen_for_one_node(listening: Listening) -> None:
    listening.start()
    again = subprocess.run(
        [sys.executable, "-m", "fedtwin.main", "client", "listen", "--home", listening.home.folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert again.returncode == 2
    assert "another process listens" in again.stderr


def killed_while_sending(listening: Listening, start: int, after_s: float) -> set[int]:
    """Send results on three lines until the process is killed; those that were acknowledged."""
    listening.start()
    acknowledged: set[int] = set()
    lines = [socket.create_connection(("127.0.0.1", listening.port), 20) for _ in range(3)]
    for n, line in enumerate(lines):
        numbers = range(start + n * 1000, start + n * 1000 + 400)
        line.sendall(b"".join(result(number, number % 7, 5.0) for number in numbers))
    time.sleep(after_s)
    listening.stop(signal.SIGKILL)
    for line in lines:
        for frame in answers(line, 400):
            if b"MSA|AA|" in frame:
                word = frame.partition(b"MSA|AA|m")[2].split(b"|")[0].split(b"\r")[0]
                acknowledged.add(int(word))
        line.close()
    return acknowledged


def check_held(listening: Listening, acknowledged: set[int]) -> None:
    assert (listening.home.records / FILE).exists()
    held = {int(number) for source in listening.values() for number in _NUMBER.findall(source)}
    for number in acknowledged:
        assert number in held, number


def test_what_was_acknowledged_survives_kills_and_compaction(listening: Listening) -> None:
    acknowledged: set[int] = set()
    for turn, after_s in enumerate((0.2, 0.6)):
        acknowledged |= killed_while_sending(listening, turn * 10_000, after_s)
        compact(listening.home.records, datetime.now(UTC))
    assert acknowledged
    check_held(listening, acknowledged)


def test_a_full_disk_is_said_and_what_is_sent_again_is_kept(listening: Listening) -> None:
    """A limit on the size of a file stands for the disk."""
    listening.start()
    assert listening.process is not None

    def limit(size: int) -> None:
        resource.prlimit(listening.process.pid, resource.RLIMIT_FSIZE, (size, -1))  # type: ignore[union-attr]

    with line_to(listening) as line:
        line.sendall(result(1, 4711, 7.8))
        assert b"MSA|AA|m1" in answers(line, 1)[0]
        limit(16_384)  # more than the log has, and less than the live records'
        line.sendall(result(2, 4711, 8.8) + result(3, 4712, 9.8))
        said = answers(line, 2)
        assert [b"MSA|AR|m2" in said[0], b"MSA|AR|m3" in said[1]] == [True, True], said
        assert list(listening.values().values()) == [7.8]
        limit(-1)
        line.sendall(result(2, 4711, 8.8) + result(3, 4712, 9.8))
        assert [b"|AA|" in one for one in answers(line, 2)] == [True, True]
    assert sorted(listening.values().values()) == [7.8, 8.8, 9.8]
    assert "could not store a message" in listening.log
    assert "Traceback" not in listening.log


@pytest.mark.slow
def test_none_is_lost_in_a_hundred_kills(listening: Listening) -> None:
    acknowledged: set[int] = set()
    for turn in range(100):
        acknowledged |= killed_while_sending(listening, turn * 10_000, 0.02 * (turn % 20))
        if turn % 10 == 9:
            compact(listening.home.records, datetime.now(UTC))
    assert len(acknowledged) > 1000
    check_held(listening, acknowledged)


@pytest.mark.parametrize(
    ("doors", "says"),
    [
        (None, "there is no"),
        ("doors: {}", "at least one named door"),
        ("doors: {lab: {kind: carrier-pigeon}}", "kind is one of mllp"),
        ("doors: {lab: {kind: mllp, prot: 3}}", "prot"),
        ("doors: {lab: {kind: mllp, port: many}}", "port"),
        ("doors: {lab: {kind: mllp, zone: Mars/Olympus}}", "Mars/Olympus"),
        ("doors: {lab: {kind: mllp, host: 0.0.0.0}}", "door 'lab'"),
        ("doors: [", "cannot be used"),
    ],
)
def test_wrong_doors_are_refused_by_name(tmp_path: Path, doors: str | None, says: str) -> None:
    from fedtwin_client.doors import read_doors
    from fedtwin_protocol.errors import ConfigurationError

    if doors is not None:
        (tmp_path / "doors.yaml").write_text(doors)
    with pytest.raises(ConfigurationError, match=says):
        read_doors(tmp_path, lambda: datetime.now(UTC))


def test_a_port_that_is_taken_ends_it_with_a_sentence(listening: Listening) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", listening.port))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "fedtwin.main", "client", "listen"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "FEDTWIN_CLIENT_HOME": str(listening.home.folder)},
        )
    assert done.returncode == 2
    assert "the door 'laboratory' cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr
