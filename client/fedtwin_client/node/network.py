"""The way out, hop by hop: which one is at fault, in words for the hospital's network people.

In this order, up to the first fault: this node's certificate and clock, the name that is dialled,
the proxy or the connection, TLS, whether the coordinator takes the certificate, and how far the two
clocks are apart.
"""

import asyncio
import re
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from fedtwin_client.node.home import NodeHome, NodeSettings
from fedtwin_protocol.channel import SERVER_TIME, grpc, method, open_channel
from fedtwin_protocol.credentials import Credentials, load_credentials
from fedtwin_protocol.errors import FedtwinError
from fedtwin_protocol.proxies import authorization, without_password
from fedtwin_protocol.v1 import exchange_pb2 as pb

PATIENCE_S: Final = 5.0
LARGEST_SKEW_S: Final = 60.0
# OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_NOT_YET, _EXPIRED = 9, 10
_OLD_TLS: Final = frozenset(
    {
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNSUPPORTED_PROTOCOL",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "NO_PROTOCOLS_AVAILABLE",
    }
)
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One hop that was checked."""

    name: str
    ok: bool
    text: str


def check_network(home: NodeHome, now: datetime) -> Iterator[Step]:
    """Check the way out; stops at the first fault.

    Args:
        home: the node's folder.
        now: the time on this machine's clock.

    Raises:
        ConfigurationError: there is no node here.
    """
    settings = home.settings()
    try:
        credentials = load_credentials(home.identity)
    except FedtwinError as error:
        yield Step(name="certificate", ok=False, text=str(error))
        return
    for step in _hops(settings, credentials, now):
        yield step
        if not step.ok:
            return


def _hops(settings: NodeSettings, credentials: Credentials, now: datetime) -> Iterator[Step]:
    yield _own_certificate(credentials, now)
    through = without_password(settings.proxy) if settings.proxy else settings.coordinator
    host, _, port = through.rpartition(":")
    yield _name(host.strip("[]"), settings.proxy is not None)
    try:
        plain = socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S)
    except OSError as error:
        yield _not_reached(through, port, settings.proxy is not None, error)
        return
    with plain:
        plain.settimeout(PATIENCE_S)
        if settings.proxy:
            yield _tunnel(plain, settings.coordinator, settings.proxy)
        else:
            yield Step(name="connection", ok=True, text=f"{through} answers")
        yield _tls(plain, settings.coordinator, credentials, now)
    yield from asyncio.run(_coordinator(settings, credentials, now))


def _own_certificate(credentials: Credentials, now: datetime) -> Step:
    identity, name = credentials.identity, "clock and certificate"
    span = f"{identity.not_before:%Y-%m-%d %H:%M} to {identity.not_after:%Y-%m-%d %H:%M} UTC"
    if identity.not_before <= now < identity.not_after:
        return Step(name=name, ok=True, text=f"valid {span}")
    mend = (
        "the clock of this machine is behind: start its time service (NTP)"
        if now < identity.not_before
        else "if that is the right time, the certificate has expired: ask the consortium for a new "
        "invitation; if not, the clock is ahead: start this machine's time service (NTP)"
    )
    text = f"it is {now:%Y-%m-%d %H:%M} UTC here, the certificate is valid {span}: {mend}"
    return Step(name=name, ok=False, text=text)


def _name(host: str, proxied: bool) -> Step:
    whose = "the proxy" if proxied else "the coordinator"
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        text = (
            f"'{host}', the name of {whose}, has no address here ({error.strerror or error}): ask "
            "whoever runs the DNS, or correct it in node.yaml"
        )
        return Step(name="name", ok=False, text=text)
    return Step(name="name", ok=True, text=f"{host} is {found[0][4][0]}")


def _not_reached(through: str, port: str, proxied: bool, error: OSError) -> Step:
    reason = error.strerror or str(error)
    if proxied:
        text = (
            f"the proxy {through} cannot be reached ({reason}): is it running, and is its address "
            "in node.yaml right?"
        )
        return Step(name="proxy", ok=False, text=text)
    text = (
        f"{through} cannot be reached ({reason}): the firewall must let this machine dial out to "
        f"it on TCP port {port}; or the coordinator is not running"
    )
    return Step(name="connection", ok=False, text=text)


def _tunnel(plain: socket.socket, target: str, proxy: str) -> Step:
    """Ask the proxy for a way to the coordinator."""
    credentials = authorization(proxy)
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    request += f"Proxy-Authorization: {credentials}\r\n\r\n" if credentials else "\r\n"
    answer = b""
    try:
        plain.sendall(request.encode())
        while b"\r\n\r\n" not in answer and len(answer) < 65536 and (part := plain.recv(4096)):
            answer += part
    except OSError as error:
        text = f"the proxy does not answer a CONNECT request ({error})"
        return Step(name="proxy", ok=False, text=text)
    first = answer.split(b"\r\n")[0].decode("latin-1")[:200]
    status = re.match(r"HTTP/1\.\d (\d{3})", first)
    code = status[1] if status else ""
    if code == "200":
        return Step(name="proxy", ok=True, text=f"connects to {target}")
    if code == "407":
        what = "does not take the name and password in" if credentials else "asks for a password:"
        text = f"the proxy {what} node.yaml: write proxy: http://NAME:PASSWORD@HOST:PORT there"
    elif code in {"502", "503", "504"}:
        text = (
            f"the proxy cannot reach {target}: '{first}'; ask its operator whether it finds that "
            "name and may dial that port, and the consortium whether the coordinator runs"
        )
    elif code:
        text = f"the proxy refuses to connect to {target}: '{first}'; it must be allowed there"
    else:
        text = f"what answers at {without_password(proxy)} is no HTTP proxy: '{first}'"
    return Step(name="proxy", ok=False, text=text)


def _tls(plain: socket.socket, target: str, credentials: Credentials, now: datetime) -> Step:
    host = target.rpartition(":")[0].strip("[]")
    try:
        secure = _context(credentials).wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return _not_believed(target, error, now)
    except OSError as error:
        reason = getattr(error, "reason", None) or str(error)
        return _tls_fault(target, reason)
    with secure:
        return _greeting(secure)


def _greeting(secure: ssl.SSLSocket) -> Step:
    """What comes after the handshake: in TLS 1.3 our certificate is judged only then."""
    try:
        if secure.recv(1):
            return Step(name="TLS", ok=True, text="TLS 1.3 with the consortium's coordinator")
    except TimeoutError:
        return _filtered("nothing came after the handshake")
    except OSError as error:
        return _not_taken(getattr(error, "reason", None) or str(error))
    return _not_taken("it closed the connection")


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=credentials.roots_pem.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(credentials.key_pem + credentials.chain_pem)
        context.load_cert_chain(pair)
    return context


def _not_believed(target: str, error: ssl.SSLCertVerificationError, now: datetime) -> Step:
    if error.verify_code in {_NOT_YET, _EXPIRED}:
        side = "behind" if error.verify_code == _NOT_YET else "ahead"
        text = (
            f"it is {now:%Y-%m-%d %H:%M} UTC here, and the coordinator's certificate is not valid "
            f"at that time: if it is wrong, the clock is {side}: start this machine's time service "
            "(NTP); if it is right, tell the consortium"
        )
        return Step(name="clock", ok=False, text=text)
    text = (
        f"whoever answers as {target} shows a certificate that the consortium did not issue "
        f"for that name ({error.verify_message}): a firewall opens TLS connections (TLS "
        "interception), and must leave this one alone; or the name is another machine's"
    )
    return Step(name="TLS interception", ok=False, text=text)


def _tls_fault(target: str, reason: str) -> Step:
    if reason in _OLD_TLS:
        text = (
            f"whoever answers as {target} does not speak TLS 1.3 ({reason}): a firewall or proxy "
            "in between replaces the connection by an older one, and must leave it alone"
        )
        return Step(name="TLS version", ok=False, text=text)
    if reason in _NO_TLS:
        text = f"whoever answers as {target} does not speak TLS ({reason}): is the port right?"
        return Step(name="TLS", ok=False, text=text)
    return _filtered(reason)


def _filtered(reason: str) -> Step:
    text = (
        f"the connection ends while TLS is set up ({reason}): something on the way filters TLS "
        "1.3, or ends connections that it cannot read"
    )
    return Step(name="TLS", ok=False, text=text)


def _not_taken(reason: str) -> Step:
    text = (
        f"the coordinator does not take this node's certificate ({reason}): ask the consortium, "
        "whose log says why, for a new invitation"
    )
    return Step(name="certificate", ok=False, text=text)


async def _coordinator(
    settings: NodeSettings, credentials: Credentials, now: datetime
) -> tuple[Step, ...]:
    """Make one call that changes nothing, and compare the clocks."""
    request = pb.ListReleasesRequest().SerializeToString()
    async with open_channel(settings.coordinator, credentials, settings.proxy) as channel:
        call = channel.unary_unary(method("ListReleases"))(request, timeout=PATIENCE_S)
        try:
            await call
            told = dict(await call.initial_metadata()).get(SERVER_TIME)
        except grpc.aio.AioRpcError as error:
            return (_refusal(error),)
    accepted = Step(name="certificate", ok=True, text="the coordinator takes it")
    return (accepted, _skew(told, now))


def _refusal(error: grpc.aio.AioRpcError) -> Step:
    details = error.details() or error.code().name
    if error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
        text = (
            f"the coordinator refuses this node: {details}: ask the consortium for a new invitation"
        )
        return Step(name="certificate", ok=False, text=text)
    text = f"TLS is set up, but the coordinator does not answer a call ({details})"
    return Step(name="coordinator", ok=False, text=text)


def _skew(told: object, now: datetime) -> Step:
    if not isinstance(told, str) or not told.isdigit():
        return Step(name="clock", ok=True, text="the coordinator does not tell its time")
    ahead = now.timestamp() - int(told) / 1000
    if abs(ahead) <= LARGEST_SKEW_S:
        text = f"within {LARGEST_SKEW_S:.0f} s of the coordinator's"
        return Step(name="clock", ok=True, text=text)
    side = "ahead of" if ahead > 0 else "behind"
    text = (
        f"this machine's clock is {_span(abs(ahead))} {side} the coordinator's: start its time "
        "service (NTP); certificates and the ledger depend on it"
    )
    return Step(name="clock", ok=False, text=text)


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
