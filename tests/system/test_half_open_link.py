"""A link whose packets vanish: nobody closes it, and both ends notice within half a minute."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedtwin.demo.consortium import LocalConsortium

# 20 s until a ping, 10 s for its answer (or a lease of 30 s), and something for a busy machine.
NOTICED_S = 20 + 10 + 5


class Hole:
    """A TCP relay that forwards until it is told to swallow everything; then it closes nothing."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._all = [self._listening]
        self._other: dict[socket.socket, socket.socket] = {}
        self._ended = threading.Event()
        self.swallows = threading.Event()
        self._thread = threading.Thread(target=self._relay)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def close(self) -> None:
        self._ended.set()
        self._thread.join(10)
        for each in self._all:
            each.close()

    def _relay(self) -> None:
        while not self._ended.is_set():
            ready, _, _ = select.select([self._listening, *self._other], [], [], 0.1)
            for source in ready:
                if source is self._listening:
                    self._pair(source.accept()[0])
                elif source in self._other:
                    self._move(source)

    def _pair(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._target), 5)
        self._all += [near, far]
        self._other |= {near: far, far: near}

    def _move(self, source: socket.socket) -> None:
        target = self._other[source]
        try:
            data = source.recv(65536)
            if data and not self.swallows.is_set():
                target.sendall(data)
        except OSError:
            data = b""
        if not data:
            del self._other[source]
            if not self.swallows.is_set():
                self._other.pop(target, None)
                source.close()
                target.close()


@pytest.fixture
def hole(consortium: LocalConsortium) -> Iterator[Hole]:
    consortium.open()
    made = Hole(consortium.port)
    yield made
    made.close()


def log_of(folder: Path, name: str) -> str:
    return (folder / f"{name}.log").read_text()


@pytest.mark.slow
def test_both_ends_notice(consortium: LocalConsortium, hole: Hole, wait_until: Callable) -> None:
    consortium.enrol("alpha")
    settings = consortium.site("alpha") / "node.yaml"
    settings.write_text(
        settings.read_text().replace(f"localhost:{consortium.port}", f"localhost:{hole.port}")
    )
    node = consortium.start_site("alpha")
    folder = consortium.folder
    wait_until(lambda: "link to the coordinator is up" in log_of(folder, "alpha"), 20)
    before = {name: len(log_of(folder, name)) for name in ("alpha", "coordinator")}
    hole.swallows.set()
    began = time.monotonic()
    noticed: dict[str, float] = {}
    sentences = {"alpha": "no link: ", "coordinator": "the link of spiffe://demo/site/alpha"}
    while len(noticed) < 2 and time.monotonic() - began < NOTICED_S:
        for name, sentence in sentences.items():
            if name not in noticed and sentence in log_of(folder, name)[before[name] :]:
                noticed[name] = time.monotonic() - began
        time.sleep(0.1)
    told = {name: log_of(folder, name)[before[name] :] for name in sentences}
    assert set(noticed) == set(sentences), f"noticed after {noticed}; said {told}"
    assert node.poll() is None

    hole.swallows.clear()
    ups = log_of(folder, "coordinator").count("the link of site alpha is up")
    wait_until(
        lambda: log_of(folder, "coordinator").count("the link of site alpha is up") > ups, 60
    )
