"""The address of an HTTP CONNECT proxy on the way to the coordinator."""

import re
from base64 import b64encode
from typing import Final
from urllib.parse import unquote, urlsplit

from fedtwin_protocol.errors import ConfigurationError

_PROXY: Final = re.compile(
    r"http://(?:[^\s@/]+@)?(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})/?"
)


def check_proxy(proxy: str) -> None:
    """Refuse an address that grpc would not use, because it would then dial without a proxy.

    Raises:
        ConfigurationError: it is not `http://host:port`, with `name:password@` before the host
            where the proxy asks for them.
    """
    match = _PROXY.fullmatch(proxy)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        shown = re.sub(r"//.*@", "//…@", proxy)
        raise ConfigurationError(
            f"expected a proxy such as http://proxy.example.org:3128, got '{shown}'; what goes "
            "through it is encrypted, so the proxy itself is spoken to over plain HTTP"
        )


def without_password(proxy: str) -> str:
    """`host:port` of a proxy."""
    return urlsplit(proxy).netloc.rpartition("@")[2]


def authorization(proxy: str) -> str | None:
    """The value of the header Proxy-Authorization, if the address names a user."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return None
    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + b64encode(words.encode()).decode("ascii")
