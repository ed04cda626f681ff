"""The official tests of SQL on FHIR v2 (github.com/FHIR/sql-on-fhir-v2 at 49fc1ad, 134 cases)."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.views.definition import parse_view
from fedtwin_client.records.views.functions import EvaluationError
from fedtwin_client.records.views.running import View
from fedtwin_protocol.errors import RecordError

OFFICIAL = Path(__file__).parents[4] / "shared" / "data" / "sql_on_fhir_tests"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
# File and title of every case that fails, with the reason; the list can only shrink.
KNOWN_FAILURES: dict[tuple[str, str], str] = {}


def rows_of(view: dict[str, Any], resources: list[dict[str, Any]]) -> tuple[list[str], list[Any]]:
    ready = View(parse_view(view, "v.json"), "v.json", NOW)
    return [column.name for column in ready.columns], [
        row for resource in resources for row in ready.rows(resource)
    ]


def passes(case: dict[str, Any], resources: list[dict[str, Any]]) -> bool:
    try:
        names, rows = rows_of(case["view"], resources)
    except (RecordError, EvaluationError):
        return bool(case.get("expectError"))
    if case.get("expectError"):
        return False
    found, wanted = (
        sorted(json.dumps(row, sort_keys=True) for row in some) for some in (rows, case["expect"])
    )
    return found == wanted and names == case.get("expectColumns", names)


def cases() -> Iterator[tuple[tuple[str, str], bool]]:
    for file in sorted(OFFICIAL.glob("*.json")):
        suite = json.loads(file.read_text())
        for case in suite["tests"]:
            yield (file.name, case["title"]), passes(case, suite["resources"])


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the shared data sets are not here")
def test_every_official_case_passes_but_those_that_are_named() -> None:
    results = list(cases())
    assert len(results) == 134
    assert {key for key, passed in results if not passed} == set(KNOWN_FAILURES)
