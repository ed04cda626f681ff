"""A Bulk Data export that the FHIR double offers, and the node that fetches it."""

import json
from pathlib import Path
from typing import Any

from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.fhir.server.downloads import Folder
from fedtwin_client.records.fhir.server.export import Asked as Wanted
from fedtwin_client.records.fhir.server.export import Export
from fedtwin_client.records.fhir.server.keys import make_key
from fedtwin_client.records.fhir.server.signing_in import SignedIn, discover
from fedtwin_client.records.fhir.server.web import Clock, Web

from .fhir_double import Asked, Double, Say, Ticking

SECRET = b"\x07" * 32
KEY = make_key("ES384")


def patient(number: int) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": f"p{number}", "birthDate": "1960-02-03"}


def observation(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "subject": {"reference": f"Patient/p{number % 3}"},
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": 200 + number, "unit": "mg/dL"},
    }


def lines(*resources: dict[str, Any]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in resources).encode()


PATIENTS = lines(*(patient(number) for number in range(3)))
OBSERVATIONS = lines(*(observation(number) for number in range(900)))


OPEN: list[Web] = []


def offers(server: Double, *, token: bool = False, **manifest: Any) -> None:
    """An export of two files, ready after two looks."""
    server.on(
        "/fhir/Patient/$export",
        Say(status=202, headers={"Content-Location": f"{server.base}/status/1"}),
    )
    whole = {
        "transactionTime": "2026-03-01T10:00:00Z",
        "request": f"{server.base}/Patient/$export",
        "requiresAccessToken": token,
        "output": [
            {"type": "Patient", "url": f"{server.origin}/files/p", "count": 3},
            {"type": "Observation", "url": f"{server.origin}/files/o", "count": 900},
        ],
        "error": [],
    } | manifest

    def status(request: Asked) -> Say:
        looks = [one for one in server.asked("/fhir/status/1") if one.method == "GET"]
        if request.method == "DELETE":
            return Say(status=202)
        if len(looks) < 3:
            return Say(status=202, headers={"X-Progress": "half", "Retry-After": "7"})
        return Say(whole)

    server.on("/fhir/status/1", status)
    server.on("/files/p", Say(PATIENTS))
    server.on("/files/o", Say(OBSERVATIONS))


def opened(server: Double, clock: Ticking, *, token: bool = False, **options: Any) -> Web:
    web = Web(server.base, Clock(now=clock.now, wait=clock.wait), timeout_s=5, **options)
    OPEN.append(web)
    if token:
        SignedIn(web, discover(web), key=KEY, client_id="node", scopes="system/*.read")
    return web


def export_of(
    server: Double,
    folder: Path,
    clock: Ticking | None = None,
    keyring: Keyring | None = None,
    **wanted: Any,
) -> Export:
    web = opened(server, clock or Ticking(), token="/token" in server.routes)
    return Export(web, Folder(folder, keyring), Wanted(**wanted), lambda _: None)
