"""Live records: kept in groups, read beside the files, written into them; and what a kill does."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity, IdentityMap, Pseudonyms
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Version
from fedtwin_client.store import compaction
from fedtwin_client.store.compaction import compact, waiting
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.erasure import erase_patient
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.patient import PatientReader, patient_events
from fedtwin_client.store.tail import ERASED, OUTDATED, Batch, Tail
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = b"\x07" * 32
UTC_ZONE = ZoneInfo("UTC")
PATIENTS = Pseudonyms(SECRET)


def subject(number: int) -> int:
    return PATIENTS.of(Identity("mrn", str(number)))


def version(
    name: str,
    patient: int,
    values: Sequence[float],
    updated: int | None = None,
    minute: int = 0,
) -> Version:
    origin = f"ward:{name}"
    happened = NOW - timedelta(hours=1) + timedelta(minutes=minute)
    return Version(
        origin=origin,
        updated=None if updated is None else NOW - timedelta(days=1) + timedelta(minutes=updated),
        events=[
            Event(
                subject_id=subject(patient),
                time=happened,
                code="LOINC//8867-4",
                numeric_value=value,
                available_time=happened,
                unit="/min",
                source=f"{origin}#{number}",
            )
            for number, value in enumerate(values)
        ],
    )


def add(store: Path, *versions: Version, erased: frozenset[int] = frozenset()) -> None:
    with Tail(store) as tail:
        tail.add([Batch(door="ward", versions=versions)], erased, NOW)


def rows(table: pa.Table) -> list[tuple[int, str, float]]:
    columns = (table[name].to_pylist() for name in ("subject_id", "source", "numeric_value"))
    return list(zip(*columns, strict=True))


def held(store: Path) -> dict[str, float]:
    found = Timeline.open(store).events()
    return dict(zip(found["source"].to_pylist(), found["numeric_value"].to_pylist(), strict=True))


def test_a_live_record_is_read_at_once_and_after_it_was_written(tmp_path: Path) -> None:
    add(tmp_path, version("a", 1, [80.0, 81.0]), version("b", 2, [90.0]))
    before = Timeline.open(tmp_path)
    assert held(tmp_path) == {"ward:a#0": 80.0, "ward:a#1": 81.0, "ward:b#0": 90.0}
    assert waiting(tmp_path) == 3
    assert compact(tmp_path, NOW) == 3
    assert (waiting(tmp_path), Timeline.open(tmp_path).live().origins) == (0, [])
    assert held(tmp_path) == {"ward:a#0": 80.0, "ward:a#1": 81.0, "ward:b#0": 90.0}
    assert rows(before.events()) == rows(Timeline.open(tmp_path).events())


def test_a_correction_and_a_withdrawal_reach_what_lies_in_the_files(tmp_path: Path) -> None:
    add(tmp_path, version("a", 1, [80.0, 81.0]), version("b", 1, [90.0]), version("c", 2, [70.0]))
    compact(tmp_path, NOW)
    add(tmp_path, version("a", 1, [85.0]), version("b", 1, []))
    expected = {"ward:a#0": 85.0, "ward:c#0": 70.0}
    assert held(tmp_path) == expected
    one = patient_events(Timeline.open(tmp_path), subject(1))
    assert rows(one) == [(subject(1), "ward:a#0", 85.0)]
    compact(tmp_path, NOW)
    assert held(tmp_path) == expected


def test_records_whose_names_are_much_alike_are_not_taken_for_one(tmp_path: Path) -> None:
    """Pairs that hashes made for tables in memory, such as DuckDB's, take for one and the same."""
    orders = (("f4562", 0), ("f4862", 5), ("f9513", 1), ("f9813", 4))
    names = [f"result/LAB@HOSP/{order}/718-7/718-7/{part}" for order, part in orders]
    add(tmp_path, *(version(name, 1, [60.0 + n]) for n, name in enumerate(names)))
    compact(tmp_path, NOW)
    assert sorted(held(tmp_path).values()) == [60, 61, 62, 63]


