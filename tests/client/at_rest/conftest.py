"""A node's folder with planted patients, encrypted or not, and a look into every file of it."""

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.sealing import make_keys, make_secret
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.imports import import_fhir

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
MARKS = (b"MRN-PLANTED", b"planted-answer", b"PLANTED-CODE", b"planted.example")
PATIENTS = 60


class Node:
    """A node's folder and what is planted in it.

    Attributes:
        home: the folder.
        key: where its site key goes.
    """

    def __init__(self, folder: Path) -> None:
        self.home = NodeHome(folder=folder / "node")
        self.home.folder.mkdir(parents=True)
        self.key = folder / "node.key"
        self.home.settings_file.write_text("consortium: demo\nsite: aal\ncoordinator: here:1\n")
        self.home.policy_file.write_text("consent: opt_out\n")

    def seal(self) -> None:
        """Give the node its keys."""
        make_keys(self.home)

    def fill(self, first: int = 0, patients: int = PATIENTS) -> None:
        """Import patients with marks in their number, values and codes; two lines are put aside."""
        lines: list[object] = []
        system = "http://planted.example/mrn"
        for number in range(first, first + patients):
            mine = {"system": system, "value": f"MRN-PLANTED-{number:05d}"}
            lines.append(
                {"resourceType": "Patient", "id": f"MRN-PLANTED-{number}", "identifier": [mine]}
            )
            lines.append(
                {
                    "resourceType": "Observation",
                    "id": f"planted-answer-{number}",
                    "status": "final",
                    "code": {"coding": [{"code": "PLANTED-CODE"}]},
                    "subject": {"reference": f"Patient/MRN-PLANTED-{number}"},
                    "effectiveDateTime": "2024-05-01",
                    "valueString": f"planted-answer {number}",
                }
            )
        lines.append({"resourceType": "Observation", "id": "planted-answer-x", "status": "final"})
        file = self.home.folder.parent / "export.ndjson"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"MRN-PLANTED\n')
        make_secret(self.home, None)
        import_fhir([file], self.home.records, secret=SECRET, now=NOW, identifier_system=system)
        with Consents(self.home.records) as consents:
            consents.add_objections([1, 2, 3], NOW)

    def planted(self, marks: Iterable[bytes] = MARKS) -> list[str]:
        """Every file in which a mark can be read."""
        return [
            f"{path.relative_to(self.home.folder)}: {mark.decode()}"
            for path in sorted(self.home.folder.rglob("*"))
            if path.is_file()
            for mark in marks
            if mark in path.read_bytes()
        ]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node without keys and records."""
    os.umask(0o022)
    return Node(tmp_path)
