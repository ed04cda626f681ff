"""What is read from sorted columns is what SQL finds in the same store, on odd records.

Ties, late and unknown times, several units, numbers that are none, corrected, withdrawn, repeated
and live records; whole and cut into pieces.
"""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from fedtwin_client.cohort import features
from fedtwin_client.cohort.conversions import TIDY, converted
from fedtwin_client.cohort.gathering import Gathered, gather
from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store import commit, pieces
from fedtwin_client.store.commit import take_over
from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_client.store.staging import Staging
from fedtwin_client.store.tail import Batch, Tail
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import RecordError
from fedtwin_protocol.study import StudyPlan

from .conftest import even_empty, plan
from .in_sql import InSql

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=40)
SUBJECTS = (1, 2, 65, 66, 2**62 + 5)  # some share a file
GLUCOSE, OTHER = "LOINC//2339-0", "LOINC//2345-7"
SUMMARIES = ("last", "first", "mean", "min", "max", "count")
BORN = [None, START - timedelta(days=12_000), datetime(2000, 2, 29, 5, tzinfo=UTC), NOW]


def feature(name: str, kind: Any, code: str, **more: Any) -> Feature:
    return Feature(name=name, kind=kind, codes=(code,), **more)


FEATURES = (
    *(
        feature(
            f"glucose_{summary}_{days or 0}", "number", GLUCOSE, unit="mmol/L",
            plausible=(1.0, 20.0), window_days=days, summary=summary,
        )
        for summary in SUMMARIES
        for days in (None, 10)
    ),
    Feature(
        name="either", kind="number", codes=(GLUCOSE, OTHER), unit="mg/dL",
        plausible=(20.0, 300.0), summary="mean",
    ),
    feature("flag", "flag", "LOCAL//flag"),
    feature("flag_mean", "flag", "LOCAL//flag", summary="mean", window_days=5),
    feature("here", "presence", "LOCAL//visit", window_days=7),
    feature("visits", "presence", "LOCAL//visit", summary="count"),
    feature("word", "category", "LOCAL//word", categories=("a", "b", "1")),
    feature("first_word", "category", "LOCAL//word", categories=("a", "b"), summary="first",
            window_days=10),
    feature("sex", "sex", "SEX//any"),
)  # fmt: skip

days = st.sampled_from([None, -1.0, 0.0, 0.0, 0.5, 1.0, 5.0, 10.0, 20.0, 20.0, 30.0, 39.0, 41.0])
delays = st.sampled_from([None, 0.0, 0.0, 0.0, 1.0, 25.0])
said = st.one_of(
    st.tuples(
        st.sampled_from([GLUCOSE, OTHER]),
        st.sampled_from([None, 0.9, 5.5, 5.5, 7.77, 20.0, 99.0, math.nan]),
        st.just("mmol/L"),
        st.none(),
    ),
    st.tuples(
        st.just(GLUCOSE), st.sampled_from([18.0, 99.1, 140.0, 1800.0]), st.just("mg/dL"), st.none()
    ),
    st.tuples(
        st.just("LOCAL//flag"),
        st.sampled_from([None, 0.0, 1.0, 2.0, math.nan, math.inf]),
        st.none(),
        st.none(),
    ),
    st.tuples(st.just("LOCAL//word"), st.none() | st.just(1.0), st.none(),
              st.sampled_from([None, "a", "b", "else"])),
    st.tuples(st.sampled_from(["LOCAL//visit", "LOCAL//visit", "LOCAL//event", "MEDS_DEATH"]),
              st.none(), st.none(), st.none()),
    st.tuples(st.just("SEX"), st.none(), st.none(), st.sampled_from(["male", "female", "odd"])),
)  # fmt: skip
event = st.tuples(st.sampled_from(range(len(SUBJECTS))), days, delays, said)
record = st.tuples(st.sampled_from("abcdefgh"), st.lists(event, max_size=6))
history = st.lists(
    st.tuples(st.sampled_from(["import", "import", "live"]), st.lists(record, max_size=6)),
    min_size=1,
    max_size=4,
)
births = st.tuples(*[st.sampled_from(BORN)] * len(SUBJECTS))


def made(origin: str, rows: list[Any]) -> Version:
    events = []
    for number, (who, day, delay, (code, value, unit, text)) in enumerate(rows):
        time = None if day is None else START + timedelta(days=day)
        known = None if delay is None else (time or START) + timedelta(days=delay)
        events.append(
            Event(
                subject_id=SUBJECTS[who], time=time, code=code, source=f"{origin}#{number}",
                numeric_value=value, text_value=text, available_time=known,
                unit=None if value is None else unit,
            )
        )  # fmt: skip
    return Version(origin=origin, updated=None, events=events)


