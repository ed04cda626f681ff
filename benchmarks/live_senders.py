"""Those who send for `live_latency`: HL7 v2 by MLLP, MQTT, and a FHIR server that is polled.

As a script: listens for the poll, waits for a line on its input, sends for so many seconds, and
prints when each message went out, by door and number. A message's value is its number; every
twentieth is about patient 0, the others about 500 patients.
"""

import asyncio
import getpass
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
SYSTEM = "urn:bench:mrn"
MLLP_PER_S, MQTT_PER_S, POLLED_PER_S, CONNECTIONS, RESULTS = 200, 500, 5, 4, 5
START, END = b"\x0b", b"\x1c\r"


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def broker(folder: Path, port: int) -> Iterator[None]:
    """A broker set up as docs/sources/mqtt.md says."""
    lines = [f"user {getpass.getuser()}", f"listener {port} 127.0.0.1", "allow_anonymous true"]
    lines += ["set_tcp_nodelay true", "max_inflight_messages 1000", "max_queued_messages 0"]
    (folder / "mosquitto.conf").write_text("\n".join(lines))
    assert MOSQUITTO is not None
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([MOSQUITTO, "-c", str(folder / "mosquitto.conf")], **quiet)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _patient(number: int) -> int:
    return 0 if number % 20 == 0 else 1 + number % 500


def _oru(number: int) -> bytes:
    when = f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000"
    lines = [
        f"MSH|^~\\&|LAB|HOSP|NODE|HOSP|{when}||ORU^R01|m{number}|P|2.5",
        f"PID|1||{_patient(number)}^^^HOSP^MR||X",
        f"OBR|1|o{number}|f{number}|8867-4^Heart rate^LN|||{when}",
        *(
            f"OBX|{n}|NM|8867-4^Heart rate^LN|{n}|{number}|/min^^UCUM|||||F|||{when}"
            for n in range(RESULTS)
        ),
    ]
    return START + "\r".join(lines).encode() + b"\r" + END


async def _paced(rate: float, messages: int) -> Any:
    """Numbers, so many a second; late ones follow at once."""
    began = time.monotonic()
    for number in range(messages):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield number


async def _by_mllp(port: int, seconds: int) -> list[float]:
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    messages, sent = MLLP_PER_S * seconds, list[float]()

    async def answered(reader: asyncio.StreamReader, part: int) -> None:
        for number in range(part, messages, CONNECTIONS):
            answer = await reader.readuntil(END)
            if b"MSA|AA|m%d" % number not in answer:
                raise RuntimeError(f"message {number} was answered by {answer!r}")

    listening = [
        asyncio.create_task(answered(reader, part)) for part, (reader, _) in enumerate(lines)
    ]
    async for number in _paced(MLLP_PER_S, messages):
        message = _oru(number)
        sent.append(time.monotonic())
        lines[number % CONNECTIONS][1].write(message)
    await asyncio.gather(*listening)
    return sent


async def _by_mqtt(port: int, seconds: int) -> list[float]:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="ward")
    client.max_inflight_messages_set(1000)
    client.on_socket_open = lambda _, __, line: line.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent, infos = list[float](), []
    async for number in _paced(MQTT_PER_S, MQTT_PER_S * seconds):
        when = datetime.now(UTC).isoformat()
        value = {"id": number, "code": "8867-4", "value": number, "unit": "/min", "time": when}
        sent.append(time.monotonic())
        infos.append(client.publish(f"ward/{_patient(number)}", json.dumps(value), qos=1))
    for info in infos:
        await asyncio.to_thread(info.wait_for_publish, 30)
    client.disconnect()
    client.loop_stop()
    return sent


class _Polled:
    """A FHIR server with ever more Observations; knows when each was first given out."""

    def __init__(self, port: int) -> None:
        self._began: datetime | None = None
        self._through = 0
        self.sent: list[float] = []
        polled = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                body = json.dumps(polled.answer(parts.path, parse_qs(parts.query))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/fhir+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def begin(self, seconds: int) -> None:
        self._began, self._through = datetime.now(UTC), POLLED_PER_S * seconds

    def answer(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        kind = path.split("/")[2] if path.count("/") > 1 else ""
        found: list[dict[str, Any]] = []
        if path.endswith("_history") or kind not in {"Patient", "Observation"}:
            found = []
        elif kind == "Patient":
            identifier = [{"system": SYSTEM, "value": "0"}]
            about = {"resourceType": "Patient", "id": "zero", "identifier": identifier}
            found = [about | {"meta": {"lastUpdated": "2099-01-01T00:00:00Z"}}]
        elif self._began is not None:
            since = datetime.fromisoformat(query["_lastUpdated"][0][2:])
            there = int((datetime.now(UTC) - self._began).total_seconds() * POLLED_PER_S)
            numbers = range(min(there, self._through))
            found = [one for one in map(self._observation, numbers) if _changed(one) >= since]
            self.sent += [time.monotonic()] * (len(numbers) - len(self.sent))
        entries = [{"resource": one} for one in found]
        return {"resourceType": "Bundle", "type": "searchset", "entry": entries}

    def _observation(self, number: int) -> dict[str, Any]:
        assert self._began is not None
        when = (self._began + timedelta(seconds=number / POLLED_PER_S)).isoformat()
        return {
            "resourceType": "Observation",
            "id": f"p{number}",
            "meta": {"lastUpdated": when, "versionId": "1"},
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "subject": {"reference": "Patient/zero"},
            "effectiveDateTime": when,
            "valueQuantity": {
                "value": number,
                "system": "http://unitsofmeasure.org",
                "code": "/min",
            },
        }


def _changed(resource: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(resource["meta"]["lastUpdated"])


async def _send(poll: int, mllp: int, mqtt: int, seconds: int) -> None:
    polled = _Polled(poll)
    sys.stdin.readline()
    polled.begin(seconds)
    by_mllp, by_mqtt = await asyncio.gather(_by_mllp(mllp, seconds), _by_mqtt(mqtt, seconds))
    while len(polled.sent) < POLLED_PER_S * seconds:
        await asyncio.sleep(0.1)
    said = {"mllp": by_mllp, "mqtt": by_mqtt, "poll": polled.sent}
    print(json.dumps(said), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_send(*map(int, sys.argv[1:])))
