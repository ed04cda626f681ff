"""Taking DICOM instances in, one by one: into the image store, and as what their series makes.

| code | holds |
|---|---|
| `DICOM//CT` | an imaging series by its modality; `text_value`: the body part, a DICOM term |

The event's origin `dicom:series/<series>` names the series in the node's image store, where its
images lie with de-identified headers. `status` says why people's names may stand in the pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset

from fedtwin_client.records.events import Event
from fedtwin_client.records.images.burned_in import looks_like_text
from fedtwin_client.records.images.codestream_comments import clean_frames
from fedtwin_client.records.images.dicom_headers import deidentified
from fedtwin_client.records.images.dicom_reading import (
    DIRECTORY_CLASS,
    JPEG_SYNTAXES,
    SEGMENTATION_CLASS,
    attribute,
    check_pixels,
    class_uid,
    decoded,
    instance_uid,
    read_dataset,
)
from fedtwin_client.records.images.dicom_segmentation import (
    check_fit,
    outlined_series,
    segment_codes,
    segmentation_version,
)
from fedtwin_client.records.images.dicom_series import (
    Whose,
    body_part,
    flags,
    modality,
    series_text,
    series_times,
)
from fedtwin_client.records.images.moves import move_images
from fedtwin_client.records.images.store import ImageStore, link_to
from fedtwin_client.records.images.volumes import grid_of_series
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Desk, Version

HERE_ALREADY: Final = "an image that is here already"
_OF_THE_CODING: Final = ("PixelData", "PlanarConfiguration", "PhotometricInterpretation")
_LIKE_TEXT: Final = "pixels near the border that look like text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """An instance, placed.

    Attributes:
        identity: the patient.
        series: its name in the image store.
        instance: its name in the series.
        by_uid: whether the series has a Series Instance UID.
        outlines: it is a segmentation.
    """

    identity: Identity
    series: str
    instance: str
    by_uid: bool
    outlines: bool


class Intake:
    """Takes one instance after another into the image store.

    Args:
        desk: the import's, or the door's.
        images: where the images go.
        whose: how patients are known.
    """

    def __init__(self, desk: Desk, images: ImageStore, whose: Whose) -> None:
        self.desk = desk
        self.images = images
        self._whose = whose
        self._looked_at: set[str] = set()

    def find(self, dataset: Dataset, folder: str) -> Found:
        """Whose an instance is, and of which series.

        Args:
            dataset: the header.
            folder: where it was found, which tells series without a UID apart.

        Raises:
            UnusableError: it is no image, or does not say whose it is.
        """
        kind = class_uid(dataset)
        if kind == DIRECTORY_CLASS:
            raise UnusableError("a DICOMDIR, which only lists files", wrong=False)
        if attribute(dataset, "Rows") is None:
            name = kind.name if kind and kind.name != kind else "an object of an unknown class"
            if "Image Storage" in name or kind == SEGMENTATION_CLASS:
                raise UnusableError("an image without Rows: damaged or cut off")
            raise UnusableError(f"not an image: {name}", wrong=False)
        identity = self._whose.identity(dataset)
        text, by_uid = series_text(dataset, identity, folder)
        return Found(
            identity=identity,
            series=self.desk.pseudonyms.keyed("image series", text),
            instance=self.desk.pseudonyms.keyed("image instance", instance_uid(dataset)),
            by_uid=by_uid,
            outlines=kind == SEGMENTATION_CLASS,
        )

    def take(
        self,
        found: Found,
        data: bytes,
        place: Place,
        *,
        link: Path | None = None,
        received: datetime | None = None,
    ) -> Version:
        """Keep an instance; durable on return.

        Args:
            found: what `find` said of it.
            data: the file.
            place: for the account.
            link: leave the image there.
            received: when it came in by a door; none: what the file says.

        Returns:
            What its series now makes.

        Raises:
            UnusableError: it is damaged, or cannot be used.
            RecordError: the disk refuses.
        """
        dataset = read_dataset(data)
        check_pixels(dataset)
        subject = self.desk.pseudonyms.of(found.identity)
        self._refuse_another_patient(subject, found.series)
        times = series_times(dataset, self.desk.reading)
        if received is not None:
            times = Times(times.time, max(times.available_time, received))
        if found.outlines:
            return self._segmentation(dataset, found, subject, times, place)
        about = self._about(dataset, found, times)
        self._look(dataset, found, about, place)
        before = self.images.about(subject, found.series)
        stands = _joined(before, about)
        added = self._add(dataset, found, subject, link_to(link, data) if link else None)
        if not added and before is not None:
            self.desk.reading.tally.skip(HERE_ALREADY, place)
            stands = dict(before)
        self.images.describe(subject, found.series, stands)
        return series_version(self.desk.reading.source, subject, found.series, stands)

    def new_uid(self, uid: str) -> str:
        """The UID that stands for another: 128 bits of a keyed hash under 2.25 (PS3.5 B.2)."""
        return f"2.25.{int(self.desk.pseudonyms.keyed('dicom uid', uid), 16)}"

    def _segmentation(
        self, dataset: Dataset, found: Found, subject: int, times: Times, place: Place
    ) -> Version:
        origin = f"{_segmentations(self.desk.reading.source)}{found.instance}"
        uid, of = outlined_series(dataset), None
        if uid:
            of = self.desk.pseudonyms.keyed("image series", uid)
            grid = grid_of_series(self.images, subject, of)
            if grid is None:
                note = "a segmentation whose series is not here: not checked against it"
                self.desk.reading.tally.note(note, place)
            else:
                check_fit(dataset, grid)
        version = segmentation_version(dataset, origin, subject, times, self.desk.reading, place)
        codes = {str(number): code for number, code in segment_codes(dataset).items()}
        if not self._add(dataset, found, subject, None, folder=found.instance):
            self.desk.reading.tally.skip(HERE_ALREADY, place)
        about: dict[str, Any] = {"kind": "segmentation", "of": of, "flags": [], "structures": codes}
        self.images.describe(subject, found.instance, about)
        return version

    def _about(self, dataset: Dataset, found: Found, times: Times) -> dict[str, Any]:
        return {
            "kind": "dicom",
            "modality": modality(dataset),
            "body_part": body_part(dataset),
            "time": times.time.isoformat(),
            "available": times.available_time.isoformat(),
            "flags": flags(dataset, class_uid(dataset).name),
        }

    def _look(self, dataset: Dataset, found: Found, about: dict[str, Any], place: Place) -> None:
        """Decode the first image of each series, and count what is worth a look."""
        tally = self.desk.reading.tally
        if found.series not in self._looked_at:
            if looks_like_text(decoded(dataset)):
                about["flags"].append(_LIKE_TEXT)
            self._looked_at.add(found.series)
            if not found.by_uid:
                tally.note("a series without UID: grouped by folder, time and geometry", place)
            for flag in about["flags"]:
                tally.note(f"names may stand in the pixels: {flag}", place)
        if about["body_part"] is None:
            tally.note("Body Part Examined is absent or no DICOM term", place)

    def _add(
        self,
        dataset: Dataset,
        found: Found,
        subject: int,
        link: bytes | None,
        folder: str | None = None,
    ) -> bool:
        series = folder or found.series
        if link is not None:
            if (self.images.place(subject, series) / f"{found.instance}.dcm").exists():
                return False
            return self.images.add(subject, series, f"{found.instance}.link", link)
        if (self.images.place(subject, series) / f"{found.instance}.link").exists():
            return False
        name = f"{found.instance}.dcm"
        data = self._clean(dataset, subject)
        if (self.images.place(subject, series) / name).exists():
            before = self.images.read(subject, series, name)
            if before != data and same_image(read_dataset(before), read_dataset(data)):
                return False
        return self.images.add(subject, series, name, data)

    def _clean(self, dataset: Dataset, subject: int) -> bytes:
        """The file as it is kept."""
        instance, kind = instance_uid(dataset), class_uid(dataset)
        syntax = dataset.file_meta.TransferSyntaxUID
        try:
            clean = deidentified(dataset, f"{subject:016x}", self.new_uid)
            clean.SOPInstanceUID, clean.SOPClassUID = self.new_uid(instance), kind
            if syntax in JPEG_SYNTAXES:
                clean_frames(clean)
            clean.file_meta = FileMetaDataset()
            clean.file_meta.TransferSyntaxUID = syntax
            clean.file_meta.MediaStorageSOPClassUID = kind
            clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
            clean.preamble = b"\0" * 128
            written = BytesIO()
            clean.save_as(written, enforce_file_format=True)
        except UnusableError:
            raise
        except Exception as error:  # values of another kind than their VR says
            raise UnusableError("a header that cannot be de-identified: damaged") from error
        return written.getvalue()

    def _refuse_another_patient(self, subject: int, series: str) -> None:
        """Refuse a series of somebody else; of one who is merged with the patient it is moved."""
        for place in self.images.folder.glob(f"*/{series}"):
            owner = int(place.parent.name, 16)
            if owner == subject:
                continue
            if owner not in self.desk.pseudonyms.formers(subject):
                raise UnusableError("a series that is here already as another patient's")
            move_images(self.images, owner, subject, {series})


def same_image(one: Dataset, other: Dataset) -> bool:
    """Whether two files hold one image, coded in two ways that lose nothing.

    Raises:
        UnusableError: one cannot be decoded.
    """
    if not np.array_equal(decoded(one), decoded(other)):
        return False
    for dataset in (one, other):
        for keyword in _OF_THE_CODING:
            if keyword in dataset:
                delattr(dataset, keyword)
    return one == other


def series_version(source: str, subject: int, series: str, about: Mapping[str, Any]) -> Version:
    """The one event of a series."""
    origin = f"{source}:series/{series}"
    event = Event(
        subject_id=subject,
        time=datetime.fromisoformat(about["time"]),
        available_time=datetime.fromisoformat(about["available"]),
        code=f"DICOM//{about['modality']}",
        text_value=about["body_part"],
        source=f"{origin}#series",
        status="; ".join(about["flags"]) or None,
    )
    return Version(origin=origin, updated=None, events=[event])


def _segmentations(source: str) -> str:
    return f"{source}:segmentation/"


def _joined(before: Mapping[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """A series to which an image was added: it began with its first, and was known with its last.

    Raises:
        UnusableError: the image is of another modality.
    """
    if before is None:
        return new
    if before["modality"] != new["modality"]:
        raise UnusableError("another modality than the series it says it is of")
    return {
        **new,
        "body_part": before["body_part"] or new["body_part"],
        "time": min(before["time"], new["time"], key=datetime.fromisoformat),
        "available": max(before["available"], new["available"], key=datetime.fromisoformat),
        "flags": sorted({*before["flags"], *new["flags"]}),
    }
