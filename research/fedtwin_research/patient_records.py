"""A researcher's records of patients, made into the sequences that a model reads.

The arithmetic is the sites' (`fedtwin_protocol.sequence_encoding`): records whose codes are not in
the plan's vocabulary, or that lie before its window, are not read; of the others the most recent
are, oldest first; a value outside its plausible range counts as none. Records of one moment stay in
the order in which they are given (a site has them by the time they were known, source and code).
All of it is counted in the warnings.
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.sequence_encoding import RawRecords, implausible, sequence_arrays
from fedtwin_protocol.study_sequence import Sequence as SequencePlan
from fedtwin_protocol.study_sequence import SequenceCode
from fedtwin_research.columns import is_bool, is_missing, table_columns, with_hints
from fedtwin_research.units import Conversion, conversions_to, ucum
from fedtwin_twins.families import RecordRows

FIELDS: Final = ("code", "value", "unit", "days_before")
PATIENT: Final = "patient"
_SHAPES: Final = (
    "expected a list for each patient of its records as (code, value, unit, days before the index "
    "date), or a table with the columns patient (row of the patient, from 0), code, value, unit, "
    "days_before"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Checked records.

    Attributes:
        rows: as the model reads them.
        warnings: sentences about what is not read, or is read without its value.
    """

    rows: RecordRows
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """One record that is in the vocabulary: word from 1, value in its unit, days before."""

    patient: int
    word: int
    days: float
    value: float


@dataclass(slots=True)
class _Unread:
    """How many records are left out, and for which codes."""

    other_codes: int = 0
    too_early: int = 0
    names: dict[str, None] = field(default_factory=dict)


def record_rows(plan: SequencePlan, records: Any, patients: int) -> Records:
    """Check, convert and order a researcher's records.

    Args:
        plan: what the model reads.
        records: for each patient a list of (code, value, unit, days before the index date) or of
            mappings with `code`, `days_before` and, where there is a value, `value` and `unit`; or
            a table (mapping of columns, pandas DataFrame, pyarrow Table, numpy array whose columns
            have names) that has `patient`, too. Value None or NaN: none; unit None: the plan's.
        patients: how many there are.

    Raises:
        ReleaseError: names the patient and the record (both counted from 0), what was expected, and
            what was found.
    """
    reader = _Reader(plan)
    found, unread = [], _Unread()
    for patient, number, fields in _each(records, patients):
        where = f"records of patient {patient}, record {number}"
        record = reader.read(patient, fields, where)
        if record is None:
            unread.other_codes += 1
            unread.names[fields["code"]] = None
        elif plan.window_days is not None and record.days > plan.window_days:
            unread.too_early += 1
        else:
            found.append(record)
    found.sort(key=lambda record: (record.patient, -record.days))
    raw = RawRecords(
        places=np.array([record.patient for record in found], np.int64),
        words=np.array([record.word for record in found], np.int64),
        days=np.array([record.days for record in found], np.float64),
        values=np.array([record.value for record in found], np.float64),
    )
    codes, values = sequence_arrays(plan, patients, raw)
    warnings = [*_unread(plan, unread, len(found)), *_read(plan, raw, patients)]
    return Records(rows=RecordRows(codes=codes, numbers=values), warnings=tuple(warnings))


class _Reader:
    """Reads single records of a plan's vocabulary."""

    def __init__(self, plan: SequencePlan) -> None:
        self._words = {word.code: place for place, word in enumerate(plan.vocabulary, start=1)}
        self._vocabulary = plan.vocabulary
        self._known: dict[int, dict[str, Conversion]] = {}

    def read(self, patient: int, fields: Mapping[str, Any], where: str) -> _Record | None:
        """A record, or none if its code is not in the vocabulary."""
        if not isinstance(fields["code"], str):
            raise ReleaseError(
                f"{where}: expected a code such as '{self._vocabulary[0].code}', found "
                f"{fields['code']!r}"
            )
        days = _number(fields["days_before"])
        if days is None or not 0 <= days < math.inf:
            raise ReleaseError(
                f"{where}: expected days before the index date of 0 or more, found "
                f"{fields['days_before']!r}; what comes after it may not be used"
            )
        place = self._words.get(fields["code"])
        if place is None:
            return None
        word = self._vocabulary[place - 1]
        value = math.nan
        if word.plausible is not None and not is_missing(fields["value"]):
            value = self._value(place, word, fields, where)
        return _Record(patient=patient, word=place, days=days, value=value)

    def _value(
        self, place: int, word: SequenceCode, fields: Mapping[str, Any], where: str
    ) -> float:
        number = _number(fields["value"])
        if number is None:
            raise ReleaseError(
                f"{where}: expected a number or None as the value of {word.code}, found "
                f"{fields['value']!r}"
            )
        if place not in self._known:
            self._known[place] = conversions_to(word.unit, (word.code,))
        unit = word.unit if is_missing(fields["unit"]) else fields["unit"]
        conversion = self._known[place].get(ucum(unit)) if isinstance(unit, str) else None
        if conversion is None:
            raise ReleaseError(
                f"{where}: cannot convert {unit!r} of {word.code} to {word.unit!r}; expected one "
                f"of {', '.join(self._known[place])}"
            )
        if conversion == Conversion(factor=1.0):
            return number
        return float(f"{conversion.of(number):.12g}")  # as sites do, so that edges agree


