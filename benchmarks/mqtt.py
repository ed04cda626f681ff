"""Messages a second through the MQTT door: QoS 1, a real broker, each kept on disk before its ack.

The messages wait at the broker, as after a night without a node, so that the figure is the door's
and not the publisher's. They are kept by the node's own live store: all that wait together share
one write to the disk. The broker is a process of its own. Beside it, in the same run, everything as
it comes: paho's and mosquitto's own settings (small packets wait, 20 messages under way), and each
message kept and acknowledged by itself.
"""

import asyncio
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import paho.mqtt.client as paho
from figures import Figure
from paho.mqtt.enums import CallbackAPIVersion

from fedtwin_client.records.source import Version
from fedtwin_client.records.streams.mqtt import MqttDoor, MqttSettings
from fedtwin_client.store.live import LiveStore

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
MESSAGES = 20_000
BASELINE_MESSAGES = 1000
PATIENTS = 50


def measure(options: Namespace) -> list[Figure]:
    """The figure, or none where there is no mosquitto."""
    if MOSQUITTO is None:
        print("mqtt-per-s needs mosquitto (Debian: apt-get install mosquitto)", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as folder:
        baseline = _rate(Path(folder) / "plain", BASELINE_MESSAGES, tuned=False)
        value = _rate(Path(folder) / "tuned", MESSAGES, tuned=True)
    return [
        Figure(
            id="mqtt-per-s",
            value=round(value, 1),
            unit="messages/s",
            baseline=round(baseline, 1),
            goal=2000.0,
            higher_is_better=True,
        )
    ]


def _rate(folder: Path, messages: int, *, tuned: bool) -> float:
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    lines = [f"user {getpass.getuser()}", f"listener {port} 127.0.0.1", "allow_anonymous true"]
    if tuned:
        lines += ["set_tcp_nodelay true", "max_inflight_messages 1000"]
    lines += ["max_queued_messages 0"]
    (folder / "mosquitto.conf").write_text("\n".join(lines))
    assert MOSQUITTO is not None
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    broker = subprocess.Popen([MOSQUITTO, "-c", str(folder / "mosquitto.conf")], **quiet)
    try:
        _wait_for(port)
        _leave_waiting(port, messages)
        if tuned:
            return asyncio.run(_through_the_door(folder, port, messages))
        return _as_it_comes(folder, port, messages)
    finally:
        broker.terminate()
        broker.wait()


async def _through_the_door(folder: Path, port: int, messages: int) -> float:
    settings = MqttSettings(
        host="127.0.0.1", port=port, topic="ward/+/vitals/{patient}", client_id="node", tls=False
    )
    with LiveStore(folder / "store", b"\1" * 32, lambda: NOW) as live:
        desk = live.desk("mqtt", ZoneInfo("UTC"))
        keep, done, origins = live.keep(desk), asyncio.Event(), set()

        async def counted(versions: Sequence[Version], *others: Any) -> None:
            await keep(versions, *others)
            origins.update(version.origin for version in versions)
            if len(origins) >= messages:
                done.set()

        start = time.perf_counter()
        serving = asyncio.create_task(MqttDoor(settings, lambda: NOW).serve(desk, counted))
        await asyncio.wait_for(done.wait(), 300)
        seconds = time.perf_counter() - start
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    return messages / seconds


def _as_it_comes(folder: Path, port: int, messages: int) -> float:
    """A plain subscriber: each message is kept and acknowledged by itself."""
    file = os.open(folder / "kept", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    seen = 0

    def on_message(_: Any, __: Any, message: paho.MQTTMessage) -> None:
        nonlocal seen
        os.write(file, message.payload + b"\n")
        os.fsync(file)
        seen += 1

    client = _session()
    client.on_message = on_message
    start = time.perf_counter()
    client.connect("127.0.0.1", port)
    client.loop_start()
    while seen < messages and time.perf_counter() - start < 120:
        time.sleep(0.005)
    seconds = time.perf_counter() - start
    client.disconnect()
    client.loop_stop()
    os.close(file)
    return seen / seconds


def _session() -> paho.Client:
    return paho.Client(CallbackAPIVersion.VERSION2, client_id="node", clean_session=False)


def _leave_waiting(port: int, messages: int) -> None:
    """Open the node's session, close it, and publish what then waits for it."""
    subscribed = threading.Event()
    node = _session()
    node.on_subscribe = lambda *_: subscribed.set()
    node.connect("127.0.0.1", port)
    node.subscribe("ward/+/vitals/+", qos=1)
    node.loop_start()
    subscribed.wait(10)
    node.disconnect()
    node.loop_stop()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="ward")
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [client.publish(*_message(number), qos=1) for number in range(messages)]
    for one in sent:
        one.wait_for_publish()
    client.disconnect()
    client.loop_stop()


def _message(number: int) -> tuple[str, str]:
    patient, step = number % PATIENTS, number // PATIENTS
    when = NOW - timedelta(days=1) + timedelta(seconds=step)
    value = {"code": "LOINC//8867-4", "value": 60 + step % 40, "unit": "/min"}
    return f"ward/1/vitals/{patient}", json.dumps(value | {"time": when.isoformat()})


def _wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("mosquitto does not listen")
