"""The TLS channel: TLS 1.3 only, both ends authenticated, dead links noticed.

grpcio accepts TLS 1.2 and has no setting against it. A TLS 1.2 cipher suite list that our EC keys
cannot serve leaves TLS 1.3 as the only version that can be agreed on; it must be set before the
library first makes credentials, so this module is imported before any other use of grpc.

The way out is the configured one: proxies that the environment names are not used, and neither are
its exceptions to the configured proxy.
"""

import os
from typing import Final

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"
os.environ["no_grpc_proxy"] = ""  # noqa: SIM112 - the name that grpc reads

import grpc
import grpc.aio

from fedtwin_protocol.credentials import Credentials
from fedtwin_protocol.proxies import check_proxy

__all__ = [
    "CLIENT_OPTIONS",
    "HEARTBEAT_S",
    "LEASE_S",
    "MESSAGE_LIMIT",
    "SERVER_OPTIONS",
    "SERVER_TIME",
    "SERVICE",
    "grpc",
    "method",
    "open_blocking_channel",
    "open_channel",
]

SERVICE: Final = "fedtwin.v1.Exchange"
MESSAGE_LIMIT: Final = 4 * 1024 * 1024
HEARTBEAT_S: Final = 10.0
LEASE_S: Final = 30.0
# Initial metadata of ListReleases: the coordinator's time, milliseconds since 1970.
SERVER_TIME: Final = "fedtwin-server-ms"

# keepalive_timeout alone does not detect a half-open link (grpc/grpc pull request 39239),
# http2.ping_timeout_ms does: after 20 + 10 s of silence both ends give up.
_SHARED: Final = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_metadata_size", 8192),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
# No max_connection_age: it would make old certificates go by breaking every link each hour, in the
# middle of a large model too. The guard does that better: it looks at expiry and revocation at
# every call and, on an open stream, five times a second; and a node moves its link at two thirds of
# its certificate's life by itself.
SERVER_OPTIONS: Final = [
    *_SHARED,
    ("grpc.max_concurrent_streams", 16),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.so_reuseport", 0),
]
# min_reconnect_backoff is what its name hides: how long one attempt may take, with proxy and TLS. A
# slow line needs more than a blink; who is refused notices at once all the same.
CLIENT_OPTIONS: Final = [
    *_SHARED,
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
]


def method(name: str) -> str:
    """The full path of one of our calls."""
    return f"/{SERVICE}/{name}"


def open_channel(
    address: str, credentials: Credentials, proxy: str | None = None
) -> grpc.aio.Channel:
    """A channel to the coordinator that shows our certificate and demands its.

    Args:
        address: `host:port`.
        credentials: our key, chain and the consortium's roots.
        proxy: `http://host:port` of an HTTP CONNECT proxy; without it none is used, whatever the
            environment says.

    Raises:
        ConfigurationError: the proxy's address is not one.
    """
    tls, options = _tls(credentials), _options(proxy)
    return grpc.aio.secure_channel(address, tls, options=options)


def open_blocking_channel(
    address: str, credentials: Credentials, proxy: str | None = None
) -> grpc.Channel:
    """The same channel for calls that block their thread.

    Raises:
        ConfigurationError: the proxy's address is not one.
    """
    return grpc.secure_channel(address, _tls(credentials), options=_options(proxy))


def _options(proxy: str | None) -> list[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = list(CLIENT_OPTIONS)
    if not proxy:
        return [*options, ("grpc.enable_http_proxy", 0)]
    check_proxy(proxy)
    return [*options, ("grpc.enable_http_proxy", 1), ("grpc.http_proxy", proxy)]


def _tls(credentials: Credentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=credentials.roots_pem,
        private_key=credentials.key_pem,
        certificate_chain=credentials.chain_pem,
    )
