"""A study's features beside a plain reading of the timeline, value by value."""

import json
import math
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from fedtwin_client.cohort.gathering import gather
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.study_patients import Cohort, Endpoint, IndexDate

NOW = datetime(2026, 3, 1, tzinfo=UTC)
START = datetime(2020, 1, 1, tzinfo=UTC)
CODES = {"a": "2093-3", "b": "2085-9"}
SUMMARIES = ("last", "first", "mean", "min", "max")


class Plan:
    """What selection and features read of a plan."""

    study = "t"
    sequence = None

    def __init__(self, features: tuple[Feature, ...], index: IndexDate) -> None:
        self.features = features
        self.cohort = Cohort(index=index)
        self.endpoint = Endpoint(
            name="d",
            kind="event",
            codes=("MEDS//DEATH",),
            horizon_days=9,
            require_follow_up=False,
        )


def numbers(days: int | None, plausible: tuple[float, float]) -> list[Feature]:
    return [
        Feature(
            name=f"{lab}_{summary}_{days or 0}",
            kind="number",
            codes=(f"LOINC//{code}",),
            unit="mmol/L",
            plausible=plausible,
            window_days=days,
            summary=summary,
        )
        for lab, code in CODES.items()
        for summary in SUMMARIES
    ]


def other(name: str, kind: Any, code: str, **more: Any) -> Feature:
    return Feature(name=name, kind=kind, codes=(f"LOCAL//{code}",), **more)


@pytest.fixture(scope="module")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    folder = tmp_path_factory.mktemp("features")
    chance = random.Random(3)
    lines = [
        {"resourceType": "Patient", "id": str(n), "birthDate": "1960-02-03", "gender": "male"}
        for n in range(12)
    ]
    for number in range(1_500):
        happened = START + timedelta(hours=chance.randrange(40_000))
        known = happened + timedelta(hours=chance.choice([0, 0, 5, 20_000]))
        kind = chance.choice(["a", "a", "b", "flag", "category", "index"])
        line: dict[str, Any] = {
            "resourceType": "Observation",
            "id": f"o{number}",
            "status": "final",
            "subject": {"reference": f"Patient/{chance.randrange(12)}"},
            "effectiveDateTime": happened.isoformat(),
            "issued": min(known, NOW).isoformat(),
        }
        if kind in CODES:
            line["code"] = {"coding": [{"system": "http://loinc.org", "code": CODES[kind]}]}
            unit = chance.choice(["mg/dL", "mmol/L"])
            amount = round(chance.uniform(0.5, 12) * (1 if unit == "mmol/L" else 38.67), 2)
            line["valueQuantity"] = {"value": amount, "unit": unit}
        else:
            line["code"] = {"coding": [{"code": kind}]}
            if kind == "flag":
                line["valueBoolean"] = chance.random() < 0.5
            if kind == "category":
                line["valueString"] = chance.choice("xyz")
        lines.append(line)
    file = folder / "o.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    import_fhir([file], folder / "store", secret=b"s" * 32, now=NOW)
    return Timeline.open(folder / "store")


def expected(
    timeline: Timeline, feature: Feature, indexes: dict[int, datetime]
) -> tuple[dict[int, Any], int]:
    """By patient, in the order that the store keeps; and how many are implausible."""
    found: dict[int, list[Any]] = defaultdict(list)
    outside = 0
    for event in timeline.events(codes=feature.codes).to_pylist():
        index = indexes.get(event["subject_id"])
        if index is None or event["time"] > index or event["available_time"] > index:
            continue
        days = feature.window_days
        if days is not None and event["time"] < index - timedelta(days=days):
            continue
        value = event["text_value"] if feature.kind == "category" else event["numeric_value"]
        value = 1.0 if feature.kind == "presence" else value
        if feature.plausible and not feature.plausible[0] <= value <= feature.plausible[1]:
            outside += 1
            continue
        found[event["subject_id"]].append(value)
    take: dict[str, Any] = {
        "last": lambda v: v[-1],
        "first": lambda v: v[0],
        "min": min,
        "max": max,
    }
    take["mean"] = lambda values: math.fsum(values) / len(values)
    return {who: take[feature.summary](values) for who, values in found.items()}, outside


@pytest.mark.parametrize(
    "index",
    [
        IndexDate(date=datetime(2023, 5, 1, tzinfo=UTC)),
        IndexDate(codes=("LOCAL//index",), which="first"),
        IndexDate(codes=("LOCAL//index",), which="last"),
    ],
)
def test_every_summary_is_that_of_what_was_known(timeline: Timeline, index: IndexDate) -> None:
    features = (
        *numbers(200, (1.0, 9.0)),
        *numbers(None, (0.0, 100.0)),
        other("yes_last", "flag", "flag"),
        other("yes_mean", "flag", "flag", summary="mean", window_days=30),
        other("word_last", "category", "category", categories=("x", "y", "z")),
        other("word_first", "category", "category", categories=("x", "y", "z"), summary="first"),
        other("here", "presence", "index", window_days=365),
    )
    assert compared(timeline, features, index) > 150


def test_one_date_and_one_window_for_all(timeline: Timeline) -> None:
    index = IndexDate(date=datetime(2023, 5, 1, tzinfo=UTC))
    assert compared(timeline, tuple(numbers(200, (1.0, 9.0))), index) > 80


def compared(timeline: Timeline, features: tuple[Feature, ...], index: IndexDate) -> int:
    """Compare every value; how many there were."""
    plan: Any = Plan(features, index)
    found = gather(PatientColumns(timeline=timeline), plan, NOW.replace(tzinfo=None))
    selected, raw = found.selected, found.features
    assert len(selected.subject_ids) == 12
    moments = selected.index.astype("datetime64[us]").tolist()
    indexes = dict(zip(selected.subject_ids.tolist(), moments, strict=True))
    count = 0
    for feature in features:
        values, outside = expected(timeline, feature, indexes)
        column = raw.columns[feature.name]
        for who, value in zip(selected.subject_ids.tolist(), column, strict=True):
            wanted = values.get(who, {"presence": 0.0, "category": None}.get(feature.kind, np.nan))
            same = value == wanted or (
                feature.kind in {"number", "flag"} and who not in values and math.isnan(value)
            )
            close = feature.summary == "mean" and math.isclose(value, wanted, rel_tol=1e-14)
            assert same or close, (feature.name, value, wanted)
            count += who in values
        assert raw.implausible.get(feature.name, 0) == outside
    return count


def test_the_feature_whose_unit_does_not_fit_is_named(timeline: Timeline) -> None:
    feature = numbers(None, (0, 9))[0].model_copy(update={"name": "odd", "unit": "kg"})
    plan: Any = Plan((*numbers(None, (0, 9)), feature), IndexDate(date=NOW))
    with pytest.raises(CohortError, match="feature 'odd' is asked for in 'kg', but"):
        gather(PatientColumns(timeline=timeline), plan, NOW.replace(tzinfo=None))


def test_files_say_which_units_they_hold(timeline: Timeline) -> None:
    """What the files say of themselves is what counting all events finds."""
    by_code: dict[str, Counter[str]] = defaultdict(Counter)
    for event in timeline.events().to_pylist():
        if event["numeric_value"] is not None:
            by_code[event["code"]][event["unit"] or ""] += 1
    expected = {code: sorted(counts.items()) for code, counts in by_code.items()}
    assert PatientColumns(timeline=timeline).units() == expected
