"""The way out, hop by hop: which one is at fault, in words for the hospital's network people."""

import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fedtwin_client.node.home import NodeHome
from fedtwin_protocol.credentials import Credentials, load_credentials
from fedtwin_protocol.errors import FedtwinError

PATIENCE_S: Final = 5.0
EARLIEST: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One hop that was checked."""

    name: str
    ok: bool
    text: str


def check_network(home: NodeHome, now: datetime) -> Iterator[Step]:
    """Check name, proxy or connection, TLS, clock and certificate; stops at the first fault.

    Raises:
        ConfigurationError: there is no node here.
    """
    settings = home.settings()
    try:
        credentials = load_credentials(home.identity)
    except FedtwinError as error:
        yield Step(name="certificate", ok=False, text=str(error))
        return
    yield (clock := _clock(credentials, now))
    if not clock.ok:
        return
    through = urlsplit(settings.proxy).netloc if settings.proxy else settings.coordinator
    host, _, port = through.rpartition(":")
    yield (name := _name(host))
    if not name.ok:
        return
    try:
        plain = socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S)
    except OSError as error:
        what = "proxy" if settings.proxy else "connection"
        text = (
            f"{through} cannot be reached ({error.strerror or error}): the firewall must let this "
            f"machine dial out to it on TCP port {port}"
        )
        yield Step(name=what, ok=False, text=text)
        return
    with plain:
        if settings.proxy:
            yield (tunnel := _tunnel(plain, settings.coordinator))
            if not tunnel.ok:
                return
        else:
            yield Step(name="connection", ok=True, text=f"{through} answers")
        yield from _tls(plain, settings.coordinator, credentials)


def _clock(credentials: Credentials, now: datetime) -> Step:
    identity = credentials.identity
    span = f"{identity.not_before:%Y-%m-%d %H:%M} to {identity.not_after:%Y-%m-%d %H:%M} UTC"
    if identity.not_before <= now < identity.not_after:
        return Step(name="clock and certificate", ok=True, text=f"valid {span}")
    behind = now < identity.not_before
    mend = (
        "the clock of this machine is behind: start its time service (NTP)"
        if behind
        else "ask the consortium for a new invitation, or mend the clock if it is ahead"
    )
    text = f"it is {now:%Y-%m-%d %H:%M} UTC here, the certificate is valid {span}: {mend}"
    return Step(name="clock and certificate", ok=False, text=text)


def _name(host: str) -> Step:
    try:
        found = socket.getaddrinfo(host.strip("[]"), None)
    except OSError as error:
        text = f"'{host}' has no address here ({error.strerror or error}): ask whoever runs the DNS"
        return Step(name="name", ok=False, text=text)
    return Step(name="name", ok=True, text=f"{host} is {found[0][4][0]}")


def _tunnel(plain: socket.socket, target: str) -> Step:
    plain.settimeout(PATIENCE_S)
    try:
        plain.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer and len(answer) < 65536 and (part := plain.recv(4096)):
            answer += part
    except OSError as error:
        text = f"the proxy does not answer a CONNECT request ({error})"
        return Step(name="proxy", ok=False, text=text)
    first = answer.split(b"\r\n")[0].decode("latin-1")
    if " 200" not in first:
        text = f"the proxy refuses to connect to {target}: '{first}'; it must be allowed there"
        return Step(name="proxy", ok=False, text=text)
    return Step(name="proxy", ok=True, text=f"connects to {target}")


def _tls(plain: socket.socket, target: str, credentials: Credentials) -> Iterator[Step]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=credentials.roots_pem.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(credentials.key_pem + credentials.chain_pem)
        context.load_cert_chain(pair)
    host = target.rpartition(":")[0].strip("[]")
    try:
        plain.settimeout(PATIENCE_S)
        with context.wrap_socket(plain, server_hostname=host) as secure:
            secure.settimeout(PATIENCE_S)
            secure.recv(1)
    except ssl.SSLCertVerificationError as error:
        text = (
            f"whoever answers as {target} shows a certificate that the consortium did not issue "
            f"for that name ({error.verify_message}): a firewall opens TLS connections (TLS "
            "interception), and must leave this one alone; or the name is another machine's"
        )
        yield Step(name="TLS interception", ok=False, text=text)
        return
    except ssl.SSLError as error:
        text = (
            f"the coordinator refuses this node's certificate, or TLS is filtered ({error.reason})"
        )
        yield Step(name="certificate", ok=False, text=text)
        return
    except OSError as error:
        text = f"the connection ends while TLS is set up ({error}): something filters TLS 1.3"
        yield Step(name="TLS", ok=False, text=text)
        return
    yield Step(name="TLS", ok=True, text="TLS 1.3 with the consortium's coordinator")
