"""What tests of the way out share: a small HTTP CONNECT proxy, and a line that is listened to."""

import asyncio
import base64
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import pytest


class ConnectProxy:
    """An HTTP CONNECT proxy in a thread of its own.

    Args:
        ways: where a CONNECT to `host:port` really goes, `host:port`; every other is refused.
        answer: a status line to give everybody, instead of doing its work.
        user: `name:password` to ask for.
    """

    def __init__(
        self, ways: Mapping[str, str], answer: str | None = None, user: str | None = None
    ) -> None:
        self.ways = dict(ways)
        self.asked: list[str] = []
        self.port = 0
        self._answer = answer
        self._user = user
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait(20)

    @property
    def url(self) -> str:
        """As it is written in node.yaml."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop, and cut every connection."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def cut(self) -> None:
        """Cut every connection that is open."""
        for writer in tuple(self._open):
            self._loop.call_soon_threadsafe(writer.transport.abort)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._meet, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.1))
        self._loop.close()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            target = head.split()[1]
            self.asked.append(target)
            refusal = self._refusal(head, target)
            if refusal:
                writer.write(f"HTTP/1.1 {refusal}\r\n\r\n".encode())
                await writer.drain()
                return
            host, _, port = self.ways[target].rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            try:
                await asyncio.gather(pour(reader, far_writer), pour(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def _refusal(self, head: str, target: str) -> str:
        if self._answer is not None:
            return self._answer
        if self._user is not None:
            word = base64.b64encode(self._user.encode()).decode()
            if f"Proxy-Authorization: Basic {word}".lower() not in head.lower():
                return "407 Proxy Authentication Required"
        return "" if target in self.ways else "403 Forbidden"


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until they end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.fixture(scope="module")
def connect_proxy() -> Iterator[type[ConnectProxy]]:
    """The class; every proxy that a module made is stopped at its end."""
    made: list[ConnectProxy] = []

    class Kept(ConnectProxy):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)
            made.append(self)

    yield Kept
    for proxy in made:
        proxy.close()


class Line:
    """A TCP relay in a thread that keeps all it carries, as somebody on the line would.

    Args:
        target: port of this machine where its connections go.
    """

    def __init__(self, target: int) -> None:
        self.forth = b""
        self.back = b""
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(20)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target), 5)
                self._start(self._carry, near, far, True)
                self._start(self._carry, far, near, False)

    def _carry(self, source: socket.socket, target: socket.socket, forth: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if forth:
                    self.forth += data
                else:
                    self.back += data
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        source.close()


@pytest.fixture(scope="session")
def recorded() -> type[Line]:
    """The class; a test opens as many lines as it needs."""
    return Line


def run_demo(*words: str, patience_s: float) -> subprocess.CompletedProcess[str]:
    """`fedtwin demo` to its end; if that takes too long, it is asked to end with what it started.

    Killed, as `subprocess.run` would, it would leave its hospitals running.
    """
    demo = subprocess.Popen(
        [sys.executable, "-m", "fedtwin.main", "demo", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        shown, said = demo.communicate(timeout=patience_s)
    except BaseException:
        demo.terminate()
        demo.communicate(timeout=60)
        raise
    return subprocess.CompletedProcess(demo.args, demo.returncode, shown, said)


@pytest.fixture(name="run_demo", scope="session")
def run_demo_fixture() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The function `run_demo`, for tests of other files."""
    return run_demo
