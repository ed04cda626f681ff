"""Which version of a record counts, in whatever order and by whatever way its versions come."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin_client.records.hl7.files import hl7_files
from fedtwin_client.records.hl7.patients import Whose
from fedtwin_client.records.source import Version
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.imports import import_fhir, import_source
from fedtwin_client.store.tail import OUTDATED, Batch, Tail
from fedtwin_client.store.timeline import Timeline

from ..fhir.fhir_block_lines import observation
from ..hl7.hl7_parts import NOW, OBR, PID, SECRET, message, msh, obx, read

OLD, NEW = "20240501100000", "20240501110000"
CORRECTED = OBR.replace("F1^LAB", "F2^LAB")


def hl7(folder: Path, sent: str, *segments: str, zone: str = "UTC") -> dict[str, int]:
    """Import one message; how often what was not used."""
    (folder / "m.hl7").write_text(message(msh(f7=sent), PID, *segments), newline="")
    report = import_source(
        hl7_files([folder / "m.hl7"], "hl7", Whose()),
        folder / "store",
        secret=SECRET,
        now=NOW,
        source="hl7",
        zone=zone,
    )
    return dict(report.reasons)


def results(folder: Path) -> list[tuple[float, str]]:
    rows = Timeline.open(folder / "store").events().to_pylist()
    return [(round(row["numeric_value"], 2), row["status"]) for row in rows if row["unit"]]


def test_an_older_archive_undoes_no_correction_and_revives_nothing(tmp_path: Path) -> None:
    hl7(tmp_path, NEW, OBR, obx("", status="W"), CORRECTED, obx("195", status="C"))
    assert results(tmp_path) == [(5.04, "corrected")]
    assert hl7(tmp_path, OLD, OBR, obx("190"), CORRECTED, obx("200"))[OUTDATED] == 4
    assert results(tmp_path) == [(5.04, "corrected")]
    assert OUTDATED not in hl7(tmp_path, NEW, OBR, obx("", status="W"), CORRECTED, obx("197"))
    assert results(tmp_path) == [(5.09, "final")]


def test_the_same_messages_in_another_zone_are_read_anew(tmp_path: Path) -> None:
    hl7(tmp_path, NEW, OBR, obx("190"))
    assert OUTDATED not in hl7(tmp_path, NEW, OBR, obx("190"), zone="Europe/Oslo")
    (row,) = Timeline.open(tmp_path / "store").events(codes=["LOINC//2093-3"]).to_pylist()
    assert row["time"] == datetime(2024, 5, 1, 6)


@pytest.mark.parametrize(("live_day", "kept"), [(4, "live"), (2, "file"), (3, "file")])
def test_what_came_live_and_is_newer_stays(tmp_path: Path, live_day: int, kept: str) -> None:
    """The Observations of `observation` were changed on 3 May; a live one was taken back."""
    patients = [{"resourceType": "Patient", "id": f"{number}"} for number in range(7)]
    lines = [*patients, *(observation(number) for number in range(40))]
    (tmp_path / "f.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    store = tmp_path / "store"
    withdrawn = Version(
        origin="fhir:Observation/o5", updated=datetime(2024, 5, live_day, tzinfo=UTC), events=[]
    )
    with Tail(store) as tail:
        tail.add([Batch(door="fhir", versions=[withdrawn])], frozenset(), NOW)
    report = import_fhir([tmp_path / "f.ndjson"], store, secret=SECRET, now=NOW)
    sources = {row["source"] for row in Timeline.open(store).events().to_pylist()}
    assert ("fhir:Observation/o5#0" in sources) == (kept == "file")
    assert report.reasons.get(OUTDATED, 0) == (kept == "live")
    assert len(sources) == 40 - (kept == "live")


def sent(number: str, value: str, hour: int) -> str:
    """A message with a final result that was reported at 9:30, sent later."""
    header = msh(number=number, f7=f"20240501{hour}0000")
    return message(header, PID, OBR, obx(value, f14="20240501090000"))


def known(store: Path) -> tuple[float, datetime]:
    (row,) = Timeline.open(store).events(codes=["LOINC//2093-3"]).to_pylist()
    return round(row["numeric_value"] * 38.67), row["available_time"]


FIRST, SECOND = datetime(2024, 5, 1, 9, 30), datetime(2024, 5, 1, 12)


@pytest.mark.parametrize(
    "way", ["imports", "one import", "one import, newest first", "live", "at once"]
)
def test_another_value_under_the_old_time_was_not_known_before_it_was_sent(
    tmp_path: Path, way: str
) -> None:
    messages = [sent("1", "190", 10), sent("2", "190", 11), sent("3", "200", 12)]
    later = [sent("3", "200", 12), sent("4", "200", 13)]
    store = tmp_path / "store"

    def bring(*texts: str) -> None:
        if way in {"live", "at once"}:
            for text in texts:
                with Tail(store) as tail:
                    tail.add([Batch(door="hl7", versions=read(text)[0])], frozenset(), NOW)
                if way == "live":
                    compact(store, NOW)
            return
        (tmp_path / "m.hl7").write_text("".join(texts), newline="")
        opening = hl7_files([tmp_path / "m.hl7"], "hl7", Whose())
        import_source(opening, store, secret=SECRET, now=NOW, source="hl7", zone="UTC")

    if way in {"imports", "live", "at once"}:
        bring(messages[0])
        bring(messages[1])
        assert known(store) == (190, FIRST)
        bring(messages[2])
    else:
        bring(*(messages if way == "one import" else reversed(messages)))
    assert known(store) == (200, SECOND)
    for text in later:
        bring(text)
        assert known(store) == (200, SECOND)


def test_a_door_knows_what_an_archive_has_said(tmp_path: Path) -> None:
    hl7(tmp_path, NEW, OBR, obx("195", status="C"))
    (origin,) = {
        row["source"].partition("#")[0]
        for row in Timeline.open(tmp_path / "store").events(codes=["LOINC//2093-3"]).to_pylist()
    }
    late = Version(origin=origin, updated=datetime(2024, 5, 1, 10, tzinfo=UTC), events=[])
    with Tail(tmp_path / "store") as tail:
        tail.add([Batch(door="hl7", versions=[late])], frozenset(), NOW)
        assert tail.account() == {("hl7", "reason", OUTDATED): 1}
    assert results(tmp_path) == [(5.04, "corrected")]