def test_an_older_version_that_comes_late_is_dropped_and_counted(tmp_path: Path) -> None:
    add(tmp_path, version("a", 1, [80.0], updated=5), version("a", 1, [1.0], updated=4))
    assert held(tmp_path) == {"ward:a#0": 80.0}
    compact(tmp_path, NOW)
    add(tmp_path, version("a", 1, [2.0], updated=3))
    assert held(tmp_path) == {"ward:a#0": 80.0}
    with Tail(tmp_path) as tail:
        assert tail.account() == {("ward", "reason", OUTDATED): 2}
    add(tmp_path, version("a", 1, [3.0], updated=6), version("a", 1, [4.0]))
    assert held(tmp_path) == {"ward:a#0": 4.0}, "one without a date is as new as it comes"


def test_an_erased_patient_is_nowhere_and_does_not_come_back(tmp_path: Path) -> None:
    add(tmp_path, version("a", 1, [80.0]), version("b", 2, [90.0]))
    compact(tmp_path, NOW)
    add(tmp_path, version("c", 1, [81.0]))
    IdentityMap(tmp_path / "identities.sqlite").record({subject(1): Identity("mrn", "1")}, {})
    assert erase_patient(tmp_path, subject(1), NOW).events == 2
    with LiveStore(tmp_path, SECRET, lambda: NOW) as store:
        desk = store.desk("ward", UTC_ZONE)
        asyncio.run(store.keep(desk)([version("d", 1, [82.0])]))
    assert held(tmp_path) == {"ward:b#0": 90.0}
    with Tail(tmp_path) as tail:
        assert tail.account()["ward", "reason", ERASED] == 1


step = st.one_of(
    st.tuples(
        st.just("add"),
        st.sampled_from("abcd"),
        st.integers(0, 2),
        st.lists(st.integers(40, 99).map(float), max_size=2),
        st.none() | st.integers(0, 9),
        st.integers(0, 3),
    ),
    st.just(("compact",)),
    st.just(("import",)),
)


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(step, max_size=12))
def test_any_history_reads_like_a_plain_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple]
) -> None:
    store = tmp_path_factory.mktemp("store")
    newest: dict[str, tuple[datetime | None, Version]] = {}
    for words in steps:
        if words[0] != "add":
            compact(store, NOW)
            continue
        made = version(*words[1:4], updated=words[4], minute=words[5])
        add(store, made)
        before = newest.get(made.origin, (None, made))[0]
        if before is None or made.updated is None or made.updated >= before:
            newest[made.origin] = (made.updated or before, made)
    expected = sorted(
        (event.subject_id, event.time, event.source, event.numeric_value)
        for _, made in newest.values()
        for event in made.events
    )
    if not newest:
        return
    timeline = Timeline.open(store)
    found = timeline.events()
    assert (
        list(
            zip(
                found["subject_id"].to_pylist(),
                [moment.replace(tzinfo=UTC) for moment in found["time"].to_pylist()],
                found["source"].to_pylist(),
                found["numeric_value"].to_pylist(),
                strict=True,
            )
        )
        == expected
    )
    db = timeline.connect()
    by_position = db.execute(
        "SELECT subject_id, source FROM events ORDER BY subject_id, file_row_number"
    ).fetchall()
    db.close()
    assert by_position == [(one, source) for one, _, source, _ in expected]
    with PatientReader(timeline) as reader:
        for number in (0, 1, 2, 0):
            own = [row for row in rows(found) if row[0] == subject(number)]
            assert rows(reader.events(subject(number))) == own


def test_calls_that_wait_together_share_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    plain = Tail.add

    def counted(self: Tail, given: Sequence[Batch], *rest: object) -> None:
        given = list(given)
        batches.append(len(given))
        plain(self, given, *rest)

    monkeypatch.setattr(Tail, "add", counted)

    async def send(store: LiveStore) -> None:
        desk = store.desk("ward", UTC_ZONE)
        keep = store.keep(desk)
        await asyncio.gather(*(keep([version(f"m{n}", n % 5, [float(n)])]) for n in range(500)))

    with LiveStore(tmp_path, SECRET, lambda: NOW) as store:
        asyncio.run(send(store))
    assert sum(batches) == 500
    assert len(batches) < 100
    assert len(held(tmp_path)) == 500
    who = IdentityMap(tmp_path / "identities.sqlite")
    assert who.known() <= {subject(n) for n in range(5)}


