"""The MQTT door against a real broker: nothing is acknowledged before it is kept."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paho.mqtt.enums import CallbackAPIVersion

from fedtwin_client.records.pseudonyms import Identity, IdentityMap, pseudonym
from fedtwin_client.records.streams.mqtt import MqttDoor, MqttSettings, TopicPattern
from fedtwin_client.store.compaction import compact, waiting
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, RecordError

from ..desks import MOSQUITTO, NOW, SECRET, MemoryKeep, broker, clock, free_port, make_desk, until

needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
SYSTEM = "http://h/mrn"
VALUE = {"code": "LOINC//8867-4", "value": 71, "unit": "/min", "time": "2026-02-01T08:00:00Z"}


def settings(port: int, **changes: Any) -> MqttSettings:
    given = {
        "host": "127.0.0.1",
        "port": port,
        "topic": "ward/+/vitals/{patient}",
        "client_id": "node",
        "system": SYSTEM,
        "tls": False,
    }
    return MqttSettings(**{**given, **changes})


class Publisher:
    """Publishes, and returns once the broker has it."""

    def __init__(self, port: int, user: str | None = None, password: str | None = None) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"p{os.getpid()}")
        if user is not None:
            self._client.username_pw_set(user, password)
        self._client.max_inflight_messages_set(500)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    async def send(self, topic: str, *payloads: Any, qos: int = 1, retain: bool = False) -> None:
        sent = [
            self._client.publish(
                topic,
                payload if isinstance(payload, bytes) else json.dumps(payload),
                qos=qos,
                retain=retain,
            )
            for payload in payloads
        ]
        await until(lambda: all(one.is_published() for one in sent))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@asynccontextmanager
async def publishing(port: int, **given: Any) -> AsyncIterator[Publisher]:
    publisher = await asyncio.to_thread(lambda: Publisher(port, **given))
    try:
        yield publisher
    finally:
        await asyncio.to_thread(publisher.close)


@asynccontextmanager
async def serving(door: MqttDoor, keep: MemoryKeep, desk: Any = None) -> AsyncIterator[Any]:
    desk = desk or make_desk("mqtt")
    task = asyncio.create_task(door.serve(desk, keep))
    try:
        await asyncio.sleep(0.3)
        yield desk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(action: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(action(), 60))


@needs_broker
def test_values_points_and_fhir_come_in_under_the_patient_of_the_topic(tmp_path: Path) -> None:
    point = {
        "body": {
            "heart_rate": {"value": 60, "unit": "beats/min"},
            "effective_time_frame": {"date_time": "2026-02-01T08:01:00Z"},
        }
    }
    observation = {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "effectiveDateTime": "2026-02-01T08:02:00Z",
        "valueQuantity": {"value": 62, "code": "/min"},
    }
    keep = MemoryKeep()

    async def play() -> None:
        with broker(tmp_path / "b") as there:
            async with (
                serving(MqttDoor(settings(there.port), clock), keep) as desk,
                publishing(there.port) as out,
            ):
                await out.send("ward/3/vitals/4711", VALUE, point, observation)
                await out.send("ward/3/vitals/4711", b"\xff{", b"[1]", {"code": 5}, b"{}")
                await out.send("ward/3/alarms/4711", VALUE | {"value": 1})
                await until(lambda: len(keep.all()) == 3)
                await until(lambda: sum(desk.reading.tally.reasons.values()) == 4)
                assert "4711" not in json.dumps(desk.reading.tally.examples)

    run(play)
    assert sorted(event.numeric_value for event in keep.all()) == [60, 62, 71]
    assert {event.subject_id for event in keep.all()} == {
        pseudonym(SECRET, Identity(SYSTEM, "4711"))
    }
    assert {event.unit for event in keep.all()} == {"/min"}


@needs_broker
def test_what_was_not_kept_comes_again_after_the_node_died_and_nothing_doubles(
    tmp_path: Path,
) -> None:
    values = [VALUE | {"time": f"2026-02-01T08:{n:02d}:00Z"} for n in range(40)]
    keep, stuck = MemoryKeep(), MemoryKeep()

    async def play() -> None:
        with broker(tmp_path / "b") as there:
            door = settings(there.port)
            async with publishing(there.port) as out:
                stuck.blocked = asyncio.Event()
                async with serving(MqttDoor(door, clock), stuck):
                    await out.send("ward/3/vitals/1", *values[:20])
                    await until(lambda: stuck.tried > 0)
                # The node is gone in the middle of keeping; others go on.
                await out.send("ward/3/vitals/1", *values[20:])
                async with serving(MqttDoor(door, clock), keep):
                    await until(lambda: len(keep.all()) == 40)
                    await out.send("ward/3/vitals/1", *values)
                    await out.send("ward/3/vitals/1", VALUE | {"value": 99})
                    await until(lambda: any(event.numeric_value == 99 for event in keep.all()))
                again = MemoryKeep()
                async with serving(MqttDoor(door, clock), again):
                    await asyncio.sleep(0.5)
                    assert again.tried == 0  # all was acknowledged

    run(play)
    assert stuck.all() == []
    assert len(keep.all()) == 40
    assert [event.numeric_value for event in keep.all()].count(99) == 1


@needs_broker
def test_into_the_nodes_own_store(tmp_path: Path) -> None:
    """By the live store: events in the timeline, what is wrong in the quarantine."""
    store = tmp_path / "store"
    values = [VALUE | {"time": f"2026-02-01T08:{n:02d}:00Z", "value": n + 1} for n in range(50)]

    async def play() -> None:
        with broker(tmp_path / "b") as there, LiveStore(store, SECRET, clock) as live:
            desk = live.desk("mqtt", ZoneInfo("UTC"))
            door = MqttDoor(settings(there.port), clock)
            task = asyncio.create_task(door.serve(desk, live.keep(desk)))
            await asyncio.sleep(0.3)
            async with publishing(there.port) as out:
                await out.send("ward/3/vitals/1", *values, *values, b"{")
            await until(lambda: waiting(store) >= 50)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(play)
    compact(store, NOW)
    events = Timeline.open(store).events().to_pylist()
    assert sorted(event["numeric_value"] for event in events) == list(range(1, 51))
    who = IdentityMap(store / "identities.sqlite").who_is(events[0]["subject_id"])
    assert who == Identity(SYSTEM, "1")


@needs_broker
def test_a_node_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    """kill -9 in the middle of keeping, three times over 3,000 messages."""
    file, wanted = tmp_path / "kept", 3000
    start = datetime(2026, 2, 1, tzinfo=UTC)
    values = [
        VALUE | {"time": (start + timedelta(minutes=n)).isoformat(), "value": n}
        for n in range(wanted)
    ]

    def kept() -> list[str]:
        return file.read_text().splitlines() if file.exists() else []

    async def play() -> None:
        with broker(tmp_path / "b") as there:
            node = started(there.port, file)
            try:
                async with publishing(there.port) as out:
                    while not kept():  # until it has subscribed, nothing waits for it
                        await out.send("ward/0", VALUE)
                        await asyncio.sleep(0.05)
                    sending = asyncio.create_task(out.send("ward/1", *values))
                    for part in (1, 2, 3):
                        await until(lambda least=part * 400: len(kept()) >= least)
                        node.kill()
                        node.wait()
                        node = started(there.port, file)
                    await sending
                    await until(lambda: len(set(kept())) == wanted + 1)
            finally:
                node.kill()
                node.wait()

    run(play)
    origins = [line.split()[0] for line in kept()]
    assert len(set(origins)) == wanted + 1


def started(port: int, file: Path) -> subprocess.Popen[bytes]:
    driver = Path(__file__).with_name("mqtt_kill_driver.py")
    return subprocess.Popen([sys.executable, str(driver), str(port), str(file)])


@needs_broker
def test_the_broker_proves_who_it_is(tmp_path: Path) -> None:
    certificate, key = tmp_path / "broker.pem", tmp_path / "broker.key"
    _self_signed(certificate, key)
    keep = MemoryKeep()

    async def play() -> None:
        with broker(tmp_path / "b", f"certfile {certificate}", f"keyfile {key}") as there:
            good = settings(there.port, tls=True, ca_file=certificate)
            async with serving(MqttDoor(good, clock), keep):
                publisher = paho.Client(CallbackAPIVersion.VERSION2)
                publisher.tls_set(str(certificate))
                publisher.connect("127.0.0.1", there.port)
                publisher.loop_start()
                publisher.publish("ward/3/vitals/1", json.dumps(VALUE), qos=1)
                await until(lambda: len(keep.all()) == 1)
                publisher.disconnect()
                publisher.loop_stop()
            stranger = MqttDoor(settings(there.port, tls=True, client_id="other"), clock)
            with pytest.raises(RecordError, match="cannot be trusted: CERTIFICATE_VERIFY_FAILED"):
                await stranger.serve(make_desk("mqtt"), keep)

    run(play)


def _self_signed(certificate: Path, key: Path) -> None:
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(made.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(made, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(Encoding.PEM))
    form = PrivateFormat.PKCS8
    key.write_bytes(made.private_bytes(Encoding.PEM, form, NoEncryption()))


@needs_broker
def test_a_full_disk_is_not_acknowledged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedtwin_client.records.streams.mqtt._PATIENCE_S", (0.05, 0.1))
    keep = MemoryKeep(failures=3)

    async def play() -> None:
        with broker(tmp_path / "b") as there:
            async with (
                serving(MqttDoor(settings(there.port), clock), keep),
                publishing(there.port) as out,
            ):
                await out.send("ward/3/vitals/1", VALUE)
                await until(lambda: len(keep.all()) == 1)

    with caplog.at_level(logging.INFO):
        run(play)
    assert keep.tried == 4
    assert caplog.text.count("the disk is full; trying again") == 3


@needs_broker
def test_the_subscriber_outlives_a_broker_that_starts_again(tmp_path: Path) -> None:
    keep = MemoryKeep()

    async def play() -> None:
        with broker(tmp_path / "b") as there:
            async with serving(MqttDoor(settings(there.port), clock), keep):
                await asyncio.to_thread(there.stop)
                await asyncio.to_thread(there.start)
                async with publishing(there.port) as out:
                    await out.send("ward/3/vitals/1", VALUE)
                    await until(lambda: len(keep.all()) == 1)

    run(play)


@needs_broker
def test_users_and_passwords(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("monitor:" + _hashed("right") + "\n")
    users.chmod(0o644)
    for name, text in (("good", "right\n"), ("bad", "wrong")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    keep = MemoryKeep()

    async def play() -> None:
        lines = (f"password_file {users}", "allow_anonymous false")
        with broker(tmp_path / "b", *lines) as there:
            good = settings(there.port, user="monitor", password_file=tmp_path / "good")
            async with (
                serving(MqttDoor(good, clock), keep),
                publishing(there.port, user="monitor", password="right") as out,
            ):
                await out.send("ward/3/vitals/1", VALUE)
                await until(lambda: len(keep.all()) == 1)
            bad = settings(there.port, user="monitor", password_file=tmp_path / "bad")
            with pytest.raises(RecordError, match="refuses the user or the password"):
                await MqttDoor(bad, clock).serve(make_desk("mqtt"), keep)

    run(play)


def _hashed(password: str) -> str:
    """As mosquitto_passwd writes it: PBKDF2 with SHA-512."""
    import base64
    import hashlib

    salt = b"saltsaltsalt"
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    words = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"$7$101${words[0]}${words[1]}"


def test_an_unknown_address_is_said_at_once() -> None:
    door = MqttDoor(settings(free_port(), host="nowhere.invalid", tls=True), clock)

    async def play() -> None:
        with pytest.raises(RecordError, match=r"cannot find the MQTT broker nowhere\.invalid"):
            await door.serve(make_desk("mqtt"), MemoryKeep())

    run(play)


def test_a_topic_leads_to_the_patient() -> None:
    pattern = TopicPattern("ward/+/vitals/{patient}")
    assert pattern.subscription == "ward/+/vitals/+"
    assert pattern.patient("ward/3/vitals/47 11") == "47 11"
    assert pattern.patient("ward/3/vitals/") is None
    assert pattern.patient("ward/3/4/vitals/1") is None
    assert TopicPattern("a.b/{patient}/#").patient("a.b/7/x/y") == "7"
    assert TopicPattern("a.b/#").patient("a.b/7/x/y") is None


@pytest.mark.parametrize("topic", ["", "a/{patient}/{patient}", "a/#/b", "a/x{patient}", "a+/b"])
def test_topics_that_are_none(topic: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a topic such as"):
        TopicPattern(topic)


def test_settings_that_would_not_be_safe(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected TLS with a broker elsewhere"):
        MqttDoor(settings(1883, host="broker.example"), clock)
    with pytest.raises(ConfigurationError, match="expected a client id"):
        MqttDoor(settings(1883, client_id=""), clock)
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o640)
    with pytest.raises(ConfigurationError, match="others can read the broker's password"):
        MqttDoor(settings(1883, password_file=tmp_path / "password"), clock)
    with pytest.raises(ConfigurationError, match="cannot use a certificate file"):
        MqttDoor(settings(1883, tls=True, ca_file=tmp_path / "none.pem"), clock)
    assert NOW.tzinfo is not None
