"""Each measure against plain Python over the same records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.stats import ks_2samp

from fedtwin_client.readiness.counts import BINS, FeatureCounts, Report
from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness.reference import LEVELS, Reference
from fedtwin_client.records.events import BIRTH, DEATH, SEX, Event
from fedtwin_client.store.timeline import Timeline

from .conftest import EVENT, GLUCOSE, NOW, TROPONIN, VISIT, plan

CODES = {
    "glucose": GLUCOSE,
    "troponin": TROPONIN,
    "smoker": "SNOMED//77176002",
    "diabetes": "SNOMED//44054006",
    "pain": "LOCAL//pain",
}
Hospital = tuple[Timeline, list[Event]]


def number(event: Event) -> float | None:
    """The value in the feature's unit; ug/L are ng/mL."""
    known = event.unit in {"mmol/L", "ng/mL", "ug/L"}
    return event.numeric_value if known else None


def plausible(name: str, event: Event) -> bool:
    if name == "glucose":
        value = number(event)
        return value is not None and 1 <= value <= 40
    if name == "troponin":
        value = number(event)
        return value is not None and 0 <= value <= 100
    if name == "smoker":
        return event.numeric_value in {0.0, 1.0}
    return name == "diabetes" or event.text_value in {"none", "typical"}


def valued(name: str, event: Event) -> bool:
    if name in {"glucose", "troponin"}:
        return number(event) is not None
    if name == "smoker":
        return event.numeric_value is not None
    return name == "pain" and event.text_value is not None


@pytest.fixture(scope="module")
def report(hospital: Hospital) -> Report:
    return measure(hospital[0], plan(), NOW)


@pytest.fixture(scope="module")
def lives(hospital: Hospital) -> dict[str, dict[int, datetime]]:
    return {
        code: {e.subject_id: e.time for e in hospital[1] if e.code == code and e.time}
        for code in (BIRTH, DEATH)
    }


