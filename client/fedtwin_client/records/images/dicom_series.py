"""What a DICOM instance says of its patient, its series and its times."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset

from fedtwin_client.records.images.dicom_reading import identifier, parts_of, text_of
from fedtwin_client.records.pseudonyms import Identity, written_identity
from fedtwin_client.records.reading import Reading, Times, UnusableError

_TABLES: Final = Path(__file__).parent / "imaging_tables"


def _terms(name: str) -> frozenset[str]:
    lines = (_TABLES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(term for line in lines if not line.startswith("#") for term in line.split())


MODALITIES: Final = _terms("modalities")
"""Terms that DICOM defines for the modality of images."""
BODY_PARTS: Final = _terms("body_parts")
"""Terms that DICOM defines for the body part."""
_SCREENS: Final = {"SCREEN SAVE", "SCREENSHOT", "SCREEN"}
_TEXT_ON_PIXELS: Final = {"US", "IVUS", "ES", "XC", "OT", "DG"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """How patients of DICOM files are known here.

    Attributes:
        system: of numbers without an issuer, and of `patient`; none: such files are put aside.
        issuers: identifier systems by Issuer of Patient ID; others stand for themselves, an object
            identifier as `urn:oid:`.
        patient: the number for files that hold none.
    """

    system: str | None
    issuers: Mapping[str, str] = field(default_factory=dict)
    patient: str | None = None

    def identity(self, dataset: Dataset) -> Identity:
        """Who a dataset is about.

        Raises:
            UnusableError: it holds no Patient ID and nobody is named, or another one than is named,
                or no one says whose numbers these are.
        """
        number, issuer = text_of(dataset, "PatientID"), text_of(dataset, "IssuerOfPatientID")
        if self.patient is not None:
            if number and number != self.patient:
                raise UnusableError("Patient ID is another than --patient says")
            number, issuer = self.patient, ""
        if not number:
            raise UnusableError("no Patient ID; name the patient with --patient")
        if len(number) > 64 or not number.isprintable():
            raise UnusableError("a Patient ID that is no number")
        system = self._system(issuer)
        if system is None:
            raise UnusableError(
                "no Issuer of Patient ID; say with --identifier-system whose numbers these are"
            )
        return written_identity(system, number)

    def _system(self, issuer: str) -> str | None:
        if not issuer:
            return self.system
        if issuer in self.issuers:
            return self.issuers[issuer]
        return f"urn:oid:{issuer}" if issuer.replace(".", "").isdigit() else f"dicom:{issuer}"


def series_text(dataset: Dataset, identity: Identity, folder: str) -> tuple[str, bool]:
    """What tells a series from others, and whether that is its Series Instance UID.

    Without one, images of one folder, patient, machine time, frame of reference and geometry are
    one series.

    Raises:
        UnusableError: the UID is not one.
    """
    uid = identifier(dataset, "SeriesInstanceUID")
    if uid:
        return uid, True
    told = [
        text_of(dataset, keyword)
        for keyword in (
            *("StudyInstanceUID", "FrameOfReferenceUID", "Modality", "SeriesNumber"),
            *("SeriesDate", "SeriesTime", "Rows", "Columns", "ImageOrientationPatient"),
            *("PixelSpacing", "ImageType"),
        )
    ]
    return "\n".join([folder, identity.system, identity.value, *told]), False


def series_times(dataset: Dataset, reading: Reading) -> Times:
    """When an image was taken, and when it was there to be seen.

    Taken: acquisition, else series, else study. There to be seen: the latest that the file says of
    when its content or the instance was made, and not before it was taken.

    Raises:
        UnusableError: no time, or one that cannot be.
    """
    zone = _zone(dataset)
    taken = [
        _written(dataset, "AcquisitionDateTime", zone),
        *(_pair(dataset, name, zone) for name in ("Acquisition", "Series", "Study")),
    ]
    times = reading.times(taken)
    later: list[datetime] = [times.available_time]
    for name in ("Content", "InstanceCreation"):
        written = _pair(dataset, name, zone)
        if written:
            later.append(reading.moment(written).known)
    return Times(times.time, max(later))


def flags(dataset: Dataset, class_name: str) -> list[str]:
    """Why people's names may stand in the pixels; empty where nothing says so."""
    kinds = {part.upper() for part in parts_of(dataset, "ImageType")}
    found = []
    if text_of(dataset, "BurnedInAnnotation").upper() == "YES":
        found.append("the file says that its pixels hold text (Burned In Annotation)")
    if "Secondary Capture" in class_name or text_of(dataset, "ConversionType"):
        found.append("a secondary capture")
    if kinds & _SCREENS:
        found.append("a screen shot")
    if text_of(dataset, "Modality") in _TEXT_ON_PIXELS:
        found.append(f"a modality whose images often hold text ({text_of(dataset, 'Modality')})")
    return found


def modality(dataset: Dataset) -> str:
    """The modality.

    Raises:
        UnusableError: it is absent, or no defined term for images.
    """
    written = text_of(dataset, "Modality").upper()
    if written not in MODALITIES:
        raise UnusableError("Modality is absent or no term that DICOM defines for images")
    return written


def body_part(dataset: Dataset) -> str | None:
    """The body part, if it is a term that DICOM defines."""
    written = text_of(dataset, "BodyPartExamined").upper().replace(" ", "")
    return written if written in BODY_PARTS else None


def _zone(dataset: Dataset) -> str:
    written = text_of(dataset, "TimezoneOffsetFromUTC")
    plain = written.lstrip("+-")
    if len(plain) == 4 and plain.isdigit() and written[0] in "+-":
        return f"{written[:3]}:{written[3:]}"
    return ""


def _pair(dataset: Dataset, name: str, zone: str) -> str:
    """A date and its time as ISO 8601; empty if there is no date."""
    date, time = text_of(dataset, f"{name}Date"), text_of(dataset, f"{name}Time")
    return _iso(date.replace(".", ""), time.replace(":", ""), zone) if date else ""


def _written(dataset: Dataset, keyword: str, zone: str) -> str:
    """A DT value as ISO 8601, with its own zone if it has one; empty if there is none."""
    text = text_of(dataset, keyword)
    sign = next((mark for mark in "+-" if mark in text), "")
    if sign:
        text, _, offset = text.partition(sign)
        zone = f"{sign}{offset[:2]}:{offset[2:4]}"
    return _iso(text[:8], text[8:], zone) if text else ""


def _iso(date: str, time: str, zone: str) -> str:
    """`20221208`, `140352.457` -> `2022-12-08T14:03:52.457`; what is no date stays as it is."""
    parts = [date[:4], date[4:6], date[6:8]]
    day = "-".join(part for part in parts if part)
    clock, _, fraction = time.partition(".")
    if len(clock) < 4 or len(date) != 8:
        return day if not clock or len(clock) == 2 else f"{day}T{clock}"
    seconds = clock[4:6] or "00"
    # A leap second is written 60 (PS3.5 6.2); the second before it is the nearest that exists.
    seconds = "59" if seconds == "60" else seconds
    return f"{day}T{clock[:2]}:{clock[2:4]}:{seconds}{'.' + fraction if fraction else ''}{zone}"


def described(value: Any) -> list[float]:
    """Numbers of a multi-valued attribute; empty if they are none."""
    try:
        return [float(part) for part in value]
    except (TypeError, ValueError):
        return []
