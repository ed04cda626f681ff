"""A relay on loopback that counts the bytes of TCP connections, both ways, TLS included."""

import socket
import threading
from collections.abc import Callable

PIECE = 1024 * 1024


class Relay:
    """Passes connections on to a port of this machine.

    Args:
        port: where connections are passed on to; asked for at each connection.
    """

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._counts: list[int] = []
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bytes(self) -> int:
        """Bytes passed on so far."""
        return sum(self._counts)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port()))
            except OSError:
                return
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        place = len(self._counts)
        self._counts.append(0)
        buffer = bytearray(PIECE)
        view = memoryview(buffer)
        try:
            while size := source.recv_into(buffer):
                sink.sendall(view[:size])
                self._counts[place] += size
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            sink.close()