def of(report: Report, name: str) -> FeatureCounts:
    found = report.feature(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", CODES)
def test_rows_and_their_defects(
    hospital: Hospital, report: Report, lives: dict[str, dict[int, datetime]], name: str
) -> None:
    mine = [event for event in hospital[1] if event.code == CODES[name]]
    counts = of(report, name)

    def count(holds: Callable[[Event], bool]) -> int:
        return sum(holds(event) for event in mine)

    def late(event: Event, code: str) -> bool:
        end = lives[code].get(event.subject_id)
        assert event.time is not None
        return end is not None and (event.time < end if code == BIRTH else event.time > end)

    assert counts.rows == len(mine) > 10
    assert counts.subjects == len({event.subject_id for event in mine})
    assert counts.values == count(lambda e: valued(name, e))
    assert counts.implausible == count(lambda e: valued(name, e) and not plausible(name, e))
    assert counts.future == count(lambda e: e.time > NOW or e.available_time > NOW)
    assert counts.before_birth == count(lambda e: late(e, BIRTH))
    assert counts.after_death == count(lambda e: late(e, DEATH))
    assert counts.comparator == count(lambda e: e.comparator is not None)
    keys = Counter((e.subject_id, e.time, e.numeric_value, e.text_value, e.unit) for e in mine)
    assert counts.duplicates == sum(n - 1 for n in keys.values())
    assert counts.newest == max(e.time for e in mine if e.time <= NOW)
    unknown = count(lambda e: e.unit == "furlong")
    assert counts.unknown_unit == unknown
    expected = 0 if name == "diabetes" else counts.rows - counts.values - unknown
    assert counts.null == expected
    asked = {"glucose": "mmol/L", "troponin": "ng/mL"}.get(name)
    converted = count(lambda e: e.src_unit not in {None, asked, "furlong"}) if asked else 0
    assert counts.converted == converted


def test_every_defect_was_there(report: Report) -> None:
    """Otherwise the counts above prove nothing."""
    glucose, troponin = of(report, "glucose"), of(report, "troponin")
    for what in ("null", "converted", "implausible", "future", "before_birth", "after_death",
                 "duplicates"):  # fmt: skip
        assert getattr(glucose, what) > 0, what
    assert troponin.unknown_unit > 0
    assert troponin.comparator > 0
    assert of(report, "smoker").implausible > 0
    assert of(report, "pain").implausible > 0


@pytest.mark.parametrize("name", ["glucose", "troponin"])
def test_percentiles_delays_histogram_and_months(
    hospital: Hospital, report: Report, name: str
) -> None:
    mine = [event for event in hospital[1] if event.code == CODES[name]]
    values = np.array([v for event in mine if (v := number(event)) is not None])
    counts = of(report, name)
    found = (counts.p01, counts.p50, counts.p99)
    assert found == pytest.approx(tuple(np.quantile(values, [0.01, 0.5, 0.99])))
    delays = [(e.available_time - e.time) / timedelta(days=1) for e in mine]
    assert (counts.delay_p50_days, counts.delay_p95_days) == pytest.approx(
        tuple(np.quantile(delays, [0.5, 0.95]))
    )
    low, high = plan().features[list(CODES).index(name)].plausible or (0, 0)
    places = np.where(
        values < low,
        0,
        np.where(
            values > high, BINS + 1, 1 + np.minimum(BINS - 1, BINS * (values - low) // (high - low))
        ),
    )
    assert counts.histogram == tuple(np.bincount(places.astype(int), minlength=BINS + 2).tolist())
    months = Counter(f"{e.time:%Y-%m}" for e in mine if e.time <= NOW)
    assert dict(counts.months) == months
    assert list(counts.months) == sorted(counts.months)


def index_dates(events: list[Event]) -> dict[int, datetime]:
    return {e.subject_id: e.time for e in events if e.code == VISIT and e.time}


def test_the_cohort_its_outcomes_and_the_look_back(hospital: Hospital, report: Report) -> None:
    """Everybody has a birth date and one visit, nobody died before it."""
    indexes = index_dates(hospital[1])
    assert report.cohort is not None
    assert report.cohort.patients == len(indexes)
    happened = {
        e.subject_id
        for e in hospital[1]
        if e.code == EVENT
        and indexes[e.subject_id] < e.time <= indexes[e.subject_id] + timedelta(30)
    }
    assert report.cohort.events == len(happened) > 0
    assert report.cohort.mean == pytest.approx(len(happened) / len(indexes))
    years = Counter(time.year for time in indexes.values())
    assert {one.year: one.patients for one in report.cohort.years} == years
    ill = Counter(indexes[subject].year for subject in happened)
    assert {one.year: one.events for one in report.cohort.years if one.events} == ill
    for name, code in CODES.items():
        days = 365 if name == "glucose" else 10**5
        having = {
            e.subject_id
            for e in hospital[1]
            if e.code == code and plausible(name, e)
            and e.time <= indexes[e.subject_id] and e.available_time <= indexes[e.subject_id]
            and e.time >= indexes[e.subject_id] - timedelta(days)
        }  # fmt: skip
        assert of(report, name).covered == len(having) > 0, name
    sexes = {e.subject_id for e in hospital[1] if e.code == SEX}
    assert of(report, "sex").covered == len(sexes & set(indexes))
    assert of(report, "age").covered == len(indexes)


def test_the_site_and_its_local_codes(hospital: Hospital, report: Report) -> None:
    events, site = hospital[1], report.site
    assert site.rows == len(events)
    assert site.subjects == len({e.subject_id for e in events})
    assert site.newest == max(e.time for e in events if e.time and e.time <= NOW)
    assert site.coded == sum(e.code not in {BIRTH, DEATH, SEX} for e in events)
    local = Counter(e.code for e in events if e.code in {"LOCAL//odd", "LOCAL//rare-one"})
    assert site.unmapped == sum(local.values()), "codes that the plan asks for are mapped"
    assert local["LOCAL//rare-one"] > 0
    assert [(one.code, one.rows) for one in site.commonest] == [("LOCAL//odd", local["LOCAL//odd"])]


def test_drift_is_the_two_sample_distance(hospital: Hospital, report: Report) -> None:
    newest = report.site.newest
    assert newest is not None
    near: tuple[list[float], list[float]] = ([], [])
    for event in hospital[1]:
        if event.code == GLUCOSE and plausible("glucose", event) and event.time <= newest:
            age = (newest - event.time) / timedelta(days=1)
            if age < 60:
                near[age >= 30].append(event.numeric_value)
    counts = of(report, "glucose")
    assert counts.recent == (len(near[0]), len(near[1]))
    assert counts.drift is None, "too few values to say"


def test_drift_with_enough_values(tmp_path, hospital: Hospital) -> None:
    from .conftest import store

    draw = np.random.default_rng(3)
    events = [
        Event(subject_id=n % 3, time=NOW - timedelta(days=1 + draw.uniform(0, 58)), code=GLUCOSE,
              unit="mmol/L", source=f"made:{n}#0", available_time=NOW,
              numeric_value=float(np.round(draw.normal(6, 1.5), 1)))
        for n in range(400)
    ]  # fmt: skip
    found = of(measure(store(tmp_path / "records", events), plan(), NOW), "glucose")
    newest = max(e.time for e in events)
    late = [e.numeric_value for e in events if newest - e.time < timedelta(days=30)]
    early = [e.numeric_value for e in events if newest - e.time >= timedelta(days=30)]
    assert found.recent == (len(late), len(early))
    assert found.drift == pytest.approx(ks_2samp(late, early).statistic)


@pytest.mark.parametrize("shift", [0.0, 1.0, 30.0])
def test_the_distance_from_a_reference(hospital: Hospital, shift: float) -> None:
    values = np.array(
        [e.numeric_value for e in hospital[1] if e.code == GLUCOSE and plausible("glucose", e)]
    )
    quantiles = np.quantile(values, LEVELS, method="inverted_cdf") + shift
    reference = Reference(name="ref.json", quantiles={"glucose": tuple(quantiles.tolist())})
    report = measure(hospital[0], plan(), NOW, reference)
    expected = max(
        max((values < q).mean() - level, level - (values <= q).mean(), 0)
        for q, level in zip(quantiles, LEVELS, strict=True)
    )
    assert of(report, "glucose").ks == pytest.approx(expected)
    assert (expected == 0) == (shift == 0)
    assert of(report, "troponin").ks is None
    assert report.reference == "ref.json"


def test_a_cohort_that_cannot_be_built_is_said_and_the_rest_is_counted(hospital: Hospital) -> None:
    late = plan(cohort__index={"date": "2030-01-01T00:00:00Z"})
    report = measure(hospital[0], late, NOW)
    assert report.cohort is None
    assert "is to come" in report.cohort_fault
    assert of(report, "glucose").covered is None
    assert of(report, "glucose").rows > 0
