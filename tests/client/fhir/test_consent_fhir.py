"""What FHIR Consents say, and who is left out for it: in doubt, the patient is."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import ImportReport
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.imports import import_fhir

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
PATIENT = pseudonym(SECRET, Identity("fhir", "Patient/1"))
RESEARCH = {"coding": [{"code": "research"}]}
PRIVACY = {"coding": [{"code": "patient-privacy"}]}
TREATMENT = {"coding": [{"code": "treatment"}]}
HRESCH, TREAT = [{"code": "HRESCH"}], [{"code": "TREAT"}]


def consent(provision: Any = None, **fields: Any) -> dict[str, Any]:
    value = {
        "resourceType": "Consent",
        "id": "c1",
        "status": "active",
        "scope": RESEARCH,
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": "Patient/1"},
        "dateTime": "2024-01-01",
    } | fields
    return value if provision is None else value | {"provision": provision}


def load(folder: Path, *resources: dict[str, Any], server: str = "fhir") -> ImportReport:
    file = folder / "consents.ndjson"
    file.write_text("".join(json.dumps(item) + "\n" for item in resources))
    return import_fhir([file], folder / "store", secret=SECRET, now=NOW, server=server)


def standing(folder: Path, now: datetime = NOW) -> str:
    """`in` or `out`, under opt-out and under opt-in."""
    with Consents(folder / "store") as consents:
        out, asked = [], frozenset({PATIENT})
        for rule in ("opt_out", "opt_in"):
            out.append("out" if consents.absent(rule, asked, now) else "in")
    return " ".join(out)


PERMIT, DENY = {"type": "permit"}, {"type": "deny"}
SAID = [
    # What is meant to be clear.
    (consent(PERMIT), "in in"),
    (consent(DENY), "out out"),
    (consent(policyRule={"coding": [{"code": "OPTIN"}]}), "in in"),
    (consent(policyRule={"coding": [{"code": "OPTOUT"}]}), "out out"),
    (consent(PERMIT | {"purpose": HRESCH}, scope=PRIVACY), "in in"),
    (consent(DENY | {"purpose": HRESCH}, scope=TREATMENT), "out out"),
    (consent(PERMIT, scope=PRIVACY, category=[RESEARCH]), "in in"),
    # Not about research.
    (consent(PERMIT, scope=TREATMENT), "in out"),
    (consent(DENY, scope=TREATMENT), "in out"),
    (consent(PERMIT, scope=PRIVACY), "in out"),
    (consent(DENY | {"purpose": TREAT}, scope=PRIVACY), "in out"),
    # A general denial covers research.
    (consent(DENY, scope=PRIVACY), "out out"),
    (consent(DENY, scope=None), "out out"),
    # Status.
    (consent(PERMIT, status="inactive"), "out out"),
    (consent(DENY, status="inactive"), "in out"),
    (consent(PERMIT, status="rejected"), "out out"),
    (consent(PERMIT, status="draft"), "in out"),
    (consent(DENY, status="proposed"), "out out"),
    (consent(DENY, status="entered-in-error"), "in out"),
    # Time.
    (consent(PERMIT | {"period": {"start": "2025-01-01", "end": "2027"}}), "in in"),
    (consent(PERMIT | {"period": {"end": "2025"}}), "out out"),
    (consent(PERMIT | {"period": {"start": "2026-06"}}), "in out"),
    (consent(DENY | {"period": {"end": "2025"}}), "in out"),
    (consent(DENY | {"period": {"start": "2025"}}), "out out"),
    (consent(PERMIT | {"period": {"end": "soon"}}), "out out"),
    (consent(DENY | {"period": "2025"}), "out out"),
    # A part of the record, some purposes, some actors.
    (consent(PERMIT | {"class": [{"code": "Observation"}]}), "out out"),
    (consent(PERMIT | {"code": [{"coding": [{"code": "x"}]}]}), "out out"),
    (consent(PERMIT | {"dataPeriod": {"start": "2020"}}), "out out"),
    (consent(PERMIT | {"purpose": [{"code": "CLINTRCH"}]}), "out out"),
    (consent(PERMIT | {"purpose": TREAT}), "out out"),
    (consent(DENY | {"class": [{"code": "Observation"}]}), "out out"),
    (consent(DENY | {"purpose": [{"code": "DSRCH"}]}, scope=PRIVACY), "out out"),
    # Nested provisions.
    (consent(PERMIT | {"provision": [DENY]}), "out out"),
    (consent(PERMIT | {"provision": [DENY | {"purpose": HRESCH}]}), "out out"),
    (consent(PERMIT | {"provision": [DENY | {"purpose": TREAT}]}), "in in"),
    (consent(DENY | {"provision": [PERMIT | {"purpose": HRESCH}]}), "in in"),
    (consent(DENY | {"provision": [PERMIT | {"purpose": TREAT}]}, scope=PRIVACY), "out out"),
    (consent(DENY | {"provision": [PERMIT | {"code": [{"code": "x"}]}]}), "out out"),
    (consent(PERMIT | {"provision": [PERMIT | {"provision": [DENY]}]}), "out out"),
    (
        consent(
            DENY | {"provision": [PERMIT | {"purpose": HRESCH, "period": {"end": "2025"}}]},
        ),
        "out out",
    ),
    # Whatever is not understood.
    (consent(), "out out"),
    (consent({"type": "allow"}), "out out"),
    (consent([PERMIT]), "out out"),
    (consent(PERMIT, modifierExtension=[{"url": "x"}]), "out out"),
    (consent(PERMIT | {"modifierExtension": [{"url": "x"}]}), "out out"),
    (consent(PERMIT, verification=[{"verified": False}]), "out out"),
    (consent(PERMIT, verification=[{"verified": True}]), "in in"),
]


@pytest.mark.parametrize(("resource", "expected"), SAID, ids=range(len(SAID)))
def test_what_a_consent_means(tmp_path: Path, resource: dict[str, Any], expected: str) -> None:
    load(tmp_path, resource)
    assert standing(tmp_path) == expected


def test_a_denial_wins_over_a_permission_and_a_permission_over_a_doubt(tmp_path: Path) -> None:
    load(tmp_path, consent(PERMIT), consent(DENY, id="c2"))
    assert standing(tmp_path) == "out out"
    load(tmp_path, consent(DENY, id="c2", status="inactive"))
    assert standing(tmp_path) == "in in"
    load(tmp_path, consent(PERMIT | {"period": {"end": "2025"}}, id="c3"))
    assert standing(tmp_path) == "in in"


def test_the_newest_version_counts_and_replaces_what_was_said(tmp_path: Path) -> None:
    newer = consent(DENY, meta={"lastUpdated": "2026-02-02T00:00:00Z"})
    older = consent(PERMIT, meta={"lastUpdated": "2026-01-01T00:00:00Z"})
    load(tmp_path, newer, older)
    assert standing(tmp_path) == "out out"
    load(tmp_path, consent(PERMIT, meta={"lastUpdated": "2026-02-03T00:00:00Z"}))
    assert standing(tmp_path) == "in in"
    report = load(tmp_path, consent(status="entered-in-error"))
    assert standing(tmp_path) == "in out"
    assert report.reasons["a Consent that says nothing of research"] == 1


def test_a_consent_starts_and_ends_with_its_time(tmp_path: Path) -> None:
    load(tmp_path, consent(PERMIT | {"period": {"start": "2025-01-01", "end": "2026-12-31"}}))
    with Consents(tmp_path / "store") as consents:
        asked = frozenset({PATIENT})
        seen = []
        for year, month, day in ((2024, 6, 1), (2026, 3, 1), (2026, 12, 31), (2027, 1, 1)):
            now = datetime(year, month, day, 12, tzinfo=UTC)
            seen.append(PATIENT not in consents.absent("opt_in", asked, now))
        back = PATIENT not in consents.absent("opt_in", asked, NOW)
    assert (seen, back) == ([False, True, True, False], True)


def test_a_consent_that_cannot_be_used_is_put_aside(tmp_path: Path) -> None:
    report = load(
        tmp_path,
        consent(DENY, id="a", patient={"reference": "Group/1"}),
        consent(DENY, id="b", status="perhaps"),
        consent(DENY, id="c", patient=None),
    )
    assert report.quarantine is not None
    assert report.reasons["a Consent without a status that FHIR knows"] == 1
    assert report.reasons["no patient"] == 1
    assert report.read == {"Consent": 3}
