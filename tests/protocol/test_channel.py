"""The TLS channel: its settings, and the servers that a party does not talk to."""

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin_protocol.channel import (
    CLIENT_OPTIONS,
    HEARTBEAT_S,
    LEASE_S,
    SERVER_OPTIONS,
    SERVICE,
    grpc,
)
from fedtwin_protocol.credentials import Credentials, save_credentials
from fedtwin_protocol.refusals import explained
from fedtwin_server.authority import Authority, create_authority

MIB = 1024 * 1024


def test_settings_of_the_server() -> None:
    assert dict(SERVER_OPTIONS) == {
        "grpc.max_receive_message_length": 4 * MIB,
        "grpc.max_send_message_length": 4 * MIB,
        "grpc.max_metadata_size": 8192,
        "grpc.max_concurrent_streams": 16,
        "grpc.server_handshake_timeout_ms": 10_000,
        "grpc.keepalive_time_ms": 20_000,
        "grpc.http2.ping_timeout_ms": 10_000,
        "grpc.http2.min_recv_ping_interval_without_data_ms": 5_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.max_connection_idle_ms": 300_000,
        # Ours: pings go on without data; two coordinators never share a port.
        "grpc.http2.max_pings_without_data": 0,
        "grpc.so_reuseport": 0,
    }


def test_settings_of_the_client() -> None:
    assert dict(CLIENT_OPTIONS) == {
        "grpc.max_receive_message_length": 4 * MIB,
        "grpc.max_send_message_length": 4 * MIB,
        "grpc.max_metadata_size": 8192,
        "grpc.keepalive_time_ms": 20_000,
        "grpc.http2.ping_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 5_000,
        # Ours: a slow line may take 10 s to connect, and each channel has connections of its own.
        "grpc.http2.max_pings_without_data": 0,
        "grpc.min_reconnect_backoff_ms": 10_000,
        "grpc.use_local_subchannel_pool": 1,
    }


def test_heartbeat_and_lease() -> None:
    assert (HEARTBEAT_S, LEASE_S) == (10, 30)


def right_now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("coordinator"))


def make_authority(folder: Path) -> Authority:
    return create_authority(
        folder,
        consortium="north",
        addresses=["localhost"],
        now=right_now(),
        root_folder=folder / "offline",
    )


@pytest.fixture
def site(authority: Authority, issue: Callable) -> Credentials:
    return issue(authority.home, "site", "alpha")


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats each connection in one way; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        answer(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"localhost:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def with_tls(
    folder: Path, credentials: Credentials, highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Callable[[socket.socket], None]:
    """Shake hands with a certificate, whoever calls."""
    save_credentials(folder, credentials)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = highest
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(folder / "credentials.pem")

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1000)

    return answer


