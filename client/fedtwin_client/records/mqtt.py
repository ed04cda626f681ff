"""An MQTT subscriber: messages are acknowledged only after they are kept.

MQTT 3.1.1 at quality of service 1 with a session that outlives the connection (`clean_session`
false): what was not acknowledged when the node died comes again, and because each record replaces
what an earlier message of the same origin made, nothing doubles. Small packets are sent at once
(TCP_NODELAY): with Nagle's algorithm a broker and a subscriber wait for one another.
"""

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from fedtwin_client.records.door import Keep
from fedtwin_client.records.messages import MessageReader, Read
from fedtwin_client.records.report import Place
from fedtwin_client.records.secret_file import read_secret
from fedtwin_client.records.source import Desk
from fedtwin_protocol.errors import ConfigurationError, RecordError

logger = logging.getLogger(__name__)
_BATCH = 512
_PATIENCE_S = (1.0, 60.0)
_LARGEST = 1024 * 1024
_LEVEL = re.compile(r"\{patient\}|\+|#|[^+#{}\0]*")
_REFUSED = {
    1: "it does not speak MQTT 3.1.1",
    2: "it refuses the client id",
    4: "it refuses the user or the password",
    5: "it refuses the user or the password",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MqttSettings:
    """Where messages come from, and whose they are.

    Attributes:
        host: of the broker.
        port: of the broker; 8883 is usual with TLS, 1883 without.
        topic: such as `ward/+/vitals/{patient}`: `+` stands for one level, `#` at the end for all
            others, `{patient}` for the level that holds the patient's number.
        client_id: under which the broker keeps the session; no two subscribers may share it.
        system: whose numbers the patients' are; none: this door's alone.
        user: at the broker; none: nobody in particular.
        password_file: a file of rights 600 with the password.
        ca_file: certificates that the broker's is checked against, PEM; none: this machine's.
        certificate_file: the node's own certificate, PEM, where the broker asks for one.
        key_file: its key, PEM.
        tls: whether to speak TLS; without it only with a broker on this machine.
        ahead: how far the senders' clocks may be ahead of this machine's.
    """

    host: str
    topic: str
    client_id: str
    port: int = 8883
    system: str | None = None
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    tls: bool = True
    ahead: timedelta = timedelta(minutes=1)


class _Message(NamedTuple):
    number: int
    connection: int
    topic: str
    payload: bytes


class TopicPattern:
    """A pattern of topics, as a subscription and as the way to the patient."""

    def __init__(self, pattern: str) -> None:
        """Read a pattern.

        Raises:
            ConfigurationError: it is none.
        """
        levels = pattern.split("/")
        several = pattern.count("{patient}") > 1 or "#" in levels[:-1]
        if not pattern or several or not all(_LEVEL.fullmatch(level) for level in levels):
            raise ConfigurationError(
                f"expected a topic such as 'ward/+/vitals/{{patient}}', found '{pattern}'"
            )
        self.subscription = pattern.replace("{patient}", "+")
        parts = {"{patient}": "(?P<patient>[^/]+)", "+": "[^/]*", "#": ".*"}
        written = "/".join(parts.get(level, re.escape(level)) for level in levels)
        self._match = re.compile(written, re.DOTALL)

    def patient(self, topic: str) -> str | None:
        """The patient's number in a topic; none if the pattern names none or it stands empty."""
        match = self._match.fullmatch(topic)
        return match.groupdict().get("patient") if match else None


class MqttDoor:
    """Takes in what one broker publishes.

    Attributes:
        name: of the source, as events name it.
    """

    def __init__(
        self, settings: MqttSettings, clock: Callable[[], datetime], name: str = "mqtt"
    ) -> None:
        """Check the settings.

        Args:
            settings: where messages come from.
            clock: the time, aware.
            name: of the source.

        Raises:
            ConfigurationError: the topic is none, a file cannot be used, or a broker elsewhere
                would be spoken to without TLS.
        """
        self.name = name
        self._settings = settings
        self._clock = clock
        self._topic = TopicPattern(settings.topic)
        if not settings.client_id:
            raise ConfigurationError("expected a client id: without one the broker keeps nothing")
        if not settings.tls and settings.host not in {"localhost", "127.0.0.1", "::1"}:
            raise ConfigurationError(
                f"expected TLS with a broker elsewhere ({settings.host}): patients' values would "
                "cross the network in the clear"
            )
        self._password = None
        if settings.password_file is not None:
            self._password = read_secret(settings.password_file, "the broker's password")
        self._context = _tls(settings) if settings.tls else None

    async def serve(self, desk: Desk, keep: Keep) -> None:
        """Take messages in until cancelled.

        Raises:
            RecordError: the broker's address is unknown, or it refuses this client.
        """
        inbox = _Inbox(asyncio.get_running_loop())
        client = self._client(inbox)
        reader = MessageReader(desk, self.name, self._settings.system)
        try:
            await asyncio.to_thread(self._look_up)
            client.connect_async(self._settings.host, self._settings.port, keepalive=30)
            client.loop_start()
            while True:
                batch = await inbox.take()
                read = self._read(batch, reader)
                await _keep_at_last(read, keep, self.name)
                for message in batch:
                    if message.connection == inbox.connection:
                        client.ack(message.number, 1)
        finally:
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    def _look_up(self) -> None:
        host = self._settings.host
        try:
            socket.getaddrinfo(host, self._settings.port)
        except (OSError, UnicodeError) as error:
            raise RecordError(f"cannot find the MQTT broker {host}: {error}") from error

    def _client(self, inbox: "_Inbox") -> paho.Client:
        settings = self._settings
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=False,
            protocol=paho.MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        if settings.user is not None:
            client.username_pw_set(settings.user, self._password)
        if self._context is not None:
            client.tls_set_context(self._context)
        client.reconnect_delay_set(min_delay=1, max_delay=60)
        where = f"{settings.host}:{settings.port}"

        def on_connect(one: paho.Client, _: Any, __: Any, code: Any, ___: Any) -> None:
            if code.is_failure:
                why = _REFUSED.get(_return_code(code), str(code))
                inbox.fail(RecordError(f"the MQTT broker {where} turned this node away: {why}"))
                return
            inbox.connection += 1
            one.subscribe(self._topic.subscription, qos=1)

        def on_subscribe(_: Any, __: Any, ___: Any, codes: list[Any], ____: Any) -> None:
            if any(code.is_failure for code in codes):
                topic = self._topic.subscription
                inbox.fail(RecordError(f"the MQTT broker {where} refuses the topic {topic}"))

        def on_message(_: Any, __: Any, message: paho.MQTTMessage) -> None:
            if message.qos == 0:  # sent without a promise; there is nothing to acknowledge
                inbox.put(_Message(0, -1, message.topic, message.payload))
                return
            inbox.put(_Message(message.mid, inbox.connection, message.topic, message.payload))

        def on_fail(_: Any, __: Any) -> None:
            logger.warning("%s: the broker %s cannot be reached; trying again", self.name, where)

        def on_disconnect(_: Any, __: Any, ___: Any, code: Any, ____: Any) -> None:
            if code.is_failure:
                logger.warning("%s: lost the broker %s; connecting again", self.name, where)

        client.on_socket_open = _without_delay
        client.on_connect = on_connect
        client.on_connect_fail = on_fail
        client.on_disconnect = on_disconnect
        client.on_subscribe = on_subscribe
        client.on_message = on_message
        return client

    def _read(self, batch: list[_Message], reader: MessageReader) -> Read:
        whole = Read([], {}, {})
        learned, consents = {}, {}
        now = self._clock() + self._settings.ahead
        for message in batch:
            patient = self._topic.patient(message.topic)
            place = Place(f"{self.name} message", message.number)
            payload = message.payload if len(message.payload) <= _LARGEST else b""
            read = reader.read(payload, place, patient, now)
            whole.versions.extend(read.versions)
            learned |= read.learned
            consents |= read.consents
        return whole._replace(learned=learned, consents=consents)


class _Inbox:
    """Between the thread that talks to the broker and the loop that keeps."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.connection = 0
        self._loop = loop
        self._waiting: deque[_Message] = deque()
        self._woken = asyncio.Event()
        self._called = threading.Event()
        self._failure: RecordError | None = None

    def put(self, message: _Message) -> None:
        """From the broker's thread."""
        self._waiting.append(message)
        self._wake()

    def fail(self, error: RecordError) -> None:
        """From the broker's thread: nothing will come any more."""
        self._failure = error
        self._wake()

    def _wake(self) -> None:
        if not self._called.is_set():  # one call wakes for all that has come until then
            self._called.set()
            self._loop.call_soon_threadsafe(self._woken.set)

    async def take(self) -> list[_Message]:
        """What has come, at least one message.

        Raises:
            RecordError: the broker has turned this node away.
        """
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            self._woken.clear()
            self._called.clear()
            if not self._waiting and self._failure is None:
                await self._woken.wait()
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]


async def _keep_at_last(read: Read, keep: Keep, name: str) -> None:
    """Keep it, however often it takes; until then the broker hears nothing."""
    patience, most = _PATIENCE_S
    while True:
        try:
            await keep(read.versions, read.learned, read.consents)
            return
        except RecordError as error:
            logger.error("%s: %s; trying again in %.0f s", name, error, patience)
        await asyncio.sleep(patience)
        patience = min(2 * patience, most)


def _without_delay(_: paho.Client, __: Any, connection: Any) -> None:
    if isinstance(connection, socket.socket) and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _return_code(code: Any) -> int:
    """MQTT 3.1.1's return code; paho speaks in those of version 5."""
    return {132: 1, 133: 2, 134: 4, 135: 5}.get(int(code.value), 0)


def _tls(settings: MqttSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use a certificate file of the broker: {error}") from error
    return context
