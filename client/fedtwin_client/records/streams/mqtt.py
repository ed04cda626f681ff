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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.door import Keep
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.secret_file import read_secret
from fedtwin_client.records.source import Desk, Version
from fedtwin_client.records.streams.messages import MessageReader, Read
from fedtwin_client.records.streams.mqtt_link import Broker, BrokerLink, Message
from fedtwin_protocol.errors import ConfigurationError, RecordError

logger = logging.getLogger(__name__)
_BATCH = 512
_PATIENCE_S = (1.0, 60.0)
_LARGEST = 1024 * 1024
_LEVEL = re.compile(r"\{patient\}|\+|#|[^+#{}\0]*")


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
            RecordError: the broker's address is unknown, or it cannot be trusted or refuses us.
        """
        settings = self._settings
        await asyncio.to_thread(self._look_up)
        link = BrokerLink(
            asyncio.get_running_loop(),
            Broker(settings.host, settings.port, self._topic.subscription, self.name),
            settings.client_id,
        )
        if settings.user is not None:
            link.client.username_pw_set(settings.user, self._password)
        if self._context is not None:
            link.client.tls_set_context(self._context)
        reader = MessageReader(desk, self.name, settings.system)
        link.start()
        try:
            while True:
                batch = await link.take(_BATCH)
                await _keep_at_last(partial(self._read, batch, reader, desk), keep, self.name)
                link.acknowledge(batch)
        finally:
            await asyncio.to_thread(link.stop)

    def _look_up(self) -> None:
        """Find out what would never come right by itself; a broker that is down may come back.

        Raises:
            RecordError: the address is unknown, or the broker's certificate is not to be trusted.
        """
        host, port = self._settings.host, self._settings.port
        try:
            socket.getaddrinfo(host, port)
            with socket.create_connection((host, port), timeout=10) as plain:
                if self._context is not None:
                    self._context.wrap_socket(plain, server_hostname=host).close()
        except (socket.gaierror, UnicodeError) as error:
            raise RecordError(f"cannot find the MQTT broker {host}: {error}") from error
        except ssl.SSLError as error:
            raise RecordError(
                f"the MQTT broker {host}:{port} cannot be trusted: {error.reason or error}"
            ) from error
        except OSError as error:
            logger.warning("%s: cannot reach %s:%d yet: %s", self.name, host, port, error)

    def _read(self, batch: Sequence[Message], reader: MessageReader, desk: Desk) -> Read:
        versions: list[Version] = []
        learned: dict[str, Identity] = {}
        consents: dict[str, Consent] = {}
        now = self._clock() + self._settings.ahead
        for message in batch:
            place = Place(f"{self.name} message", message.number)
            patient = self._topic.patient(message.topic)
            if len(message.payload) > _LARGEST:
                _put_aside_large(message, place, patient, desk.reading.tally)
                continue
            read = reader.read(message.payload, place, patient, now)
            versions += read.versions
            learned |= read.learned
            consents |= read.consents
        return Read(versions, learned, consents)


def _put_aside_large(message: Message, place: Place, patient: str | None, tally: Tally) -> None:
    reason = "a message larger than 1 MiB"
    beginning = message.payload[:_LARGEST].decode("utf-8", "surrogateescape")
    tally.wrong(reason, place)
    tally.set_aside([reason], place, beginning, patient, cut=True)


async def _keep_at_last(read: Callable[[], Read], keep: Keep, name: str) -> None:
    """Keep it, however often it takes; until then the broker hears nothing.

    It is read anew each time, because a failed keep has emptied the account of what was put aside.
    """
    patience, most = _PATIENCE_S
    while True:
        made = read()
        try:
            await keep(made.versions, made.learned, made.consents)
            return
        except RecordError as error:
            logger.error("%s: %s; trying again in %.0f s", name, error, patience)
        await asyncio.sleep(patience)
        patience = min(2 * patience, most)


def _tls(settings: MqttSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.certificate_file is not None:
            context.load_cert_chain(settings.certificate_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use a certificate file of the broker: {error}") from error
    return context