def test_the_way_back_is_written_before_the_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RecordError("the disk is full")

    with LiveStore(tmp_path, SECRET, lambda: NOW) as store:
        desk = store.desk("ward", UTC_ZONE)
        made = version("a", 1, [80.0])
        assert desk.pseudonyms.of(Identity("mrn", "1")) == subject(1)
        with monkeypatch.context() as patch:
            patch.setattr(IdentityMap, "record", fails)
            with pytest.raises(RecordError, match="disk is full"):
                asyncio.run(store.keep(desk)([made]))
        with Tail(tmp_path) as tail:
            assert tail.last() == 0
        asyncio.run(store.keep(desk)([made]))
    assert IdentityMap(tmp_path / "identities.sqlite").who_is(subject(1)) == Identity("mrn", "1")
    assert held(tmp_path) == {"ward:a#0": 80.0}


def test_what_is_put_aside_is_kept_with_its_place_and_goes_into_quarantine(tmp_path: Path) -> None:
    with LiveStore(tmp_path, SECRET, lambda: NOW) as store:
        desk = store.desk("ward", UTC_ZONE)
        desk.reading.tally.put_aside("no time", Place("ward", 7), {"value": 1})
        desk.reading.tally.read["message"] += 1
        asyncio.run(store.keep(desk)([]))
        asyncio.run(store.keep(desk)([]))
    with Tail(tmp_path) as tail:
        ((_, door, aside),) = tail.asides()
        assert (door, aside.reason, aside.line, aside.raw) == ("ward", "no time", 7, '{"value": 1}')
        assert tail.account() == {("ward", "read", "message"): 1, ("ward", "reason", "no time"): 1}
    compact(tmp_path, NOW)
    (file,) = (tmp_path / "quarantine").iterdir()
    assert '"reason": "no time"' in file.read_text()
    with Tail(tmp_path) as tail:
        assert tail.asides() == []


def test_what_is_implausible_is_kept_and_counted(tmp_path: Path) -> None:
    with LiveStore(tmp_path, SECRET, lambda: NOW) as store:
        desk = store.desk("ward", UTC_ZONE)
        asyncio.run(store.keep(desk)([version("a", 1, [80.0, 4000.0])]))
    assert held(tmp_path) == {"ward:a#0": 80.0, "ward:a#1": 4000.0}
    with Tail(tmp_path) as tail:
        (((door, kind, note), count),) = tail.account().items()
    assert (door, kind, count) == ("ward", "note", 1)
    assert note == "heart rate (LOINC//8867-4) outside the plausible range 5 to 390 /min"


def test_whoever_watches_is_told_in_order_and_of_withdrawals(tmp_path: Path) -> None:
    add(tmp_path, version("a", 1, [80.0]), version("b", 2, [90.0]), version("a", 1, []))
    with Tail(tmp_path) as tail:
        changes = tail.changes(0)
        assert [(c.seq, c.origin, set(c.subjects)) for c in changes] == [
            (1, "ward:a", {subject(1)}),
            (2, "ward:b", {subject(2)}),
            (3, "ward:a", {subject(1)}),
        ]
        assert tail.changes(3) == []


def test_numbers_are_never_given_out_twice(tmp_path: Path) -> None:
    add(tmp_path, version("a", 1, [80.0]))
    for _ in range(3):
        compact(tmp_path, NOW)
    add(tmp_path, version("b", 1, [81.0]))
    assert held(tmp_path) == {"ward:a#0": 80.0, "ward:b#0": 81.0}


