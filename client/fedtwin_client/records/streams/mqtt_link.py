"""The connection to an MQTT broker: a thread of paho's own, and an inbox that the loop empties.

Acknowledgements are sent by hand, and never on another connection than the message came by: what
was not acknowledged on a lost one comes again.
"""

import asyncio
import logging
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fedtwin_protocol.errors import RecordError

logger = logging.getLogger(__name__)
_MOST_WAITING = 100_000
_REFUSED = {
    132: "it does not speak MQTT 3.1.1",
    133: "it refuses the client id",
    134: "it refuses the user or the password",
    135: "it refuses the user or the password",
}


class Broker(NamedTuple):
    """Where it is, what is asked of it, and what the log calls it by."""

    host: str
    port: int
    subscription: str
    name: str


class Message(NamedTuple):
    """What was published; the connection it came by is none where nothing is acknowledged."""

    number: int
    connection: int | None
    topic: str
    payload: bytes


class BrokerLink:
    """One subscription that goes on until it is stopped.

    Attributes:
        client: paho's, to be told of users and TLS before the start.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, broker: Broker, client_id: str) -> None:
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        self.client.reconnect_delay_set(min_delay=1, max_delay=60)
        self.client.on_socket_open = _without_delay
        self.client.on_connect = self._on_connect
        self.client.on_connect_fail = self._on_connect_fail
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self._broker = broker
        self._where = f"{broker.host}:{broker.port}"
        self._loop = loop
        self._connection = 0
        self._waiting: deque[Message] = deque()
        self._dropped = 0
        self._woken = asyncio.Event()
        self._called = threading.Event()
        self._failure: RecordError | None = None

    def start(self) -> None:
        """Connect, now and after every loss, waiting longer each time up to a minute."""
        self.client.connect_async(self._broker.host, self._broker.port, keepalive=30)
        self.client.loop_start()

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self.client.disconnect()
        self.client.loop_stop()

    async def take(self, most: int) -> Sequence[Message]:
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
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the broker that these need not come again."""
        for message in messages:
            if message.connection == self._connection:
                self.client.ack(message.number, 1)

    def _on_connect(self, client: Any, _: Any, __: Any, code: Any, ___: Any) -> None:
        if code.is_failure:
            why = _REFUSED.get(int(code.value))
            if why is None:  # it is starting or shutting down; paho tries again
                logger.warning("%s: %s says: %s", self._broker.name, self._where, code)
                return
            self._fail(f"the MQTT broker {self._where} turned this node away: {why}")
            return
        self._connection += 1
        client.subscribe(self._broker.subscription, qos=1)

    def _on_subscribe(self, _: Any, __: Any, ___: Any, codes: Any, ____: Any) -> None:
        if any(code.is_failure for code in codes):
            topic = self._broker.subscription
            self._fail(f"the MQTT broker {self._where} refuses the topic {topic}")

    def _on_message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        promised = message.qos > 0
        if not promised and len(self._waiting) >= _MOST_WAITING:
            self._dropped += 1
            if self._dropped % 10_000 == 1:
                logger.error(
                    "%s: %d messages of quality of service 0 came faster than they can be kept, "
                    "and are lost; publish with 1",
                    self._broker.name,
                    self._dropped,
                )
            return
        connection = self._connection if promised else None
        payload = bytes(message.payload)
        self._waiting.append(Message(message.mid, connection, message.topic, payload))
        self._wake()

    def _on_connect_fail(self, _: Any, __: Any) -> None:
        logger.warning("%s: cannot reach %s; trying again", self._broker.name, self._where)

    def _on_disconnect(self, _: Any, __: Any, ___: Any, code: Any, ____: Any) -> None:
        if code.is_failure:
            logger.warning("%s: lost %s; connecting again", self._broker.name, self._where)

    def _fail(self, sentence: str) -> None:
        self._failure = RecordError(sentence)
        self._wake()

    def _wake(self) -> None:
        if not self._called.is_set():  # one call wakes for all that has come until then
            self._called.set()
            self._loop.call_soon_threadsafe(self._woken.set)


def _without_delay(_: Any, __: Any, connection: Any) -> None:
    if isinstance(connection, socket.socket) and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
