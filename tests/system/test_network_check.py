"""`fedtwin client check --network` names the faulty hop: one fault at a time, for real."""

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedtwin.demo.consortium import LocalConsortium, free_port
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.network import Step, check_network
from fedtwin_protocol.credentials import (
    Credentials,
    load_credentials,
    new_key_and_request,
    save_credentials,
)
from fedtwin_server.authority import Authority

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalConsortium]:
    with LocalConsortium(folder=tmp_path_factory.mktemp("network")) as made:
        made.open()
        made.enrol("oslo")
        made.enrol("bergen")
        yield made


@pytest.fixture
def node(coordinator: LocalConsortium, tmp_path: Path) -> Callable[..., NodeHome]:
    """A copy of a node with other settings."""

    def change(site: str = "oslo", **settings: str) -> NodeHome:
        folder = tmp_path / "node"
        shutil.copytree(coordinator.site(site), folder)
        home = NodeHome(folder=folder)
        value = yaml.safe_load(home.settings_file.read_text()) | settings
        home.settings_file.write_text(yaml.safe_dump(value))
        return home

    return change


def fault(home: NodeHome, now: datetime | None = None) -> Step:
    """The one fault; everything before it is in order."""
    steps = list(check_network(home, now or datetime.now(UTC)))
    assert [step.ok for step in steps] == [True] * (len(steps) - 1) + [False], steps
    return steps[-1]


def command(home: NodeHome) -> tuple[int, str]:
    words = ["client", "check", "--network", "--home", str(home.folder)]
    done = subprocess.run(
        [sys.executable, "-m", "fedtwin.main", *words], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def listen(meet: Callable[[socket.socket], None]) -> int:
    """A server that meets every connection in a thread; returns its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            try:
                meet(connection)
            except OSError:
                pass
            finally:
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def listen_tls(folder: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> int:
    """A server with a certificate for localhost that another CA has issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pair = folder / "other.pem"
    pair.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(pair)
    return listen(lambda connection: context.wrap_socket(connection, server_side=True).close())


def test_all_is_well(node: Callable[..., NodeHome]) -> None:
    code, output = command(node())
    lines = output.splitlines()
    assert code == 0
    assert [line.split(":")[0] for line in lines] == [
        "ok   clock and certificate",
        "ok   name",
        "ok   connection",
        "ok   TLS",
        "ok   certificate",
        "ok   clock",
    ]


def test_a_fault_is_told_by_the_exit_code_too(node: Callable[..., NodeHome]) -> None:
    code, output = command(node(coordinator=f"localhost:{free_port()}"))
    assert code == 1
    assert output.splitlines()[-1].startswith("FAIL connection: localhost:")


def test_a_name_that_nobody_knows(node: Callable[..., NodeHome]) -> None:
    step = fault(node(coordinator="coordinator.invalid:8443"))
    assert (step.name, "the name of the coordinator" in step.text) == ("name", True)
    assert "DNS" in step.text


def test_a_port_that_is_closed(node: Callable[..., NodeHome]) -> None:
    port = free_port()
    step = fault(node(coordinator=f"localhost:{port}"))
    assert (step.name, f"dial out to it on TCP port {port}" in step.text) == ("connection", True)


def test_tls_interception(node: Callable[..., NodeHome], tmp_path: Path) -> None:
    step = fault(node(coordinator=f"localhost:{listen_tls(tmp_path)}"))
    assert step.name == "TLS interception"
    assert "the consortium did not issue" in step.text


def test_a_middlebox_that_speaks_only_tls_1_2(
    node: Callable[..., NodeHome], tmp_path: Path
) -> None:
    step = fault(node(coordinator=f"localhost:{listen_tls(tmp_path, ssl.TLSVersion.TLSv1_2)}"))
    assert step.name == "TLS version"
    assert "does not speak TLS 1.3" in step.text


def test_a_port_where_something_else_listens(node: Callable[..., NodeHome]) -> None:
    port = listen(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    step = fault(node(coordinator=f"localhost:{port}"))
    assert (step.name, "does not speak TLS" in step.text) == ("TLS", True)


def test_something_that_ends_the_connection(node: Callable[..., NodeHome]) -> None:
    port = listen(lambda connection: connection.recv(4096) and None)
    step = fault(node(coordinator=f"localhost:{port}"))
    assert (step.name, "filters TLS 1.3" in step.text) == ("TLS", True)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("403 Forbidden", "refuses to connect"),
        ("407 Proxy Authentication Required", "asks for a password"),
        ("502 Bad Gateway", "whether the coordinator runs"),
    ],
)
def test_a_proxy_that_does_not_connect(
    answer: str, sentence: str, node: Callable[..., NodeHome], connect_proxy: type
) -> None:
    step = fault(node(proxy=connect_proxy({}, answer=answer).url))
    assert (step.name, sentence in step.text) == ("proxy", True), step.text