def test_a_consent_is_kept_before_the_events(tmp_path: Path) -> None:
    from fedtwin_client.records.consent import Consent, Statement

    no = Consent(
        updated=None,
        subject_id=subject(1),
        statements=[Statement(verdict="deny", starts=None, ends=None)],
    )
    with LiveStore(tmp_path, SECRET, lambda: NOW) as store:
        desk = store.desk("ward", UTC_ZONE)
        asyncio.run(store.keep(desk)([version("a", 1, [80.0])], None, {"ward:Consent/1": no}))
    with Consents(tmp_path) as consents:
        assert consents.absent("opt_out", frozenset({subject(1)}), NOW) == {subject(1)}


def test_readers_beside_a_writer_never_see_half(tmp_path: Path) -> None:
    stop = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                found = held(tmp_path)
            except RecordError as error:
                if "no records" not in str(error):
                    faults.append(str(error))
                continue
            for name in {source.partition("#")[0] for source in found}:
                if (f"{name}#0" in found) != (f"{name}#1" in found):
                    faults.append(name)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(12):
        add(tmp_path, version(f"m{number}", number, [1.0, 2.0]))
        if number % 4 == 3:
            compact(tmp_path, NOW)
    stop.set()
    reader.join()
    assert faults == []
    assert len(held(tmp_path)) == 24


_COMPACTS = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from fedtwin_client.store import commit, compaction, jobs, manifest, tail
sys.path.insert(0, sys.argv[3])
import os, signal
step = int(sys.argv[2])
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def before(owner, name, number):
    plain = getattr(owner, name)
    def killed(*words, **named):
        if step == number:
            die()
        result = plain(*words, **named)
        if step == number + 1:
            die()
        return result
    setattr(owner, name, killed)
before(compaction, "take_over", 0)
before(commit, "write_manifest", 2)
before(compaction, "_keep_asides", 4)
before(tail.Tail, "forget", 6)
compaction.compact(Path(sys.argv[1]), datetime(2026, 3, 1, tzinfo=UTC))
"""


@pytest.mark.parametrize("step", range(8))
def test_a_kill_at_any_step_of_writing_loses_and_doubles_nothing(tmp_path: Path, step: int) -> None:
    add(tmp_path, version("a", 1, [80.0]), version("b", 2, [90.0]))
    compact(tmp_path, NOW)
    add(tmp_path, version("a", 1, [81.0]), version("c", 3, [70.0]))
    expected = {"ward:a#0": 81.0, "ward:b#0": 90.0, "ward:c#0": 70.0}
    done = subprocess.run(
        [sys.executable, "-c", _COMPACTS, str(tmp_path), str(step), str(tmp_path)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert held(tmp_path) == expected
    compact(tmp_path, NOW)
    assert held(tmp_path) == expected
    assert compaction.waiting(tmp_path) == 0


_KEEPS = """
import asyncio, sys
from datetime import datetime, UTC
from pathlib import Path
from zoneinfo import ZoneInfo
sys.path.insert(0, sys.argv[2])
from test_live_store import NOW, SECRET, version
from fedtwin_client.store.live import LiveStore
async def main(store):
    desk = store.desk("ward", ZoneInfo("UTC"))
    keep = store.keep(desk)
    async def one(n):
        await keep([version(f"m{n}", n % 7, [float(n)])])
        print(n, flush=True)
    for start in range(0, 100_000, 50):
        await asyncio.gather(*(one(n) for n in range(start, start + 50)))
with LiveStore(Path(sys.argv[1]), SECRET, lambda: NOW) as store:
    asyncio.run(main(store))
"""


def killed_while_keeping(folder: Path, patience_s: Callable[[], float]) -> tuple[int, int]:
    """How many records were acknowledged, and how many of those are held, after a kill."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KEEPS, str(folder), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        acknowledged = {int(said.readline())}
        time.sleep(patience_s())
        process.kill()
        acknowledged |= {int(line) for line in said.read().splitlines() if line.strip()}
    process.wait()
    found = held(folder)
    return len(acknowledged), sum(f"ward:m{n}#0" in found for n in acknowledged)


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    acknowledged, kept = killed_while_keeping(tmp_path, lambda: 0.3)
    assert acknowledged > 0
    assert kept == acknowledged
