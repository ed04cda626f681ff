"""The tables that glucose sensors' makers export, told apart by the names of their columns.

Dexcom Clarity: one line an event, with `Event Type` and one column for each kind of value.
CareLink: lines about the export, then a section for each device with the same columns, and one with
each day's total of automatic insulin.
LibreView: a line about the export, then one line a record, with one column for each kind of value.
Plain: a patient, a time and a glucose value (the layout of R's iglu: `id,time,gl`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fedtwin_protocol.errors import RecordError

SENSOR = "LOINC//99504-3"  # Glucose [Mass/volume] in Interstitial fluid
METER = "LOINC//41653-7"  # Glucose [Mass/volume] in Capillary blood by Glucometer
_UNIT = re.compile(r"mg/dl|mmol/l", re.IGNORECASE)
_PLAIN_NAMES = {
    "patient": {"id", "patient", "subject", "patient_id", "subject_id"},
    "time": {"time", "timestamp", "datetime", "date_time"},
    "glucose": {"gl", "glucose", "value", "glucose_value"},
}
_CLARITY_KINDS = {"EGV": SENSOR, "Calibration": METER}
_CLARITY_INSULIN = {
    "Fast-Acting": "CGM//insulin-fast-acting",
    "Long-Acting": "CGM//insulin-long-acting",
}
_LIBRE_COLUMNS = (
    ("Historic Glucose", SENSOR, "historic"),
    ("Scan Glucose", SENSOR, "scan"),
    ("Strip Glucose", METER, "strip"),
    ("Ketone", "CGM//ketones", "ketone"),
    ("Rapid-Acting Insulin (units)", "CGM//insulin-fast-acting", "rapid"),
    ("Long-Acting Insulin", "CGM//insulin-long-acting", "long"),
    ("Meal Insulin", "CGM//insulin-fast-acting", "meal"),
    ("Correction Insulin", "CGM//insulin-fast-acting", "correction"),
    ("Carbohydrates (grams)", "CGM//carbohydrates", "carbohydrates"),
)
_CARELINK_COLUMNS = (
    ("Sensor Glucose", SENSOR, "sensor"),
    ("BG Reading", METER, "meter"),
    ("Bolus Volume Delivered (U)", "CGM//insulin-fast-acting", "bolus"),
    ("BWZ Carb Input (grams)", "CGM//carbohydrates", "carbohydrates"),
)
_DIVIDER = re.compile(r"-{5,}\Z")
_UNITS = {"CGM//insulin-fast-acting": "U", "CGM//insulin-long-acting": "U", "CGM//insulin": "U"}
_UNITS |= {"CGM//carbohydrates": "g"}


class Cell(NamedTuple):
    """One value of a line: what it is, as it was written, in which unit; `part` names it."""

    code: str
    text: str
    unit: str | None
    part: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How to read the lines of one file.

    Attributes:
        name: `Dexcom Clarity`, `LibreView`, `Medtronic CareLink` or `plain`.
        names: of the columns.
        time: the column with the time, or with the date.
        clock: the column with the time of day, if that is another.
        patient: the column with the patient; none where the file is of one.
        lowest: below it the sensor says `Low`, mg/dL.
        highest: above it the sensor says `High`, mg/dL.
        glucose_unit: of glucose values.
        values: column, code and part of each kind of value; of Clarity's glucose column, no code.
    """

    name: str
    names: tuple[str, ...]
    time: int
    patient: int | None
    lowest: float
    highest: float
    glucose_unit: str | None
    values: tuple[tuple[int, str, str], ...]
    kind: int | None = None
    subtype: int | None = None
    clock: int | None = None

    def written_time(self, row: Sequence[str]) -> str:
        """Date and time of a line, as they are written; empty where one is."""
        if self.clock is None:
            return row[self.time].strip()
        parts = row[self.time].strip(), row[self.clock].strip()
        return " ".join(parts) if all(parts) else ""

    def section(self, row: Sequence[str]) -> str | None:
        """The name of the section that a line begins; none if it begins none.

        Raises:
            RecordError: a section has other columns than the first.
        """
        if self.clock is None:
            return None
        if _DIVIDER.match(row[0].strip()):
            return " ".join(cell.strip() for cell in row[1:] if cell.strip())
        if row[0].strip() == "Index" and tuple(cell.strip() for cell in row) != self.names:
            raise RecordError(
                f"a section of {self.name}'s export has other columns than the first; "
                "export each device for itself"
            )
        return "" if row[0].strip() == "Index" else None

    def cells(self, row: Sequence[str]) -> list[Cell]:
        """The values of a line that are not empty."""
        found = []
        for at, code, part in self.values:
            if row[at].strip():
                meant = self._code(row, code)
                if not meant:  # the limit of an alert, say
                    continue
                unit = self.glucose_unit if meant in {SENSOR, METER} else _UNITS.get(meant)
                if meant == "CGM//ketones":
                    unit = "mmol/L"
                found.append(Cell(meant, row[at].strip(), unit, part))
        return found

    def why_not(self, row: Sequence[str]) -> str:
        """Why a line without a value makes no event."""
        kind = row[self.kind].strip() if self.kind is not None else ""
        if self.name == "Dexcom Clarity" and kind not in {"EGV", "Calibration", "Insulin", "Carbs"}:
            shown = kind if re.fullmatch(r"[A-Za-z][A-Za-z ]{0,29}", kind) else "of another kind"
            return f"an event {shown} is not read"
        if self.name == "Medtronic CareLink":
            return "an entry of the pump or sensor that is not kept"
        if self.name == "LibreView" and any(cell.strip() for cell in row[self.time + 2 :]):
            return "a note or another entry that is not kept"
        return "no value was recorded"

    def _code(self, row: Sequence[str], code: str) -> str:
        if code == "glucose":
            kind = row[self.kind].strip() if self.kind is not None else "EGV"
            return _CLARITY_KINDS.get(kind, "")
        if code == "insulin":
            subtype = row[self.subtype].strip() if self.subtype is not None else ""
            return _CLARITY_INSULIN.get(subtype, "CGM//insulin")
        return code


