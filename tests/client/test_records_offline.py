"""Records are read from files; nothing that stands in them makes the node call somebody."""

import json
import socket
from datetime import UTC, datetime
from pathlib import Path

from fedtwin_client.store.imports import import_fhir

NOW = datetime(2026, 11, 2, tzinfo=UTC)


def test_a_reference_to_another_host_is_not_followed(tmp_path: Path) -> None:
    """Patient, medication and attachment lie "elsewhere"; nobody knocks there."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        there = f"http://127.0.0.1:{elsewhere.getsockname()[1]}"
        coding = [{"system": "http://snomed.info/sct", "code": "162673000"}]
        resources = [
            {"resourceType": "Patient", "id": "p", "birthDate": "1960-01-01", "link": []},
            {
                "resourceType": "Observation",
                "id": "o",
                "status": "final",
                "code": {"coding": coding},
                "subject": {"reference": f"{there}/Patient/p"},
                "effectiveDateTime": "2020-01-01",
            },
            {
                "resourceType": "MedicationRequest",
                "id": "m",
                "status": "active",
                "intent": "order",
                "subject": {"reference": "Patient/p"},
                "authoredOn": "2020-01-01",
                "medicationReference": {"reference": f"{there}/Medication/x"},
                "supportingInformation": [{"reference": there}],
            },
            {"resourceType": "DocumentReference", "content": [{"attachment": {"url": there}}]},
        ]
        lines = "".join(json.dumps(resource) + "\n" for resource in resources)
        (tmp_path / "export.ndjson").write_text(lines)
        report = import_fhir(
            [tmp_path / "export.ndjson"], tmp_path / "records", secret=b"s" * 32, now=NOW
        )
        elsewhere.settimeout(0.2)
        try:
            elsewhere.accept()
        except TimeoutError:
            called = False
        else:
            called = True
    assert sum(report.read.values()) == 4
    assert not called
