"""Images of patients who turned out to be one person: moved whole, whatever happens meanwhile."""

import asyncio
import io
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pydicom
import pytest

from fedtwin_client.at_rest.boxes import fresh_key
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_client.records.images import moves as image_moves
from fedtwin_client.records.images.dicom_files import dicom_files
from fedtwin_client.records.images.moves import move_images
from fedtwin_client.records.images.store import ImageStore
from fedtwin_client.records.images.volumes import open_series
from fedtwin_client.records.merges import Merges
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import ImportReport
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.erasure import erase_patient
from fedtwin_client.store.images import image_store
from fedtwin_client.store.imports import import_source
from fedtwin_client.store.live import LiveStore
from fedtwin_client.store.merging import unmerge
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from .images import NOW, SECRET, SYSTEM, WHOSE, ct, desk, read, series_of, store_in, written

OTHER = "1.2.3.4.6"


def of(number: str) -> int:
    return pseudonym(SECRET, Identity(SYSTEM, number))


def load(folder: Path, name: str, *images: Any) -> ImportReport:
    store = folder / "store"
    return import_source(
        dicom_files([written(folder / name, *images)], image_store(store), WHOSE),
        store,
        secret=SECRET,
        now=NOW,
        source="dicom",
        zone="UTC",
    )


def merge(store: Path, one: str, into: str) -> None:
    Merges(store).record({Identity(SYSTEM, one): Identity(SYSTEM, into)}, SECRET, NOW)
    compact(store, NOW)


def series_in(store: Path) -> dict[str, set[str]]:
    """The files of every patient's series."""
    return {
        f"{place.parent.name}/{place.name}": {path.suffix for path in place.iterdir()}
        for place in (store / "images").glob("*/*")
    }


def name_of(store: Path, subject: int) -> str:
    (event,) = Timeline.open(store).events(subjects=[subject]).to_pylist()
    return str(event["source"].partition("#")[0].rpartition("/")[2])


def test_a_merge_moves_the_images_and_names_them_anew(tmp_path: Path) -> None:
    load(tmp_path, "in", ct(0), ct(1), ct(2))
    store = tmp_path / "store"
    series = name_of(store, of("4711"))
    before = open_series(store, series)
    merge(store, "4711", "4712")
    assert name_of(store, of("4712")) == series
    assert list(series_in(store)) == [f"{of('4712'):016x}/{series}"]
    assert (open_series(store, series).values == before.values).all()
    images = image_store(store)
    for name in images.names(of("4712"), series):
        dataset = pydicom.dcmread(io.BytesIO(images.read(of("4712"), series, name)))
        assert dataset.PatientID == f"{of('4712'):016x}"
    # The same files again are known, under the old number as under the new one.
    report = load(tmp_path, "in", ct(0), ct(1), ct(2))
    assert report.reasons == {"an image that is here already": 3}
    report = load(tmp_path, "more", ct(3))
    assert report.unused == 0
    assert open_series(store, series).values.shape[0] == 4


def test_parting_moves_them_back(tmp_path: Path) -> None:
    load(tmp_path, "in", ct(0), ct(1))
    load(tmp_path, "other", ct(5, PatientID="4712", SeriesInstanceUID=OTHER))
    store = tmp_path / "store"
    before = series_in(store)
    merge(store, "4711", "4712")
    assert {name.partition("/")[0] for name in series_in(store)} == {f"{of('4712'):016x}"}
    assert unmerge(store, of("4711"), NOW) == 1
    assert series_in(store) == before
    series = name_of(store, of("4711"))
    dataset = pydicom.dcmread(
        io.BytesIO(
            image_store(store).read(
                of("4711"), series, image_store(store).names(of("4711"), series)[0]
            )
        )
    )
    assert dataset.PatientID == f"{of('4711'):016x}"


def test_erasing_the_one_erases_the_images_of_both(tmp_path: Path) -> None:
    load(tmp_path, "in", ct(0))
    load(tmp_path, "other", ct(5, PatientID="4712", SeriesInstanceUID=OTHER))
    store = tmp_path / "store"
    merge(store, "4711", "4712")
    assert erase_patient(store, of("4712"), NOW).images == 4
    assert series_in(store) == {}