def test_a_proxy_that_does_not_know_the_password(
    node: Callable[..., NodeHome], connect_proxy: type
) -> None:
    proxy = connect_proxy({}, user="nina:right")
    step = fault(node(proxy=proxy.url.replace("//", "//nina:wrong@")))
    assert "does not take the name and password" in step.text
    assert "wrong" not in step.text


def test_a_proxy_that_is_down_or_none(node: Callable[..., NodeHome]) -> None:
    home = node(proxy=f"http://127.0.0.1:{free_port()}")
    step = fault(home)
    assert (step.name, "is it running" in step.text) == ("proxy", True)
    port = listen(lambda connection: connection.sendall(b"220 mail.example.org ESMTP\r\n\r\n"))
    value = yaml.safe_load(home.settings_file.read_text()) | {"proxy": f"http://127.0.0.1:{port}"}
    home.settings_file.write_text(yaml.safe_dump(value))
    assert "is no HTTP proxy" in fault(home).text


def test_tls_interception_behind_a_proxy(
    node: Callable[..., NodeHome],
    coordinator: LocalConsortium,
    connect_proxy: type,
    tmp_path: Path,
) -> None:
    target = f"localhost:{coordinator.port}"
    proxy = connect_proxy({target: f"127.0.0.1:{listen_tls(tmp_path)}"})
    assert fault(node(proxy=proxy.url)).name == "TLS interception"


@pytest.mark.parametrize(
    ("off_by", "name", "sentence"),
    [
        (timedelta(minutes=3), "clock", "3 minutes ahead of the coordinator's"),
        (HOUR, "clock", "60 minutes ahead of the coordinator's"),
        (-HOUR, "clock and certificate", "the clock of this machine is behind"),
        (timedelta(days=3), "clock and certificate", "the clock is ahead"),
        (timedelta(days=-400), "clock and certificate", "the clock of this machine is behind"),
    ],
)
def test_a_clock_that_is_wrong(
    off_by: timedelta, name: str, sentence: str, node: Callable[..., NodeHome]
) -> None:
    step = fault(node(), datetime.now(UTC) + off_by)
    assert (step.name, sentence in step.text) == (name, True), step.text


def test_a_clock_a_little_behind(node: Callable[..., NodeHome], tmp_path: Path) -> None:
    """Within the certificate's life, only the coordinator can tell."""
    home = node()
    begins = load_credentials(home.identity).identity.not_before
    back = datetime.now(UTC) - begins - timedelta(seconds=1)
    step = fault(home, datetime.now(UTC) - back)
    assert (step.name, "behind the coordinator's" in step.text) == ("clock", True), step.text


def test_a_revoked_certificate(node: Callable[..., NodeHome], coordinator: LocalConsortium) -> None:
    coordinator.run("server", "revoke", "bergen", "--home", str(coordinator.server))
    step = fault(node("bergen"))
    assert (step.name, "revoked" in step.text) == ("certificate", True), step.text
    assert "new invitation" in step.text


def test_a_certificate_that_has_expired(
    node: Callable[..., NodeHome], coordinator: LocalConsortium
) -> None:
    """By our clock, and, where that one is behind, by the coordinator's refusal."""
    home = node()
    key, request = new_key_and_request()
    authority, began = Authority.load(coordinator.server), datetime.now(UTC)
    leaf = authority.issue_leaf(request, "site", "oslo", began, timedelta(seconds=2))
    credentials = Credentials(key_pem=key, chain_pem=leaf.chain_pem, roots_pem=authority.roots_pem)
    save_credentials(home.identity, credentials)
    time.sleep(3)
    assert "the certificate has expired" in fault(home).text
    step = fault(home, began)
    assert step.name == "certificate"
    assert "does not take this node's certificate" in step.text


def test_there_is_no_certificate(node: Callable[..., NodeHome]) -> None:
    home = node()
    shutil.rmtree(home.identity)
    assert "enrol with an invitation" in fault(home).text
