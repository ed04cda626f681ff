"""Addresses of a FHIR server: which are allowed, and which are the server's own.

A token goes to the server's own origin (scheme, host and port, RFC 6454) and to nobody else.
"""

import ipaddress
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from fedtwin_protocol.errors import RecordError

_PORTS = {"https": 443, "http": 80}


class Origin(NamedTuple):
    """Scheme, host and port of an address."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def origin_of(url: str) -> Origin:
    """Whose address it is.

    Raises:
        RecordError: it is no absolute address of http or https, or has a user's name in it.
    """
    parts = _split(url)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise RecordError(f"expected a port of 1 to 65535 in the address {shown(url)}") from error
    return Origin(parts.scheme, (parts.hostname or "").lower(), port)


def check_server_url(url: str) -> str:
    """The base address of a FHIR server, without a slash at its end.

    Raises:
        RecordError: it is no such address; or it is not encrypted and leads to another machine.
    """
    parts = _split(url)
    if parts.query or parts.fragment:
        raise RecordError(f"expected the server's base address without '?' or '#', found '{url}'")
    refuse_plain(url)
    return url.rstrip("/")


def refuse_plain(url: str) -> None:
    """Refuse an address that is not encrypted, unless it is this machine's own.

    Raises:
        RecordError: it is.
    """
    origin = origin_of(url)
    if origin.scheme != "https" and not is_loopback(origin.host):
        raise RecordError(
            f"{origin} is not encrypted: patients' records and the token would be readable on the "
            "way. Use the server's https address"
        )


def refuse_inward(url: str, base: str) -> None:
    """Refuse an address that a server names on this machine, unless the server is here itself.

    Raises:
        RecordError: it is.
    """
    refuse_plain(url)
    if is_loopback(origin_of(url).host) and not is_loopback(origin_of(base).host):
        raise RecordError(
            f"the server {origin_of(base)} names an address of this machine ({origin_of(url)}); "
            "it is not asked"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def resolved(url: str, against: str) -> str:
    """An address that may be relative to another one."""
    return urljoin(against, url)


def shown(url: str) -> str:
    """An address as messages may show it: no query, which may hold a signature or a number."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise RecordError(f"expected an address such as https://host/fhir: {error}") from error
    if parts.scheme not in _PORTS or not host:
        raise RecordError(f"expected an address such as https://host/fhir, found '{url[:100]}'")
    if parts.username is not None or parts.password is not None:
        raise RecordError(
            f"expected an address without a user's name or password, found one in {shown(url)}"
        )
    return parts
