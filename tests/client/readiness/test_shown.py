"""The page, the text, the JSON and the dashboard's file: whole, and without a patient in them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedtwin_client.readiness.counts import Report
from fedtwin_client.readiness.dqd import dqd_values
from fedtwin_client.readiness.gates import Block, Word, judge
from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness.page import readiness_page
from fedtwin_client.readiness.site import bare
from fedtwin_client.readiness.thresholds import Thresholds
from fedtwin_client.readiness.words import as_values, lines
from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import UnusableError, checked_number
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.store.timeline import Timeline

from .conftest import GLUCOSE, NOW, plan

NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def report(hospital: tuple[Timeline, list[Event]]) -> Report:
    """With things put aside whose reasons quote a record."""
    timeline = hospital[0]
    paths = [timeline.folder / "quarantine" / f"2026030{n}T000000Z.ndjson" for n in (1, 2)]
    for path in paths:  # the same export, imported on two nights
        tally = Tally(quarantine=path)
        for number in range(3):
            reason = f"unit 'MRN-PLANTED-{number}' is not known for glucose"
            tally.put_aside(reason, Place("export.ndjson", number), "MRN-PLANTED")
        for code, unit in ((GLUCOSE, None), (GLUCOSE, "kg"), ("LOINC//2951-2", "furlong")):
            with pytest.raises(UnusableError) as caught:
                checked_number(code, 5.0, unit)
            tally.put_aside(caught.value.reason, Place("export.ndjson", 7), "MRN-PLANTED")
        tally.put_aside(f"odd {NASTY} 19450508", Place("export.ndjson", 9), "MRN-PLANTED")
        tally.close()
    found = measure(timeline, plan(), NOW)
    for path in paths:
        path.unlink()
    return found


@pytest.fixture(scope="module")
def parts(report: Report) -> tuple:
    findings = judge(report, Thresholds())
    blocks = (Block("glucose", f"red {NASTY}"),)
    words = {"sex": Word("block", f"because {NASTY}", "Dr <b>Berg</b>", "2026-03-01T00:00")}
    return report, findings, blocks, words


def test_reasons_are_counted_without_what_they_quote(report: Report) -> None:
    assert report.site.put_aside == {
        "unit … is not known for glucose": 3,
        "no unit for glucose, which is kept in mmol/L": 1,
        "unit … does not fit glucose, kept in mmol/L": 1,
        "unit … is not known for sodium": 1,
        f"odd {NASTY} …": 1,
    }
    assert report.site.refused_units == {"glucose": 5, "sodium": 1}
    glucose, troponin = report.feature("glucose"), report.feature("troponin")
    assert glucose is not None
    assert troponin is not None
    assert (glucose.refused_unit, troponin.refused_unit) == (5, 0)
    assert bare("no unit") == "no unit"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_page_is_whole_and_escaped_and_nothing_of_it_comes_from_elsewhere(parts: tuple) -> None:
    page = readiness_page(*parts)
    found = _Tags()
    found.feed(page)
    assert not {"script", "img", "link", "iframe"} & set(found.tags)
    assert not {"src", "href", "onload"} & found.attributes
    assert NASTY not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") >= 2 + 5
    for feature in parts[0].features:
        assert f"{feature.name}" in page
    for gate in ("unknown unit", "implausible", "coverage", "lag", "outcome events", "unmapped"):
        assert gate in page
    assert "Content-Security-Policy" in page


def test_no_patients_number_and_no_free_text_is_shown(
    hospital: tuple[Timeline, list[Event]], parts: tuple
) -> None:
    report, findings, *_ = parts
    texts = [
        readiness_page(*parts),
        json.dumps(as_values(*parts)),
        json.dumps(dqd_values(report, findings)),
        "\n".join(lines(*parts)),
    ]
    subjects = {str(event.subject_id) for event in hospital[1]}
    for text in texts:
        assert not subjects & set(re.findall(r"\d{6,}", text))
        for mark in ("haemolytic", "MRN-PLANTED", "LOCAL//rare-one", "furlong", "made:"):
            assert mark not in text


def test_the_text_names_what_is_red_and_what_is_blocked(parts: tuple) -> None:
    said = "\n".join(lines(*parts))
    assert "RED  implausible: " in said
    assert "blocked: glucose counts as missing for everybody here" in said
    assert "not compared with other hospitals" in said
    assert "exact duplicates" in said


def test_json_keys_stay_the_same(parts: tuple) -> None:
    value = as_values(*parts)
    assert list(value) == ["report", "findings", "blocked", "words"]
    assert value["report"]["format"] == "fedtwin-readiness-1"
    assert set(value["findings"][0]) == {
        *("feature", "gate", "colour", "failing", "of", "threshold", "text"),
    }
    assert Report.model_validate(json.loads(json.dumps(value["report"]))) == parts[0]


FIELDS = """numViolatedRows pctViolatedRows numDenominatorRows executionTime queryText checkName
checkLevel checkDescription cdmTableName cdmFieldName conceptId unitConceptId sqlFile category
subcategory context warning error checkId failed passed isError notApplicable notApplicableReason
thresholdValue notesValue"""


def test_the_dashboards_file_has_its_fields_and_adds_up(parts: tuple, tmp_path: Path) -> None:
    """Fields as OHDSI's DataQualityDashboard writes them (R/recordResult.R and others)."""
    value = dqd_values(parts[0], parts[1])
    assert {*value} == {
        *("startTimestamp", "endTimestamp", "executionTime"),
        *("CheckResults", "Metadata", "Overview"),
    }
    for result in value["CheckResults"]:
        assert set(result) == set(FIELDS.split())
        assert result["failed"] + result["passed"] + result["notApplicable"] in {0, 1}
        if result["numDenominatorRows"]:
            share = result["numViolatedRows"] / result["numDenominatorRows"]
            assert result["pctViolatedRows"] == share
    names = [result["checkId"] for result in value["CheckResults"]]
    assert len(names) == len(set(names))
    view = value["Overview"]
    assert view["countTotal"] == len(value["CheckResults"])
    judged = [one for one in value["CheckResults"] if not one["notApplicable"]]
    assert view["countPassed"] + view["countOverallFailed"] == len(judged)
    assert view["countOverallFailed"] == sum(one["failed"] for one in judged) > 0
    kinds = ("Plausibility", "Conformance", "Completeness")
    assert sum(view[f"countTotal{kind}"] for kind in kinds) == len(judged)
    red = {(f.feature, f.gate) for f in parts[1] if f.colour == "red" and f.of}
    assert len(red) == view["countOverallFailed"]
