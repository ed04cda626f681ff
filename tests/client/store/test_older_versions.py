"""No import and no door takes a record back to an older version, however long ago it came."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.at_rest.keyring import keyring_of
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.sealing import make_keys, rotate
from fedtwin_client.records.events import Event
from fedtwin_client.records.merges import Merges
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.source import ByNumber, Desk, Version
from fedtwin_client.store import versions
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.erasure import erase_patient
from fedtwin_client.store.imports import import_fhir, import_source
from fedtwin_client.store.manifest import Manifest, read_manifest
from fedtwin_client.store.merging import unmerge
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.tail import OUTDATED, Batch, Tail
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from ..fhir.fhir_block_lines import observation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = b"\x07" * 32
PATIENTS = Pseudonyms(SECRET)
HASHER = Origins("0123456789abcdef" * 2)


def whose(number: int) -> int:
    return PATIENTS.of(Identity("mrn", str(number)))


def version(name: str, patient: int, value: float | None, day: int | None) -> Version:
    """One that says a value, or takes the record out."""
    event = Event(
        subject_id=whose(patient),
        time=NOW - timedelta(hours=1),
        code="LOINC//8867-4",
        numeric_value=value,
        available_time=NOW - timedelta(hours=1),
        unit="/min",
        source=f"lab:{name}#0",
    )
    return Version(
        origin=f"lab:{name}",
        updated=None if day is None else NOW - timedelta(days=100 - day),
        events=[] if value is None else [event],
    )


class Lab(ByNumber):
    """A source of versions that somebody made up."""

    title = "made up"

    def __init__(self, found: Sequence[Version], desk: Desk) -> None:
        self._found = found
        for number in range(3):
            desk.pseudonyms.of(Identity("mrn", str(number)))

    def versions(self) -> Sequence[Version]:
        return self._found


def load(store: Path, *found: Version, even_older: bool = False, zone: str = "UTC") -> int:
    """Import versions; how many were older than what the store has."""
    report = import_source(
        lambda desk: Lab(found, desk),
        store,
        secret=SECRET,
        now=NOW,
        source="lab",
        zone=zone,
        even_older=even_older,
    )
    return report.reasons.get(OUTDATED, 0)


def live(store: Path, *found: Version, days: int = 0) -> None:
    with Tail(store) as tail:
        tail.add([Batch(door="lab", versions=found)], frozenset(), NOW + timedelta(days=days))


def values(store: Path) -> dict[str, float]:
    found = Timeline.open(store).events()
    names = [source[4:-2] for source in found["source"].to_pylist()]
    return dict(zip(names, found["numeric_value"].to_pylist(), strict=True))


def known(store: Path) -> pa.Table:
    """All that the store knows of when records were changed."""
    state = read_manifest(store) or Manifest()
    pieces = [
        piece
        for file in state.versions
        for piece in versions._pieces(store, file, keyring_of(store))
    ]
    return pa.concat_tables([versions.SCHEMA.empty_table(), *pieces])


some = st.builds(
    version,
    st.sampled_from("abcd"),
    st.integers(0, 2),
    st.none() | st.integers(40, 99).map(float),
    st.none() | st.integers(0, 6),
)
step = st.tuples(st.sampled_from(["import", "door", "compact"]), st.lists(some, max_size=4))


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(step, max_size=8))
def test_the_newest_version_wins_whichever_way_and_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[Version]]]
) -> None:
    """Within one import versions that say no time count as the oldest, as ever."""
    store = tmp_path_factory.mktemp("store")
    live(store)
    newest: dict[str, tuple[datetime | None, Version]] = {}
    long_ago = datetime.min.replace(tzinfo=UTC)
    for number, (way, found) in enumerate(steps):
        if way == "door":
            live(store, *found, days=40 * number)  # longer than anything live is remembered
        elif way == "import":
            load(store, *found)
            last = {one.origin: one for one in sorted(found, key=lambda v: v.updated or long_ago)}
            found = list(last.values())  # noqa: PLW2901 - of each record one
        else:
            compact(store, NOW + timedelta(days=40 * number))
            continue
        for made in found:
            before = newest.get(made.origin, (None, made))[0]
            if before is None or made.updated is None or made.updated >= before:
                newest[made.origin] = (made.updated or before, made)
    expected = {
        made.origin[4:]: event.numeric_value for _, made in newest.values() for event in made.events
    }
    assert (values(store) if newest else {}) == expected


def fhir(folder: Path, *resources: dict[str, object], **fields: bool) -> dict[str, int]:
    patient = {"resourceType": "Patient", "id": "1"}
    lines = [json.dumps(line) + "\n" for line in (patient, *resources)]
    (folder / "f.ndjson").write_text("".join(lines))
    report = import_fhir([folder / "f.ndjson"], folder / "store", secret=SECRET, now=NOW, **fields)
    return dict(report.reasons)


def changed(day: int) -> dict[str, str]:
    return {"lastUpdated": f"2024-06-{day:02}T00:00:00Z"}


def numbers(folder: Path) -> list[float]:
    found = Timeline.open(folder / "store").events(codes=["LOINC//2093-3"])
    return [round(value * 38.67) for value in found["numeric_value"].to_pylist()]


def value(number: float) -> dict[str, object]:
    return {"value": number, "unit": "mg/dL", "code": "mg/dL"}


def test_an_archive_of_resources_undoes_nothing_unless_it_is_meant_to(tmp_path: Path) -> None:
    new = observation(1, meta=changed(9), valueQuantity=value(200))
    gone = observation(8, meta=changed(9), status="entered-in-error")
    old = observation(1, meta=changed(2), valueQuantity=value(150))
    alive = observation(8, meta=changed(2), valueQuantity=value(150))
    fhir(tmp_path, new, gone)
    for _ in range(2):
        assert fhir(tmp_path, old, alive)[OUTDATED] == 2
        assert numbers(tmp_path) == [200]
    assert OUTDATED not in fhir(tmp_path, old, alive, even_older=True)
    assert numbers(tmp_path) == [150, 150]
    between = observation(1, meta=changed(5), valueQuantity=value(170))
    assert OUTDATED not in fhir(tmp_path, between)  # what was gone back to is what the store has
    assert numbers(tmp_path) == [170, 150]


def test_a_source_read_in_another_zone_is_taken_as_it_is(tmp_path: Path) -> None:
    load(tmp_path, version("a", 0, 50.0, 5), version("b", 0, 50.0, 5))
    assert load(tmp_path, version("a", 0, 60.0, 4), zone="Europe/Oslo") == 0
    with Tail(tmp_path) as tail:
        tail.add([Batch(door="lab", versions=[version("b", 0, 70.0, 4)])], frozenset(), NOW)
    again = load(tmp_path, version("a", 0, 70.0, 3), version("b", 0, 70.0, 4), zone="Europe/Oslo")
    assert again == 2
    assert values(tmp_path) == {"a": 60.0, "b": 50.0}


def test_a_store_from_before_has_no_times_and_learns_them(tmp_path: Path) -> None:
    load(tmp_path, version("a", 0, 50.0, 9))
    file = tmp_path / "manifest.json"
    old = json.loads(file.read_text())
    del old["versions"], old["zones"]
    file.write_text(json.dumps(old))
    assert load(tmp_path, version("a", 0, 60.0, 5)) == 0
    assert load(tmp_path, version("a", 0, 70.0, 4)) == 1
    assert values(tmp_path) == {"a": 60.0}


def test_of_an_erased_patient_nothing_is_known(tmp_path: Path) -> None:
    load(tmp_path, *(version(f"{name}", number % 2, 50.0, 5) for number, name in enumerate("abcd")))
    live(tmp_path, version("c", 0, None, 6), version("e", 0, 50.0, 6))
    compact(tmp_path, NOW)
    live(tmp_path, version("f", 0, 50.0, 6))
    assert known(tmp_path)["subject"].drop_null().to_pylist() == [whose(0)]
    erase_patient(tmp_path, whose(0), NOW)
    load(tmp_path, version("a", 0, 50.0, 7), version("g", 0, 50.0, 7))
    with Consents(tmp_path) as consents, Tail(tmp_path) as tail:
        late = version("h", 0, 50.0, 8)
        tail.add([Batch(door="lab", versions=[late])], consents.erased(), NOW)
    compact(tmp_path, NOW)
    state = read_manifest(tmp_path)
    assert state is not None
    kept, _ = Origins(state.names_key).hashes(pa.array(["lab:b", "lab:d"]))
    assert sorted(known(tmp_path)["one"].to_pylist()) == sorted(kept.tolist())
    assert len(list((tmp_path / "versions").iterdir())) <= 2


def test_what_is_known_lies_encrypted_and_survives_new_keys(tmp_path: Path) -> None:
    home = NodeHome(folder=tmp_path / "node")
    home.folder.mkdir()
    home.settings_file.write_text("consortium: demo\nsite: aal\ncoordinator: here:1\n")
    make_keys(home)
    store = home.records
    load(store, version("a", 0, 50.0, 5), version("b", 1, None, 5))
    (before,) = (store / "versions").iterdir()
    assert before.read_bytes()[:4] == b"PARE"
    rotate(home)
    (file,) = (store / "versions").iterdir()
    assert file.name != before.name
    assert load(store, version("a", 0, 60.0, 4), version("b", 1, 60.0, 4)) == 2
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    with pytest.raises(RecordError, match="it is what it was before"):
        load(store, version("a", 0, 60.0, 9))


def test_an_import_that_fails_at_its_end_has_learned_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tmp_path, version("a", 0, 50.0, 5))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fedtwin_client.store.commit.write_manifest", full)
        with pytest.raises(RecordError, match="No space left"):
            load(tmp_path, version("a", 0, 60.0, 9))
    assert load(tmp_path, version("a", 0, 70.0, 7)) == 0
    assert values(tmp_path) == {"a": 70.0}
    load(tmp_path, version("a", 0, 80.0, 8))
    assert len(list((tmp_path / "versions").iterdir())) == 2  # the newest, and the one before


def test_patients_who_are_one_or_two_again_keep_what_is_known(tmp_path: Path) -> None:
    load(tmp_path, version("a", 0, 50.0, 5), version("b", 1, 50.0, 5))
    Merges(tmp_path).record({Identity("mrn", "1"): Identity("mrn", "0")}, SECRET, NOW)
    compact(tmp_path, NOW)
    assert set(Timeline.open(tmp_path).events()["subject_id"].to_pylist()) == {whose(0)}
    assert load(tmp_path, version("a", 0, 60.0, 4), version("b", 0, 60.0, 4)) == 2
    unmerge(tmp_path, whose(1), NOW)
    assert load(tmp_path, version("a", 0, 60.0, 4), version("b", 1, 60.0, 4)) == 2
    assert values(tmp_path) == {"a": 50.0, "b": 50.0}


def test_a_door_says_what_it_cannot_read_and_keeps_nothing(tmp_path: Path) -> None:
    load(tmp_path, version("a", 0, 50.0, 5))
    (file,) = (tmp_path / "versions").iterdir()
    file.unlink()
    with pytest.raises(RecordError, match="restore the folder"):
        live(tmp_path, version("a", 0, 60.0, 9))
    assert values(tmp_path) == {"a": 50.0}


def test_files_stay_few_and_say_what_the_newest_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_ALWAYS_JOINED", 4)
    monkeypatch.setattr(versions, "_AT_ONCE", 50)
    monkeypatch.setattr(versions, "_ROW_GROUP", 16)
    chance = np.random.default_rng(1)
    said: dict[str, int] = {}
    state, door = Manifest(), None
    for turn in range(30):
        names = sorted({f"lab:{number}" for number in chance.integers(0, 300, turn % 7 * 9 + 1)})
        times = chance.integers(1, 1000, len(names))
        said |= dict(zip(names, times.tolist(), strict=True))
        one, two = HASHER.hashes(pa.array(names))
        order = np.argsort(one)
        columns = [one[order], two[order], times[order], pa.nulls(len(names), pa.int64())]
        files = versions.added(tmp_path, state, pa.table(columns, schema=versions.SCHEMA), None)
        state = Manifest(generation=turn + 1, versions=files)
        assert len(files) < 8
        door = versions.Held(tmp_path, files, None, few=True, before=door)
    asked = [f"lab:{number}" for number in range(400)]
    with versions.Held(tmp_path, state.versions, None) as whole, door:
        for held in (whole, door):
            found = held.updated(HASHER.hashes(pa.array(asked)))
            assert found.tolist() == [said.get(name, 0) for name in asked]
    assert not any(versions.Held(tmp_path, (), None).updated(HASHER.hashes(pa.array(asked))))


def test_an_older_consent_takes_back_no_newer_denial(tmp_path: Path) -> None:
    def consent(verdict: str, day: int) -> dict[str, object]:
        research = {"system": "http://terminology.hl7.org/CodeSystem/consentscope"}
        return {
            "resourceType": "Consent",
            "id": "c",
            "meta": changed(day),
            "status": "active",
            "scope": {"coding": [research | {"code": "research"}]},
            "patient": {"reference": "Patient/1"},
            "provision": {"type": verdict},
        }

    def verdicts() -> tuple[str, ...]:
        (subject,) = set(Timeline.open(tmp_path / "store").events()["subject_id"].to_pylist())
        with Consents(tmp_path / "store") as consents:
            return consents.standing(subject, "opt_in", NOW).verdicts

    fhir(tmp_path, observation(1), consent("deny", 9))
    assert verdicts() == ("deny",)
    assert fhir(tmp_path, observation(1), consent("permit", 2))[OUTDATED] == 1
    assert verdicts() == ("deny",)
    assert OUTDATED not in fhir(tmp_path, observation(1), consent("permit", 2), even_older=True)
    assert verdicts() == ("permit",)