def store_of(folder: Path, born: tuple[Any, ...], steps: list[Any]) -> Timeline:
    """Import by import; what comes live stays live until an import takes the record over."""
    people = [
        ("import", [made(f"born{who}", [(who, 0.0, 0.0, ("LOCAL//known", None, None, None))])])
        for who in range(len(SUBJECTS))
    ]
    for who, birth in enumerate(born):
        if birth is not None:
            event = Event(subject_id=SUBJECTS[who], time=birth, code="MEDS_BIRTH",
                          source=f"birth{who}#0", available_time=START)  # fmt: skip
            people.append(("import", [Version(origin=f"birth{who}", updated=None, events=[event])]))
    whole = [one for _, versions in people for one in versions]
    _take(folder, whole)
    for kind, records in steps:
        versions = [made(origin, rows) for origin, rows in records]
        if kind == "import":
            _take(folder, versions)
        elif versions:
            with Tail(folder) as tail:
                tail.add([Batch(door="ward", versions=versions)], frozenset(), NOW)
    return Timeline.open(folder)


def _take(folder: Path, versions: list[Version]) -> None:
    before = read_manifest(folder) or Manifest()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        staging = Staging(Path(name), Origins(before.names_key))
        for version in versions:
            staging.add(staging.version(version.origin, version.updated), version.events)
        staging.flush()
        take_over(folder, staging, before, None, origin="made up", now=NOW)


def asked(kind: str, index: dict[str, Any], **more: Any) -> StudyPlan:
    given: dict[str, Any] = {"cohort__index": index, **more}
    if kind in {"value", "value_above"}:
        given |= {"endpoint__codes": [GLUCOSE], "endpoint__unit": "mg/dL"}
    if kind == "value_above":
        given["endpoint__threshold"] = 100.0
    if kind == "value":
        given |= {"endpoint__center": 100, "endpoint__scale": 20}
    if kind == "time_to_event":
        given["endpoint__interval_days"] = [3, 10]
    changed = plan(kind, endpoint__horizon_days=10, **given)
    contract = changed.contract.model_copy(update={"features": FEATURES})
    assert contract.features == FEATURES
    return even_empty(changed).model_copy(update={"features": FEATURES})


PLANS = [
    asked("event", {"date": "2024-01-21T00:00:00Z"}, cohort__exclude_codes=["LOCAL//flag"]),
    asked("event", {"codes": ["LOCAL//visit"]}, cohort__require_codes=["LOCAL//word"]),
    asked("count", {"codes": ["LOCAL//visit"], "which": "first"}, endpoint__most=2),
    asked("time_to_event", {"date": "2024-01-06T00:00:00Z"}, cohort__minimum_age_years=0),
    asked("value", {"codes": ["LOCAL//visit", "LOCAL//event"]}),
    asked("value_above", {"codes": ["LOCAL//visit"], "which": "first"}),
]


def expected_patients(sql: InSql, study: StudyPlan) -> dict[int, tuple[float, float | None]]:
    """Label and days of everybody who takes part, by the words of the plan."""
    cohort, endpoint = study.cohort, study.endpoint
    required, excluded = (
        sql.known_by_index(codes) for codes in (cohort.require_codes, cohort.exclude_codes)
    )
    outcome = with_value if endpoint.kind in {"value", "value_above"} else with_events
    known = outcome(sql, study)
    found: dict[int, tuple[float, float | None]] = {}
    for who, one in sql.people().items():
        index, death = one["index_time"], one["death"]
        if index is None or one["birth"] is None or (death is not None and death < index):
            continue
        if not cohort.minimum_age_years - 1e-9 <= one["age"] <= cohort.maximum_age_years + 1e-9:
            continue
        lacks = bool(cohort.require_codes) and who not in required
        if not lacks and who not in excluded and who in known:
            found[who] = known[who]
    return found


def with_value(sql: InSql, study: StudyPlan) -> dict[int, tuple[float, float | None]]:
    endpoint = study.endpoint
    found: dict[int, tuple[float, float | None]] = {}
    for who, value in sql.first_value_after().items():
        scaled = min(max((value - endpoint.center) / endpoint.scale, -5.0), 5.0)
        above = None if endpoint.threshold is None else float(value > endpoint.threshold)
        if not math.isnan(value):
            found[who] = (scaled if above is None else above, None)
    return found


def with_events(sql: InSql, study: StudyPlan) -> dict[int, tuple[float, float | None]]:
    endpoint, events = study.endpoint, sql.events_after()
    found: dict[int, tuple[float, float | None]] = {}
    for who, one in sql.people().items():
        index, last = one["index_time"], one["last_time"]
        number, after = events.get(who, (0.0, math.inf))
        if index is None:
            continue
        if endpoint.kind == "time_to_event":
            ends = [moment for moment in (one["death"], last) if moment is not None]
            followed = (min(ends) - index) / timedelta(days=1) if ends else 0.0
            happened = after <= followed
            seen = after if happened else min(max(followed, 0.0), 10.0)
            if seen > 0:
                found[who] = (float(happened), seen)
            continue
        short = last is not None and last < index + timedelta(days=endpoint.horizon_days)
        if not short or (endpoint.kind == "event" and number):
            most = float(endpoint.most) if endpoint.kind == "count" else 1.0
            found[who] = (min(number, most), None)
    return found


