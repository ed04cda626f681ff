"""Whose samples a file holds, and when they were taken."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtwin_client.records.numbered_lines import numbered_lines
from fedtwin_client.records.pseudonyms import written_identity
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.source import Desk
from fedtwin_protocol.errors import RecordError

_COLUMNS = ("sample", "patient", "date")
_OPTIONAL = ("reported",)
_LONGEST_LINE = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """One sample's patient.

    Attributes:
        patient: the patient's number.
        date: when the sample was taken, as it was written.
        reported: when the result became known, as written; none: with the date.
    """

    patient: str
    date: str
    reported: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class People:
    """The patients behind the samples of one import.

    Attributes:
        one: the patient of a file with a single sample.
        by_sample: or those of named samples.
        system: whose number it is.
    """

    one: Person | None = None
    by_sample: Mapping[str, Person]
    system: str

    def of_samples(self, samples: Sequence[str], file: str) -> dict[str, Person]:
        """Who is behind which sample of a file; samples that nobody names are left out.

        Raises:
            RecordError: one patient was given for several samples.
        """
        if self.one is None:
            return {name: self.by_sample[name] for name in samples if name in self.by_sample}
        if len(samples) != 1:
            raise RecordError(
                f"{file} holds {len(samples)} samples and one patient was given; name the patient "
                "of each in a file with the columns sample,patient,date and give it as --samples"
            )
        return {samples[0]: self.one}

    def subject(self, desk: Desk, person: Person) -> int:
        """A person's pseudonym."""
        return desk.pseudonyms.of(written_identity(self.system, person.patient))

    def times(self, desk: Desk, person: Person) -> Times:
        """When a person's sample was taken, and when its result became known.

        Raises:
            RecordError: a date that cannot be.
        """
        try:
            times = desk.reading.times([person.date], person.reported)
            if times.available_time < times.time:
                raise UnusableError("known before it was taken")
            return times
        except UnusableError as error:
            found = " and ".join(text[:40] for text in (person.date, person.reported) if text)
            raise RecordError(
                f"expected dates such as 2026-03-01 for a sample, found {found}: {error.reason}"
            ) from error


def one_person(patient: str, date: str | None, reported: str | None, system: str) -> People:
    """The patient of a file with one sample.

    Raises:
        RecordError: no number or no date; no date is ever made up.
    """
    if not patient.strip():
        raise RecordError("expected a patient's number, found none")
    if not date:
        raise RecordError(
            "expected the date on which the sample was taken (--date 2026-03-01): the file does "
            "not hold it, and none is made up"
        )
    person = Person(patient=patient.strip(), date=date, reported=reported)
    return People(one=person, by_sample={}, system=system)


def read_people(path: Path, system: str) -> People:
    """The file that leads from samples to patients: CSV, columns sample,patient,date[,reported].

    Raises:
        RecordError: it cannot be read, lacks a column, or a line lacks a cell.
    """
    lines = [line for _, line in numbered_lines(path, _LONGEST_LINE)]
    try:
        text = b"".join(lines).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"cannot read {path} as CSV in UTF-8: {error}") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if not set(_COLUMNS) <= set(header) or set(header) - set(_COLUMNS) - set(_OPTIONAL):
        raise RecordError(
            f"expected the columns sample,patient,date (and perhaps reported) in line 1 of {path}, "
            f"found {','.join(header)[:80] or 'none'}"
        )
    found: dict[str, Person] = {}
    patients: set[str] = set()
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        if len(row) != len(header) or not all(cells.get(name) for name in _COLUMNS):
            raise RecordError(f"expected sample, patient and date in line {number} of {path}")
        if cells["sample"] in found:
            raise RecordError(f"line {number} of {path} names a sample for the second time")
        if cells["patient"] in patients:
            raise RecordError(
                f"line {number} of {path} names a patient for the second time; import one of the "
                "two samples, for a later one would replace it"
            )
        patients.add(cells["patient"])
        found[cells["sample"]] = Person(
            patient=cells["patient"], date=cells["date"], reported=cells.get("reported") or None
        )
    if not found:
        raise RecordError(f"{path} names no sample")
    return People(by_sample=found, system=system)
