"""FHIR R4 over HTTP on this machine's own address: Observations and Bundles are posted here.

`POST /Observation`, `POST /` with a Bundle (transaction, batch or collection), `GET /metadata`.
An answer of 201 comes only after the record is kept. A transaction is kept as a whole or not at
all; of a batch each entry is answered by itself. What another machine sends comes through a proxy
of the hospital's own, which speaks TLS; this door listens on the loopback address only.

An Observation without an id is known by its identifiers, or else by its content, so that sending it
again doubles nothing.
"""

import asyncio
import hmac
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fedtwin_client.records.door import Keep
from fedtwin_client.records.fhir.answers import RefusalError, capabilities, outcome
from fedtwin_client.records.fhir.intake import Intake
from fedtwin_client.records.secret_file import read_secret
from fedtwin_client.records.source import Desk
from fedtwin_protocol.errors import ConfigurationError, RecordError

logger = logging.getLogger(__name__)
_LARGEST = 16 * 1024 * 1024
_TYPES = {"application/fhir+json", "application/json"}
_SHORTEST_TOKEN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PostSettings:
    """Where the door listens, and who may post.

    Attributes:
        token_file: a file of rights 600 with the token that senders show (`Authorization: Bearer`).
        host: a loopback address.
        port: to listen on; 0: any that is free.
        system: whose identifier makes the pseudonym; none: the sender's own Patient id.
        ahead: how far the senders' clocks may be ahead of this machine's.
    """

    token_file: Path
    host: str = "127.0.0.1"
    port: int = 8480
    system: str | None = None
    ahead: timedelta = timedelta(minutes=1)


class PostDoor:
    """Takes in what is posted.

    Attributes:
        name: of the source, as events name it.
        opened: set once it listens.
        port: that it listens on, once it does.
    """

    def __init__(
        self, settings: PostSettings, clock: Callable[[], datetime], name: str = "fhir-post"
    ) -> None:
        """Check the settings.

        Args:
            settings: where it listens, and who may post.
            clock: the time, aware.
            name: of the source; FHIR ids of two doors do not meet.

        Raises:
            ConfigurationError: the address is not this machine's own, or the token is none.
        """
        self.name = name
        self.opened = asyncio.Event()
        self.port = settings.port
        self._settings = settings
        self._clock = clock
        try:
            loopback = ipaddress.ip_address(settings.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ConfigurationError(
                f"expected a loopback address such as 127.0.0.1, found {settings.host}: let a proxy"
                " with TLS pass on what other machines send"
            )
        self._token = read_secret(settings.token_file, "the senders' token").encode()
        if len(self._token) < _SHORTEST_TOKEN:
            raise ConfigurationError(
                f"expected a token of {_SHORTEST_TOKEN} characters or more in "
                f"{settings.token_file}; 'openssl rand -hex 32' makes one"
            )

    async def serve(self, desk: Desk, keep: Keep) -> None:
        """Take posts in until cancelled.

        Raises:
            RecordError: the port is taken.
        """
        settings = self._settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            listener.close()
            raise RecordError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            ) from error
        self.port = int(listener.getsockname()[1])
        intake = Intake(desk, self.name, settings.system, keep)
        config = uvicorn.Config(
            _Quiet(self._app(intake), self.name),
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            interface="asgi3",
            server_header=False,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=64 * 1024,
        )
        server = _Server(config)
        listener.listen(128)
        self.opened.set()
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(running)
        finally:
            server.should_exit = True  # it answers what it has begun, and then lets go
            await asyncio.wait({running})
            listener.close()

    def _app(self, intake: Intake) -> Starlette:
        async def observation(request: Request) -> Response:
            resource = await self._resource(request)
            if resource.get("resourceType") != "Observation":
                raise RefusalError(400, "invalid", "expected an Observation; post Bundles to /")
            kept = await intake.one(resource, self._now())
            return JSONResponse(
                outcome("information", "informational", *kept.remarks),
                status_code=201,
                headers={"Location": f"/{kept.address}"},
                media_type="application/fhir+json",
            )

        async def bundle(request: Request) -> Response:
            resource = await self._resource(request)
            if resource.get("resourceType") != "Bundle":
                raise RefusalError(
                    400, "invalid", "expected a Bundle; post Observations to /Observation"
                )
            answer = await intake.bundle(resource, self._now())
            return JSONResponse(answer, media_type="application/fhir+json")

        async def metadata(_: Request) -> Response:
            return JSONResponse(capabilities(self._clock()), media_type="application/fhir+json")

        return Starlette(
            routes=[
                Route("/Observation", observation, methods=["POST"]),
                Route("/", bundle, methods=["POST"]),
                Route("/metadata", metadata, methods=["GET"]),
            ],
            exception_handlers={
                RefusalError: _refused,
                RecordError: _not_kept,
                HTTPException: _no_such_thing,
            },
        )

    def _now(self) -> datetime:
        return self._clock() + self._settings.ahead

    async def _resource(self, request: Request) -> dict[str, Any]:
        """The posted resource, of a sender who may post.

        Raises:
            RefusalError: who it is, how it is written, or how large it is.
        """
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(shown.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() != "bearer" or not known:
            raise RefusalError(401, "login", "show the token: Authorization: Bearer <token>")
        written = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if written not in _TYPES:
            raise RefusalError(415, "not-supported", "send application/fhir+json")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RefusalError(415, "not-supported", "send it without compression")
        return Intake.parsed(await _body(request))


class _Quiet:
    """Keeps what a fault of the program says, which may be a patient's, out of the log."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app = app
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            logger.info("%s: a sender left before its message was whole", self._name)
        except Exception as error:
            logger.error("%s: a fault of the program: %s", self._name, type(error).__name__)


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: the node ends doors by cancelling them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > _LARGEST:
            raise RefusalError(413, "too-long", "a message may be 16 MiB long; send it in parts")
        pieces.append(piece)
    return b"".join(pieces)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusalError)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(
        outcome("error", error.code, *error.sentences),
        status_code=error.status,
        headers=headers,
        media_type="application/fhir+json",
    )


async def _not_kept(_: Request, __: Exception) -> Response:
    sentence = "it could not be kept just now, and nothing of it was; send it again later"
    return JSONResponse(
        outcome("error", "transient", sentence),
        status_code=503,
        headers={"Retry-After": "30"},
        media_type="application/fhir+json",
    )


async def _no_such_thing(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = "known here: POST /Observation, POST / with a Bundle, GET /metadata"
    return JSONResponse(
        outcome("error", "not-supported", known),
        status_code=error.status_code,
        headers=dict(error.headers or {}),
        media_type="application/fhir+json",
    )