def test_a_door_that_hears_of_the_merge_first_goes_on_with_the_series(tmp_path: Path) -> None:
    """What comes for the other number is of a series that still lies under the former one."""
    images = store_in(tmp_path)
    at = desk()
    (event,), _ = read(dicom_files([written(tmp_path / "a", ct(0), ct(1))], images, WHOSE), at)
    assert at.pseudonyms.merge(Identity(SYSTEM, "4711"), Identity(SYSTEM, "4712")) is None
    folder = written(tmp_path / "b", ct(2, PatientID="4712"))
    (later,), tally = read(dicom_files([folder], images, WHOSE), at)
    assert not tally.reasons
    assert later.subject_id == of("4712") != event.subject_id
    assert open_series(tmp_path, series_of(later)).values.shape[0] == 3
    stranger = written(tmp_path / "c", ct(3, PatientID="4713"))
    with pytest.raises(RecordError, match="as another patient's"):
        read(dicom_files([stranger], images, WHOSE), at)


def test_a_series_of_which_both_have_a_part_is_put_together(tmp_path: Path) -> None:
    images = store_in(tmp_path)
    (event,), _ = read(dicom_files([written(tmp_path / "a", ct(0), ct(1))], images, WHOSE))
    series = series_of(event)
    late = images.about(of("4711"), series)
    assert late is not None
    early = late | {"time": (event.time - timedelta(hours=1)).isoformat(), "flags": ["x"]}  # type: ignore[operator]
    (first, second) = images.names(of("4711"), series)
    images.add(of("4712"), series, first, images.read(of("4711"), series, first))
    images.describe(of("4712"), series, early)
    assert move_images(images, of("4711"), of("4712")) == 1
    assert images.about(of("4712"), series) == early
    assert images.names(of("4712"), series) == [first, second]
    assert not images.place(of("4711"), "").exists()


def test_what_comes_in_while_a_series_is_moved_is_moved_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = store_in(tmp_path)
    (event,), _ = read(dicom_files([written(tmp_path / "a", ct(0), ct(1))], images, WHOSE))
    series, whole = series_of(event), image_moves._move_whole

    def slowly(*args: Any) -> None:
        whole(*args)
        images.add(of("4711"), series, "late.nii", b"x")

    monkeypatch.setattr(image_moves, "_move_whole", slowly)
    move_images(images, of("4711"), of("4712"))
    assert "late.nii" in images.names(of("4712"), series)
    assert len(images.names(of("4712"), series)) == 3
    assert not images.place(of("4711"), "").exists()


@pytest.mark.parametrize("sealed", [False, True])
def test_a_kill_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    keyring = Keyring(keys={"k1": fresh_key()}) if sealed else None
    images = ImageStore(folder=tmp_path / "images", keyring=keyring)
    (event,), _ = read(dicom_files([written(tmp_path / "a", ct(0), ct(1))], images, WHOSE))
    series = series_of(event)
    names = images.names(of("4711"), series)
    images.folder.rename(tmp_path / "before")

    def whole_at(owner: int) -> None:
        assert images.names(owner, series) == names
        for name in names:
            assert pydicom.dcmread(io.BytesIO(images.read(owner, series, name))).Rows == 32

    for steps in range(100):
        shutil.copytree(tmp_path / "before", images.folder)
        cut = killed(monkeypatch, steps, lambda: move_images(images, of("4711"), of("4712")))
        # Whoever looks now finds all of the series, at one of the two places.
        whole_at(images.whose(series))
        move_images(images, of("4711"), of("4712"))
        whole_at(of("4712"))
        assert images.about(of("4712"), series) is not None
        assert {place.name for place in images.folder.iterdir()} == {f"{of('4712'):016x}"}
        assert {path.name for path in images.place(of("4712"), "").iterdir()} == {series}
        if not cut:
            break
        shutil.rmtree(images.folder)
    assert steps > 12


class Killed(BaseException):
    """As a kill is: nothing is tidied up by what catches errors."""


def killed(monkeypatch: pytest.MonkeyPatch, after: int, work: Callable[[], Any]) -> bool:
    """Do it, killed after so many steps on the disk; whether it was."""
    left = after

    def step(real: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(*args, **kwargs)

        return stepped

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", step(os.link))
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            patch.setattr(Path, name, step(getattr(Path, name)))
        try:
            work()
        except Killed:
            return True
    return False


def test_a_merge_by_a_live_feed_moves_images_too(tmp_path: Path) -> None:
    load(tmp_path, "in", ct(0))
    store = tmp_path / "store"
    with LiveStore(store, SECRET, lambda: NOW) as live:
        at = live.desk("hl7", ZoneInfo("UTC"))
        assert at.pseudonyms.merge(Identity(SYSTEM, "4711"), Identity(SYSTEM, "4712")) is None
        asyncio.run(live.keep(at)([]))
    compact(store, NOW)
    assert [name.partition("/")[0] for name in series_in(store)] == [f"{of('4712'):016x}"]
