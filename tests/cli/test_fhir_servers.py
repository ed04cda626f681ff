"""FHIR servers, quarantine and merged patients at the command line."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ..client.fhir.fhir_double import Double, Say, double, gives_tokens

PEOPLE = [
    {"resourceType": "Patient", "id": "a", "birthDate": "1960-01-01"},
    {"resourceType": "Patient", "id": "b", "birthDate": "1960-01-01"},
]


def observation(number: int, unit: str = "mg/dL") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "subject": {"reference": "Patient/a"},
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": 200, "unit": unit},
    }


def lines(*resources: dict[str, Any]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in resources).encode()


@pytest.fixture
def server() -> Iterator[Double]:
    with double() as found:
        found.date = datetime.now(UTC)
        yield found


def offers(server: Double, *resources: dict[str, Any], severity: str | None = None) -> None:
    server.on(
        "/fhir/Patient/$export",
        Say(status=202, headers={"Content-Location": f"{server.base}/status"}),
    )
    files = [{"type": "Patient", "url": f"{server.origin}/f", "count": len(resources)}]
    manifest = {
        "transactionTime": "2026-03-01T10:00:00Z",
        "requiresAccessToken": True,
        "output": files,
        "error": [{"type": "OperationOutcome", "url": f"{server.origin}/e"}] if severity else [],
    }
    issue = {"severity": severity, "code": "exception", "diagnostics": "one file is left out"}
    server.on("/e", Say(lines({"resourceType": "OperationOutcome", "issue": [issue]})))
    server.on("/fhir/status", Say(manifest))
    server.on("/f", Say(lines(*resources)))


def test_a_key_is_made_registered_and_used_for_a_nightly_export(
    server: Double, node: Path, type_in: Callable[..., Any], refused: Callable[..., Any]
) -> None:
    here = ("--home", node, "--name", "epic")
    made = type_in("client", "records", "fhir-key", *here)
    assert made.status == 0
    jwks = json.loads(made.out)
    assert json.loads(type_in("client", "records", "fhir-key", *here, "--show").out) == jwks
    assert "is there already" in refused("client", "records", "fhir-key", *here).err
    gives_tokens(server, jwks)
    offers(server, *PEOPLE, observation(1))
    fetch = ("client", "records", "fhir-server", server.base, *here, "--client-id", "node")
    assert "leave it out the first time" in refused(*fetch, "--since", "last").err
    done = type_in(*fetch)
    assert done.status == 0, done.err
    assert "events         3" in done.out
    assert server.requests[-1].method == "DELETE"
    offers(server, observation(2))
    done = type_in(*fetch, "--since", "last")
    assert done.status == 0, done.err
    asked = server.asked("/fhir/Patient/$export")[-1]
    assert asked.query["_since"] == ["2026-03-01T10:00:00Z"]
    assert (
        "use another --name"
        in refused(
            *(
                "client",
                "records",
                "fhir-server",
                f"{server.origin}/other",
                *here,
                "--since",
                "last",
            )
        ).err
    )


def test_what_the_server_left_out_is_asked_for_again(
    server: Double, node: Path, type_in: Callable[..., Any], refused: Callable[..., Any]
) -> None:
    made = type_in("client", "records", "fhir-key", "--home", node, "--name", "epic")
    gives_tokens(server, json.loads(made.out))
    fetch = ("client", "records", "fhir-server", server.base, "--home", node, "--name", "epic")
    fetch = (*fetch, "--client-id", "node")
    offers(server, *PEOPLE, observation(1), severity="error")
    done = type_in(*fetch)
    assert "1  the server could not export something" in done.out
    assert "'--since last' does not count this import" in done.out
    assert "leave it out the first time" in refused(*fetch, "--since", "last").err
    offers(server, *PEOPLE, severity="warning")
    done = type_in(*fetch)
    assert "1  the server warns of what it sent" in done.out
    assert "does not count" not in done.out
    assert type_in(*fetch, "--since", "last").status == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http://fhir.example.org/r4",), "is not encrypted"),
        (("https://127.0.0.1:1/r4", "--name", "A B"), "expected a server name"),
        (("https://127.0.0.1:1/r4", "--client-id", "x"), "cannot be reached"),
        (("https://127.0.0.1:1/r4", "--since", "soon"), "expected --since as a time"),
        (("https://127.0.0.1:1/r4", "--since", "2026-01-01T00:00:00"), "names no time zone"),
        (("https://127.0.0.1:1/r4", "--search"), "name the resource types"),
        (("https://127.0.0.1:1/r4", "--group", "../x"), "expected a group's id"),
        (("https://127.0.0.1:1/r4", "--ca", "none.pem"), "cannot use none.pem as the CA"),
        (("https://127.0.0.1:1/r4", "--proxy", "proxy:80"), "expected a proxy such as"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    node: Path,
    refused: Callable[..., Any],
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert said in refused("client", "records", "fhir-server", *words, "--home", node).err


def test_a_search_comes_in(server: Double, node: Path, type_in: Callable[..., Any]) -> None:
    for kind, found in (("Patient", PEOPLE), ("Observation", [observation(1)])):
        entries = [{"resource": one} for one in found]
        server.on(f"/fhir/{kind}", Say({"resourceType": "Bundle", "entry": entries}))
    done = type_in(
        *("client", "records", "fhir-server", server.base, "--home", node, "--search"),
        *("--type", "Patient", "--type", "Observation"),
    )
    assert (done.status, "events         3" in done.out) == (0, True)
    assert list((node / "records" / "downloads" / "fhir").iterdir()) == []


def test_mending_and_replaying(
    node: Path, tmp_path: Path, type_in: Callable[..., Any], refused: Callable[..., Any]
) -> None:
    (tmp_path / "a.ndjson").write_bytes(lines(*PEOPLE, observation(1, "apples")))
    home = ("--home", node)
    type_in("client", "records", "fhir", tmp_path / "a.ndjson", *home)
    name = type_in("client", "records", "quarantine", *home).out.strip()
    out = tmp_path / "mend.ndjson"
    told = type_in("client", "records", "quarantine", name, "--export", out, *home)
    assert f"fedtwin client records replay {out}" in told.out.replace("\n", "")
    out.write_text(out.read_text().replace("apples", "mg/dL"))
    assert "events         1" in type_in("client", "records", "replay", out, *home).out
    assert "0 lines, 1 replayed" in type_in("client", "records", "quarantine", *home).out
    assert "no quarantine file" in refused("client", "records", "quarantine", "x", *home).err
    assert (
        "name the quarantine file"
        in type_in("client", "records", "quarantine", "--export", tmp_path / "n", *home).err
    )


def test_merged_patients_are_listed_and_parted(
    node: Path, tmp_path: Path, type_in: Callable[..., Any], refused: Callable[..., Any]
) -> None:
    home = ("--home", node)
    assert "no patient was merged" in type_in("client", "records", "merged", *home).out
    link = {"link": [{"type": "replaced-by", "other": {"reference": "Patient/b"}}]}
    (tmp_path / "a.ndjson").write_bytes(lines(PEOPLE[0] | link, PEOPLE[1], observation(1)))
    type_in("client", "records", "fhir", tmp_path / "a.ndjson", *home)
    listed = type_in("client", "records", "merged", *home).out
    assert "Patient/a (fhir) is Patient/b (fhir) since" in listed
    assert (
        "a patient by themselves again" in type_in("client", "records", "unmerge", "a", *home).out
    )
    assert "was not merged" in refused("client", "records", "unmerge", "a", *home).err
