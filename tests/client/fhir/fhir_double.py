"""A FHIR server in this process that does what a test tells it to, also badly."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Ticking:
    """A clock that moves only when somebody waits."""

    def __init__(self, start: datetime = NOW) -> None:
        self.time = start
        self.waits: list[float] = []

    def now(self) -> datetime:
        return self.time

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True)
class Say:
    """An answer; `cut` sends only so many bytes of the body and hangs up."""

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answering = Callable[[Asked], Say]


class Double:
    """The server: for each path an answer, or a list of answers whose last one stays."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.base = f"{self.origin}/fhir"
        self.requests: list[Asked] = []
        self.routes: dict[str, Answering | list[Say]] = {}
        self.date: datetime | None = None

    def on(self, path: str, *answers: Say | Answering) -> None:
        first = answers[0]
        self.routes[path] = (
            first if callable(first) else [one for one in answers if isinstance(one, Say)]
        )

    def asked(self, path: str) -> list[Asked]:
        return [one for one in self.requests if one.path == path]

    def answer(self, request: Asked) -> Say:
        self.requests.append(request)
        route = self.routes.get(request.path)
        if route is None:
            return Say(status=404)
        if callable(route):
            return route(request)
        return route.pop(0) if len(route) > 1 else route[0]


@contextmanager
def double(tls: ssl.SSLContext | None = None) -> Iterator[Double]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(ConnectionError):  # of a node that hangs up
                super().handle()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            request = Asked(
                method=self.command,
                path=parts.path,
                query=parse_qs(parts.query),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(length),
            )
            said = server.answer(request)
            data = said.data
            self.send_response_only(said.status)
            if server.date is not None:
                self.send_header("Date", server.date.strftime("%a, %d %b %Y %H:%M:%S GMT"))
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data if said.cut is None else data[: said.cut])
            self.close_connection = said.cut is not None

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server = Double(listening.server_port)
    if tls is not None:
        listening.socket = tls.wrap_socket(listening.socket, server_side=True)
        server.origin = server.origin.replace("http:", "https:")
        server.base = f"{server.origin}/fhir"
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def gives_tokens(
    server: Double, jwks: dict[str, Any], client: str = "node", life: int = 300
) -> None:
    """Let a server hand out tokens against assertions that are signed and dated right."""
    server.on(
        "/fhir/.well-known/smart-configuration",
        Say(
            {
                "token_endpoint": f"{server.origin}/token",
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            }
        ),
    )
    given: list[str] = []
    seen: set[str] = set()

    def token(request: Asked) -> Say:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        keys = {key["kid"]: jwt.PyJWK(key) for key in jwks["keys"]}
        header = jwt.get_unverified_header(form["client_assertion"])
        claims = jwt.decode(
            form["client_assertion"],
            keys[header["kid"]].key,
            algorithms=["ES384", "RS384"],
            audience=f"{server.origin}/token",
            options={
                "require": ["iss", "sub", "aud", "exp", "jti"],
                "verify_exp": False,
                "verify_iat": False,
            },
        )
        now = (server.date or NOW).timestamp()
        good = claims["iss"] == claims["sub"] == client and claims["jti"] not in seen
        seen.add(claims["jti"])
        if not good or not claims["iat"] - 60 <= now <= claims["exp"] <= now + 300 + 60:
            return Say({"error": "invalid_client", "error_description": "expired"}, status=400)
        given.append(f"secret-{len(given) + 1}")
        return Say({"access_token": given[-1], "token_type": "bearer", "expires_in": life})

    server.on("/token", token)


def needs_token(answer: Say, *good: str) -> Answering:
    """An answer for those who show one of some tokens, 401 for others."""
    return lambda request: answer if (request.token or "")[7:] in good else Say(status=401)