def find_layout(rows: Sequence[Sequence[str]], unit: str | None) -> tuple[int, Layout] | None:
    """The line with the names of the columns among a file's first lines, and its layout.

    Args:
        rows: the first lines.
        unit: of glucose, if somebody has said it; the file's own word comes first.

    Raises:
        RecordError: the layout is known, but a column that it needs is absent, or the unit.
    """
    for number, row in enumerate(rows):
        names = tuple(name.strip() for name in row)
        for attempt in (_clarity, _libre, _carelink, _plain):
            layout = attempt(names, unit)
            if layout is not None:
                return number, layout
    return None


def _clarity(names: tuple[str, ...], unit: str | None) -> Layout | None:
    time, kind = _starting(names, "Timestamp"), _starting(names, "Event Type")
    if time is None or kind is None:
        return None
    glucose = _starting(names, "Glucose Value")
    if glucose is None:
        raise RecordError(f"Dexcom Clarity's column 'Glucose Value' is absent from {names}")
    values = [(glucose, "glucose", "glucose")]
    for start, code in (("Insulin Value", "insulin"), ("Carb Value", "CGM//carbohydrates")):
        at = _starting(names, start)
        if at is not None:
            values.append((at, code, start.split()[0].lower()))
    return Layout(
        name="Dexcom Clarity",
        names=names,
        time=time,
        patient=None,
        lowest=40.0,
        highest=400.0,
        glucose_unit=_unit(names[glucose], unit),
        values=tuple(values),
        kind=kind,
        subtype=_starting(names, "Event Subtype"),
    )


def _libre(names: tuple[str, ...], unit: str | None) -> Layout | None:
    time = _starting(names, "Device Timestamp")
    if time is None:
        return None
    values = []
    for start, code, part in _LIBRE_COLUMNS:
        at = _starting(names, start)
        if at is not None:
            values.append((at, code, part))
    glucose = [at for at, code, _ in values if code in {SENSOR, METER}]
    if not glucose:
        raise RecordError("LibreView's columns 'Historic Glucose' and 'Scan Glucose' are absent")
    return Layout(
        name="LibreView",
        names=names,
        time=time,
        patient=None,
        lowest=40.0,
        highest=500.0,
        glucose_unit=_unit(names[glucose[0]], unit),
        values=tuple(values),
        kind=_starting(names, "Record Type"),
    )


def _carelink(names: tuple[str, ...], unit: str | None) -> Layout | None:
    if names[:3] != ("Index", "Date", "Time"):
        return None
    places = ((_starting(names, start), code, part) for start, code, part in _CARELINK_COLUMNS)
    values = tuple((at, code, part) for at, code, part in places if at is not None)
    glucose = [at for at, code, _ in values if code in {SENSOR, METER}]
    if not glucose:
        raise RecordError("CareLink's columns 'Sensor Glucose' and 'BG Reading' are absent")
    return Layout(
        name="Medtronic CareLink",
        names=names,
        time=1,
        clock=2,
        patient=None,
        # Guardian 3 shows 40 mg/dL and more, Guardian 4 and Simplera 50: this is true of either.
        lowest=50.0,
        highest=400.0,
        glucose_unit=_unit(names[glucose[0]], unit),
        values=values,
    )


def _plain(names: tuple[str, ...], unit: str | None) -> Layout | None:
    bare = [re.sub(r"[ _(\[]*(mg/dl|mmol/l)[)\]]*", "", name.lower()).strip() for name in names]
    places = {
        what: next((at for at, name in enumerate(bare) if name in known), None)
        for what, known in _PLAIN_NAMES.items()
    }
    time, glucose = places["time"], places["glucose"]
    if time is None or glucose is None:
        return None
    if bare[glucose] == "value" and set(bare) - set().union(*_PLAIN_NAMES.values()):
        return None  # another column may say that a line is of insulin
    return Layout(
        name="plain",
        names=names,
        time=time,
        patient=places["patient"],
        lowest=40.0,
        highest=400.0,
        glucose_unit=_unit(names[glucose], unit),
        values=((glucose, SENSOR, "glucose"),),
    )


def _starting(names: Sequence[str], start: str) -> int | None:
    return next((at for at, name in enumerate(names) if name.startswith(start)), None)


def _unit(name: str, said: str | None) -> str:
    found = _UNIT.search(name)
    if found is None and said is None:
        raise RecordError(
            f"the column '{name[:60]}' names no unit; say --unit mg/dL or --unit mmol/L"
        )
    written = "mg/dL" if (found[0] if found else said or "").lower() == "mg/dl" else "mmol/L"
    if said is not None and found is not None and written != said:
        raise RecordError(f"the file says {written} in '{name[:60]}', and --unit says {said}")
    return written