def in_plain_text(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


HOUR = timedelta(hours=1)
SERVERS: dict[str, tuple[Callable, str]] = {
    "TLS 1.2 only": (
        lambda ca, folder, _: with_tls(
            folder, ca.issue_coordinator(["localhost"], right_now()), ssl.TLSVersion.TLSv1_2
        ),
        "offers no TLS 1.3",
    ),
    "no TLS": (lambda *_: in_plain_text, "does not speak TLS"),
    "a site in the coordinator's place": (
        lambda ca, folder, issue: with_tls(folder, issue(ca.home, "site", "mallory")),
        "shows a certificate that is no coordinator's",
    ),
    "another host's": (
        lambda ca, folder, _: with_tls(
            folder, ca.issue_coordinator(["fed.example.org"], right_now())
        ),
        "its certificate is not for that name",
    ),
    "not valid yet": (
        lambda ca, folder, _: with_tls(
            folder, ca.issue_coordinator(["localhost"], right_now() + HOUR)
        ),
        "not valid yet by the clock of this computer: compare the clock with the coordinator's",
    ),
    "of another CA": (
        lambda _, folder, __: with_tls(
            folder, make_authority(folder / "other").issue_coordinator(["localhost"], right_now())
        ),
        "shows a certificate that this consortium did not issue",
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_is_not_the_coordinator_is_left_alone(
    authority: Authority,
    site: Credentials,
    issue: Callable,
    ask: Callable,
    tmp_path: Path,
    name: str,
) -> None:
    make, reason = SERVERS[name]
    with answering(make(authority, tmp_path, issue)) as address:
        code, sentence = ask(address, site)
    assert code == grpc.StatusCode.UNAVAILABLE
    assert sentence.startswith(f"the coordinator at {address} was not reached: it")
    assert reason in sentence
    assert "OPENSSL" not in sentence


def test_an_expired_server(
    authority: Authority, site: Credentials, ask: Callable, tmp_path: Path
) -> None:
    leaf = authority.issue_coordinator(["localhost"], right_now(), timedelta(seconds=1))
    time.sleep(1.1)
    with answering(with_tls(tmp_path, leaf)) as address:
        _, sentence = ask(address, site)
    assert "its certificate has expired by the clock of this computer" in sentence


def test_nobody_there(site: Credentials, ask: Callable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    _, sentence = ask(f"localhost:{port}", site)
    assert sentence == (
        f"the coordinator at localhost:{port} was not reached: nobody listens there at the moment"
    )


def test_a_slow_line_is_waited_for(authority: Authority, site: Credentials, ask: Callable) -> None:
    """Half a second for the first answer, as over a satellite or through a busy proxy."""
    leaf = authority.issue_coordinator(["localhost"], right_now())
    tls = grpc.ssl_server_credentials([(leaf.key_pem, leaf.chain_pem)], leaf.roots_pem, True)
    server = grpc.server(ThreadPoolExecutor(1), options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((handler(),))
    port = server.add_secure_port("127.0.0.1:0", tls)
    server.start()

    def after_a_while(near: socket.socket) -> None:
        time.sleep(0.5)
        with socket.create_connection(("127.0.0.1", port), 5) as far:
            threads = [
                threading.Thread(target=forward, args=ends) for ends in ((near, far), (far, near))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    try:
        with answering(after_a_while) as address:
            assert ask(address, site) == (grpc.StatusCode.OK, b"here")
    finally:
        server.stop(0).wait()


def handler() -> grpc.GenericRpcHandler:
    """One call that answers."""
    answer = grpc.unary_unary_rpc_method_handler(lambda *_: b"here")
    return grpc.method_handlers_generic_handler(SERVICE, {"ListReleases": answer})


def forward(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_words_of_the_core_that_nobody_foresaw_are_passed_on() -> None:
    none = grpc.aio.Metadata()
    words = "failed to connect to all addresses; last error: UNKNOWN: a new kind of trouble"
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, words)
    assert str(explained(error, "h:1")).endswith("not reached: UNKNOWN: a new kind of trouble")


TLS_VERSION_PROBE = """
import ssl, socket, threading
{before}
from fedtwin_protocol.channel import SERVER_OPTIONS, grpc
from fedtwin_protocol.credentials import load_credentials
import asyncio, sys
from pathlib import Path
server = load_credentials(Path(sys.argv[1]))

async def main():
    made = grpc.aio.server(options=SERVER_OPTIONS)
    tls = grpc.ssl_server_credentials([(server.key_pem, server.chain_pem)])
    port = made.add_secure_port("127.0.0.1:0", tls)
    await made.start()
    def dial(version):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as plain:
                with context.wrap_socket(plain) as secure:
                    return secure.version()
        except (ssl.SSLError, ConnectionError):
            return "refused"
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        print(await asyncio.to_thread(dial, version))
    await made.stop(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("before", ["", "import grpc, grpc.aio"])
def test_tls_1_3_only_whoever_imports_grpc_first(authority: Authority, before: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            TLS_VERSION_PROBE.format(before=before),
            str(authority.home / "coordinator"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["refused", "TLSv1.3"]
