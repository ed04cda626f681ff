"""What fails leaves nothing behind that fills the disk, and takes nothing that somebody reads."""

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin_client.records.events import Event
from fedtwin_client.records.report import Tally
from fedtwin_client.records.source import Version
from fedtwin_client.store import commit, imports
from fedtwin_client.store.compaction import compact, waiting
from fedtwin_client.store.imports import import_table
from fedtwin_client.store.tail import Batch, Tail
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAPPING = """
name: visits
subject: {column: id}
time: {column: day}
columns:
  chol: {code: LOINC//2093-3, unit: mg/dL}
"""


def come_in(store: Path, *numbers: int) -> None:
    versions = []
    for number in numbers:
        origin = f"ward:{number}"
        event = Event(subject_id=number, time=NOW, code="LOINC//8867-4", numeric_value=70.0,
                      available_time=NOW, unit="/min", source=f"{origin}#0")  # fmt: skip
        versions.append(Version(origin=origin, updated=None, events=[event]))
    with Tail(store) as tail:
        tail.add([Batch(door="ward", versions=versions)], frozenset(), NOW)


def files(store: Path) -> set[str]:
    return {path.name for path in store.rglob("*") if path.suffix in {".parquet", ".new"}}


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_compaction_without_room_leaves_no_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    come_in(tmp_path, 1, 2)
    compact(tmp_path, NOW)
    read_meanwhile = Timeline.open(tmp_path)
    come_in(tmp_path, 1, 3)
    before = files(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(commit, "write_manifest", no_room)
        with pytest.raises(RecordError, match=r"what it was before: no room is left"):
            compact(tmp_path, NOW)
    assert files(tmp_path) == before
    assert waiting(tmp_path) == 2
    assert read_meanwhile.events().num_rows == 2
    assert compact(tmp_path, NOW) == 2
    assert Timeline.open(tmp_path).events().num_rows == 3


def test_an_import_that_is_not_finished_says_that_the_records_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timelines are written, what follows is not: files of readers of before stay, too."""
    store = tmp_path / "store"
    come_in(store, 1)
    compact(store, NOW)
    read_meanwhile = Timeline.open(store)
    come_in(store, 1)
    (tmp_path / "v.csv").write_text("id,day,chol\nM1,2024-02-01,199\n")
    (tmp_path / "m.yaml").write_text(MAPPING)
    words = (tmp_path / "v.csv", tmp_path / "m.yaml", store)

    def failing(*_: object) -> None:
        raise RecordError("the disk is full")

    with monkeypatch.context() as full:
        full.setattr(imports, "finish_merges", Once(imports.finish_merges, failing))
        with pytest.raises(RecordError, match=r"are in the timelines, but not all.*the disk is"):
            import_table(*words, secret=b"s" * 32, now=NOW)
    assert read_meanwhile.events().num_rows == 1
    assert Timeline.open(store).events().num_rows == 2
    import_table(*words, secret=b"s" * 32, now=NOW)
    assert Timeline.open(store).events().num_rows == 2


def test_nothing_is_imported_where_what_is_put_aside_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    come_in(store, 1)
    (tmp_path / "v.csv").write_text("id,day,chol\nM1,2024-02-01,199\nM2,2024-02-01,high\n")
    (tmp_path / "m.yaml").write_text(MAPPING)
    words = (tmp_path / "v.csv", tmp_path / "m.yaml", store)
    close = Tally.close
    with monkeypatch.context() as full:
        full.setattr(Tally, "close", lambda tally: (close(tally), no_room()))
        with pytest.raises(RecordError, match=r"nothing was imported: no room is left"):
            import_table(*words, secret=b"s" * 32, now=NOW)
    assert Timeline.open(store).events().num_rows == 1
    import_table(*words, secret=b"s" * 32, now=NOW)
    assert Timeline.open(store).events().num_rows == 2


class Once:
    """One function the first time, another from then on."""

    def __init__(self, first: object, then: object) -> None:
        self._first, self._then = first, then

    def __call__(self, *given: object) -> object:
        chosen, self._first = self._first, self._then
        return chosen(*given)  # type: ignore[operator]
