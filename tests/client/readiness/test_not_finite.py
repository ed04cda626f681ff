"""Numbers that are none, as older imports could leave them: counted, named, and in nobody's way."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedtwin_client.readiness.gates import judge
from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness.rows import failing_rows
from fedtwin_client.readiness.thresholds import Thresholds

from .conftest import GLUCOSE, NOW, TROPONIN, made_events, plan, store

ODD = (math.inf, -math.inf, math.nan, 1e308)


@pytest.mark.parametrize("odd", [ODD, (math.inf,) * 8, (math.nan,) * 8])
def test_a_report_is_made_of_an_old_store(tmp_path: Path, odd: tuple[float, ...]) -> None:
    sound = [event for event in made_events(patients=40) if event.code in {GLUCOSE, TROPONIN}]
    glucose = [one for one in sound if one.code == GLUCOSE and one.numeric_value is not None]
    troponin = [one for one in sound if one.code == TROPONIN and one.unit in {"ug/L", "ng/mL"}]
    wrong = [
        replace(one, numeric_value=value, source=f"{one.source}/{n}")
        for part in (glucose, troponin)
        for n, (one, value) in enumerate(zip(part[: len(odd)], odd, strict=True))
    ]
    before = measure(store(tmp_path / "before", sound), plan(), NOW)
    timeline = store(tmp_path / "after", [*sound, *wrong])
    report = measure(timeline, plan(), NOW)
    assert type(report).model_validate_json(report.model_dump_json()) == report
    none = sum(not math.isfinite(value) for value in odd)
    for name in ("glucose", "troponin"):
        found, was = report.feature(name), before.feature(name)
        assert found is not None
        assert was is not None
        assert (found.not_finite, was.not_finite) == (none, 0)
        assert found.values == was.values + len(odd)
        assert found.implausible == was.implausible + len(odd)
        assert sum(found.histogram) == found.values
        rows, number = failing_rows(timeline, plan(), NOW, name, "implausible", 10_000)
        assert number == found.implausible
        assert sum(row.value.lstrip("<>=-") in {"inf", "nan"} for row in rows) == none
        if len(odd) == none:
            assert (found.p01, found.p50, found.p99) == (was.p01, was.p50, was.p99)
    said = [one.text for one in judge(report, Thresholds()) if one.gate == "implausible"]
    assert f"{none} of them no finite number" in said[0]