def compare(timeline: Timeline, study: StudyPlan) -> None:
    found: Gathered = gather(PatientColumns(timeline=timeline), study, NOW.replace(tzinfo=None))
    selected = found.selected
    sql = InSql(timeline, study, NOW)
    try:
        patients = expected_patients(sql, study)
        assert selected.subject_ids.tolist() == sorted(patients)
        people = sql.people()
        for place, who in enumerate(selected.subject_ids.tolist()):
            label, after = patients[who]
            assert selected.labels[place] == label
            assert selected.days is None or selected.days[place] == after
            moment = selected.index[place].astype("datetime64[us]").item()
            assert moment == people[who]["index_time"]
            assert selected.age[place] == people[who]["age"]
            sex = people[who]["sex"]
            assert np.isnan(selected.sex[place]) if sex is None else selected.sex[place] == sex
        for one in FEATURES[:-1]:
            values, outside = sql.feature(one)
            column = found.features.columns[one.name]
            for place, who in enumerate(selected.subject_ids.tolist()):
                nothing = 0.0 if one.counts or one.kind == "presence" else None
                wanted, here = values.get(who, nothing), column[place]
                if wanted is None or (isinstance(wanted, float) and math.isnan(wanted)):
                    assert here is None or math.isnan(here), (one.name, here)
                elif one.summary == "mean":
                    assert here == pytest.approx(wanted, rel=1e-14, nan_ok=True)
                else:
                    assert here == wanted, (one.name, here, wanted)
            if one.kind in {"number", "flag"}:
                count = sum(outside.get(who, 0) for who in patients)
                assert found.features.implausible[one.name] == count
    finally:
        sql.db.close()


@contextmanager
def small_pieces() -> Iterator[None]:
    """Files of many row groups, which are read a few at a time, as features are summarised."""
    before = commit._ROW_GROUP, pieces._ROWS_AT_ONCE, features._CELLS_AT_ONCE
    commit._ROW_GROUP, pieces._ROWS_AT_ONCE, features._CELLS_AT_ONCE = 2, 3, 5
    try:
        yield
    finally:
        commit._ROW_GROUP, pieces._ROWS_AT_ONCE, features._CELLS_AT_ONCE = before


CASES = {
    "born": births,
    "steps": history,
    "study": st.sampled_from(PLANS),
    "cut": st.booleans(),
}
EASY = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to make a case small takes minutes
)


def columns_and_sql(born: tuple[Any, ...], steps: list[Any], study: StudyPlan, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        if cut:
            with small_pieces():
                compare(store_of(Path(name), born, steps), study)
        else:
            compare(store_of(Path(name), born, steps), study)


@settings(EASY, max_examples=8)
@given(**CASES)
@example(born=(NOW,) * 5, steps=[("live", [])], study=PLANS[0], cut=False)
def test_columns_say_what_sql_says(
    born: tuple[Any, ...], steps: list[Any], study: StudyPlan, cut: bool
) -> None:
    columns_and_sql(born, steps, study, cut)


@pytest.mark.slow
@settings(EASY, max_examples=300)
@given(**CASES)
def test_columns_say_what_sql_says_of_many_stores(
    born: tuple[Any, ...], steps: list[Any], study: StudyPlan, cut: bool
) -> None:
    columns_and_sql(born, steps, study, cut)


@settings(max_examples=100, deadline=None)
@example(values=[6.468132337606562e-11], factor=0.0555, shift=0.0)
@example(values=[1.1087929071677574e-291, 1.1e-292], factor=1e-06, shift=0.0)
@given(
    values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20),
    factor=st.sampled_from([1.0, 0.0555, 18.0182, 88.42, 1e-6]),
    shift=st.sampled_from([0.0, 2.152, -32.0]),
)
def test_values_are_tidied_as_in_sql(values: list[float], factor: float, shift: float) -> None:
    count = len(values)
    found = converted(np.array(values), np.full(count, factor), np.full(count, shift))
    with duckdb.connect() as db:
        db.execute(TIDY)
        for value, here in zip(values, found.tolist(), strict=True):
            asked = [value * factor + shift, factor, shift]
            assert db.execute("SELECT tidy($1, $2, $3)", asked).fetchone() == (here,)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    timeline = store_of(tmp_path, (BORN[1],) * 5, [])
    path = tmp_path / timeline.manifest.files[0].path
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RecordError, match="cannot read"):
        gather(PatientColumns(timeline=timeline), PLANS[0], NOW.replace(tzinfo=None))