def _each(records: Any, patients: int) -> Any:
    """Patient, number of the record, and the record's fields, of each record."""
    table = table_columns(records)
    if table is None and isinstance(records, Mapping):
        table = {str(name): list(column) for name, column in records.items()}
    if table is not None:
        yield from _of_table(table, patients)
        return
    if not isinstance(records, Sequence) or isinstance(records, str):
        raise ReleaseError(f"records: {_SHAPES}; found {type(records).__name__}")
    if len(records) != patients:
        raise ReleaseError(
            f"records: expected a list for each of the {patients} patients, found {len(records)} "
            "items; a patient without records has an empty list"
        )
    for patient, own in enumerate(records):
        if not isinstance(own, Sequence) or isinstance(own, str):
            raise ReleaseError(f"records of patient {patient}: {_SHAPES}; found {own!r:.60}")
        for number, record in enumerate(own):
            yield patient, number, _fields(record, f"records of patient {patient}, record {number}")


def _fields(record: Any, where: str) -> dict[str, Any]:
    """The four fields of one record."""
    if isinstance(record, Mapping):
        lacks = [name for name in ("code", "days_before") if name not in record]
        extra = [str(name) for name in record if name not in FIELDS]
        if lacks or extra:
            raise ReleaseError(f"{where}: {_faults(lacks, extra, FIELDS)}")
        return {name: record.get(name) for name in FIELDS}
    if not isinstance(record, Sequence) or isinstance(record, str) or len(record) != len(FIELDS):
        raise ReleaseError(
            f"{where}: expected (code, value, unit, days before the index date), found "
            f"{record!r:.60}"
        )
    return dict(zip(FIELDS, record, strict=True))


def _of_table(table: dict[str, list[Any]], patients: int) -> Any:
    needed = (PATIENT, "code", "days_before")
    lacks = [name for name in needed if name not in table]
    extra = [name for name in table if name not in (PATIENT, *FIELDS)]
    if lacks or extra:
        raise ReleaseError(f"records: {_faults(lacks, extra, (PATIENT, *FIELDS))}")
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ReleaseError(f"records: the columns differ in length: {text}")
    for number in range(lengths[PATIENT]):
        patient = _number(table[PATIENT][number])
        if patient is None or patient not in range(patients):
            raise ReleaseError(
                f"records, row {number}: expected as patient a row of the columns, 0 to "
                f"{patients - 1}, found {table[PATIENT][number]!r}"
            )
        fields = {name: table[name][number] if name in table else None for name in FIELDS}
        yield int(patient), number, fields


def _faults(lacks: list[str], extra: list[str], names: tuple[str, ...]) -> str:
    parts = [f"missing: {', '.join(lacks)}"] if lacks else []
    parts += [f"not asked for: {with_hints(extra, list(names))}"] if extra else []
    return f"the fields do not fit; {'; '.join(parts)}"


def _number(value: Any) -> float | None:
    """A plain number, or none."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, numbers.Real) or is_bool(value):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _unread(plan: SequencePlan, unread: _Unread, read: int) -> list[str]:
    """Sentences about records that are left out."""
    total = read + unread.other_codes + unread.too_early
    found = []
    if unread.other_codes:
        names = list(unread.names)
        named = with_hints(names[:5], [word.code for word in plan.vocabulary])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        found.append(
            f"left out for codes that the model does not read: {unread.other_codes} of {total} "
            f"records ({named}{more})"
        )
    if unread.too_early:
        found.append(
            f"left out as more than {plan.window_days} days before the index date: "
            f"{unread.too_early} of {total} records"
        )
    return found


def _read(plan: SequencePlan, raw: RawRecords, patients: int) -> list[str]:
    """Sentences about records that are not read whole."""
    found = []
    counts = np.bincount(raw.places, minlength=patients)
    cut, empty = int((counts > plan.most_records).sum()), int((counts == 0).sum())
    if cut:
        found.append(
            f"more than {plan.most_records} records, of which the most recent are read: {cut} of "
            f"{patients} patients"
        )
    if empty:
        found.append(f"no record that the model reads: {empty} of {patients} patients")
    odd = implausible(plan, raw)
    if odd.any():
        words = sorted({plan.vocabulary[word - 1].code for word in raw.words[odd]})
        found.append(
            f"values outside the plausible range, which count as none: {int(odd.sum())} "
            f"({', '.join(words[:5])})"
        )
    return found
