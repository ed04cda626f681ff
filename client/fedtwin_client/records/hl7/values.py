"""The answers of an OBX segment (OBX-2, OBX-5, OBX-6): numbers, coded answers, text, dates."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from fedtwin_client.records.codes.analytes import analyte
from fedtwin_client.records.codes.concepts import yes_or_no
from fedtwin_client.records.codes.tables import in_use
from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.records.hl7.codes import read_coded
from fedtwin_client.records.hl7.context import Context
from fedtwin_client.records.hl7.text import NULL, Marks, Segment, part, plain
from fedtwin_client.records.hl7.times import spelled_date, spelled_time
from fedtwin_client.records.reading import UnusableError, checked_number, finite

NUMBERS = ("NM", "SN")
CODED = ("CE", "CWE", "CNE", "CF")
TEXTS = ("ST", "TX", "FT")
_LONGEST_UNIT = 300
_TYPE = re.compile(r"[A-Z]{2,3}\Z")
_WORDS = ("IS", "ID")
_DATES = ("DT", "TS", "DTM")
_NUMBER = re.compile(r"(<=|>=|<|>)?\s*([+-]?(?:\d{1,400}\.?\d*|\.\d+)(?:[eE][+-]?\d{1,5})?)\Z")
_COMPARATORS = {"": None, "=": None, "<": "<", ">": ">", "<=": "<=", ">=": ">="}
_YES, _NO = re.compile(r"(HL70136|HL70532)//Y\Z"), re.compile(r"(HL70136|HL70532)//N\Z")
# ISO+ (chapter 7) writes a quotient with a full stop: mmol.l-1.
_ISO_QUOTIENT = re.compile(r"(.+?)[./](l|dl|ml|min|kg|m2|h|s)-1\Z", re.IGNORECASE)


class Value(NamedTuple):
    """One answer, named as in the event that it makes."""

    numeric_value: float | None = None
    text_value: str | None = None
    unit: str | None = None
    src_unit: str | None = None
    comparator: str | None = None


def read_values(obx: Segment, code: str, context: Context) -> Iterator[Value]:
    """Each repetition of OBX-5 as a value.

    Args:
        obx: the segment, not of a text type.
        code: of what was observed.
        context: of the message.

    Raises:
        UnusableError: no value, one of another type than it says, or a type that is not read.
    """
    kind = obx.text(2).upper()
    written = [text.strip() for text in obx.repetitions(5)]
    present = [text for text in written if text.strip("^&") and text != NULL]
    if not present:
        raise UnusableError("no value was recorded", wrong=False)
    if not kind:
        kind = "ST"
        context.tally.note("a value without its type (OBX-2), read as text", obx.place)
    if kind not in _READERS:
        named = f"type {kind}" if _TYPE.match(kind) else "no known type"
        raise UnusableError(f"values of {named} are not read", wrong=False)
    for repetition in present:
        yield _READERS[kind](repetition, obx, code, context)


def _plain(repetition: str, obx: Segment) -> str:
    return plain(repetition.split(obx.marks.component, 1)[0], obx.marks).strip()


def _number(repetition: str, obx: Segment, code: str, context: Context) -> Value:
    match = _NUMBER.match(_plain(repetition, obx))
    if match is None:
        raise UnusableError("expected a number, found text")
    return _checked(float(match[2]), match[1], obx, code)


def _structured(repetition: str, obx: Segment, code: str, context: Context) -> Value:
    """SN: comparator ^ number ^ separator ^ number; a range, ratio or grade is kept as text."""
    comparator, first, separator, second = (
        part(repetition, number, obx.marks) for number in (1, 2, 3, 4)
    )
    if not separator and not second:
        if comparator not in _COMPARATORS:
            raise UnusableError("a comparator that is not known")
        match = _NUMBER.match(first)
        if match is None or match[1]:
            raise UnusableError("expected a number, found text")
        return _checked(float(match[2]), _COMPARATORS[comparator], obx, code)
    if analyte(code) is not None:
        raise UnusableError("expected a number, found a range, ratio or grade")
    return Value(text_value=f"{comparator}{first}{separator}{second}", src_unit=unit_of(obx))


def _answer(repetition: str, obx: Segment, code: str, context: Context) -> Value:
    coded = read_coded(repetition, obx.marks, context.application)
    if coded.codes:
        if analyte(code) is not None:
            raise UnusableError("expected a number, found a coded answer")
        answer = coded.codes[0]
        yes = 1.0 if _YES.match(answer) else 0.0 if _NO.match(answer) else yes_or_no(answer)
        return Value(numeric_value=yes, text_value=answer)
    if analyte(code) is not None:
        raise UnusableError("expected a number, found text")
    return Value(text_value=coded.text)


def _string(repetition: str, obx: Segment, code: str, context: Context) -> Value:
    """Text; a number with a unit, which laboratories send as text for the sake of `<`, is one."""
    text = plain(repetition, obx.marks).strip()
    match = _NUMBER.match(text)
    if match is not None and (unit_of(obx) or analyte(code) is not None):
        return _checked(float(match[2]), match[1], obx, code)
    if analyte(code) is not None:
        raise UnusableError("expected a number, found text")
    return Value(text_value=text)


def _date(repetition: str, obx: Segment, code: str, context: Context) -> Value:
    text = _plain(repetition, obx)
    timed = obx.text(2).upper() == "TM"
    spelled = spelled_time(text) if timed else spelled_date(text, context.zone)
    if spelled is None:
        raise UnusableError("expected a date or time, found something else")
    return Value(text_value=spelled)


def _checked(value: float, comparator: str | None, obx: Segment, code: str) -> Value:
    written = unit_of(obx)
    number = checked_number(code, finite(value), _understood(written, in_use().version))
    return Value(
        numeric_value=number.value, unit=number.unit, src_unit=written, comparator=comparator
    )


def unit_of(obx: Segment) -> str | None:
    """The unit (OBX-6): of its identifier, text and alternates the first that is known here.

    Raises:
        UnusableError: something stands there that is too long to be one.
    """
    raw = obx.raw(6)
    if len(raw) > _LONGEST_UNIT:
        raise UnusableError("expected a unit, found a long text")
    return _unit(raw, obx.marks, in_use().version) if raw else None


@lru_cache(maxsize=4_096)
def _unit(raw: str, marks: Marks, tables: str) -> str | None:
    """Remembered by the version of the tables, for the site may have spellings of its own."""
    repetition = raw.split(marks.repetition, 1)[0]
    written = [text for text in (part(repetition, n, marks) for n in (1, 2, 4, 5)) if text]
    known = (text for text in written if normal_unit(_understood(text, tables)) is not None)
    return next(known, written[0] if written else None)


@lru_cache(maxsize=4_096)
def _understood(unit: str | None, tables: str) -> str | None:
    """A unit with its quotient written as UCUM does, if that makes it a known one.

    Remembered by the version of the tables, as above.
    """
    del tables
    quotient = _ISO_QUOTIENT.match(unit or "")
    if quotient is None or normal_unit(unit) is not None:
        return unit
    usual = f"{quotient[1]}/{quotient[2]}"
    return usual if normal_unit(usual) is not None else unit


_READERS = {
    "NM": _number, "SN": _structured, **dict.fromkeys(CODED, _answer),
    **dict.fromkeys((*TEXTS, *_WORDS), _string), **dict.fromkeys((*_DATES, "TM"), _date),
}  # fmt: skip
