"""Reading the files that vocabularies are published in: code, name, and whether it is still active.

- SNOMED CT RF2 snapshots, concepts and descriptions (SNOMED CT Release File Specification)
- RxNorm, `RXNCONSO.RRF` (NLM, RxNorm Technical Documentation, section 12)
- OMOP `CONCEPT.csv` (OMOP CDM 5.4, table CONCEPT)
- ICD-10-CM, code list and order file (CDC/NCHS, `icd10cm_codes`, `icd10cm_order`)
- ICD-10-GM, `kodes.txt` (BfArM, metadata of the systematic index)
- ATC or another list as CSV, with a column for the code and one for the name

Nothing of these is shipped: their licences are the site's own.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from fedtwin_protocol.errors import RecordError

_FSN: Final = "900000000000003001"
_LONGEST: Final = 300
_LONGEST_LINE: Final = 1024 * 1024
_OMOP: Final = {
    "LOINC": "LOINC", "SNOMED": "SNOMED", "RxNorm": "RXNORM", "ATC": "ATC", "NDC": "NDC",
    "CVX": "CVX", "ICD10": "ICD10", "ICD10CM": "ICD10", "ICD10GM": "ICD10", "ICD10CN": "ICD10",
    "ICD9CM": "ICD9",
}  # fmt: skip
_ICD: Final = re.compile(r"[A-Z]\d[0-9A-Z](?:\.?[0-9A-Z]{1,4})?\Z")
_CM_CODES: Final = re.compile(r"([A-Z]\d[0-9A-Z]{1,5})\s+(\S.*)\Z")
_CM_ORDER: Final = re.compile(r"\d{5} ([A-Z]\d[0-9A-Z]{1,5})\s+[01] (.{60}) ?(.*)\Z")
_CODE_NAMES: Final = ("atc code", "atc_code", "atccode", "code", "kode")
_NAME_NAMES: Final = (
    "atc level name", "atc_name", "atcname", "name", "display", "term", "title", "description",
)  # fmt: skip


class Concept(NamedTuple):
    """One concept of a vocabulary; without a name where another file holds it."""

    vocabulary: str
    code: str
    name: str | None
    active: bool


class Lines(NamedTuple):
    """The lines of a file after the first, numbered from 2, and the first."""

    file: Path
    first: str
    rest: Iterator[tuple[int, str]]


def read_vocabulary(file: Path, vocabulary: str | None) -> Iterator[Concept]:
    """The concepts of one file.

    Args:
        file: in one of the forms above; text in UTF-8 or, if it is none, Windows-1252.
        vocabulary: of a plain list, which does not say; elsewhere it must fit or be none.

    Raises:
        RecordError: it cannot be read, is of no form that is known, or a line is not whole.
    """
    try:
        yield from _read(file, vocabulary, _encoding(file))
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror}") from error
    except csv.Error as error:
        raise RecordError(f"{file} is not CSV: {error}") from error


def _encoding(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            while opened.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _short_lines(opened: TextIO, file: Path) -> Iterator[str]:
    number = 1
    while line := opened.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise RecordError(f"line {number} of {file} is longer than 1 MiB: is it a vocabulary?")
        yield line
        number += 1


def _read(file: Path, vocabulary: str | None, encoding: str) -> Iterator[Concept]:
    with file.open(encoding=encoding, errors="replace") as opened:
        whole = _short_lines(opened, file)
        first = next(whole, "").rstrip("\r\n")
        rest = ((number, line.rstrip("\r\n")) for number, line in enumerate(whole, 2))
        lines = Lines(file, first, rest)
        columns = [name.strip().strip('"').lower() for name in first.split("\t")]
        if {"id", "definitionstatusid"} <= set(columns):
            yield from _checked(_rf2_concepts(lines, columns), lines, "SNOMED", vocabulary)
        elif {"conceptid", "typeid", "term"} <= set(columns):
            yield from _checked(_rf2_descriptions(lines, columns), lines, "SNOMED", vocabulary)
        elif first.count("|") in {17, 18}:
            yield from _checked(_rxnorm(lines), lines, "RXNORM", vocabulary)
        elif _CM_ORDER.match(first) or _CM_CODES.match(first):
            yield from _checked(_icd10_cm(lines), lines, "ICD10", vocabulary)
        elif _is_gm(first):
            yield from _checked(_icd10_gm(lines), lines, "ICD10", vocabulary)
        else:
            yield from _table(lines, vocabulary)


def _checked(
    concepts: Iterable[Concept], lines: Lines, found: str, wanted: str | None
) -> Iterable[Concept]:
    if wanted not in {None, found}:
        raise RecordError(f"{lines.file} is a file of {found}, not of {wanted}")
    return concepts


def _cells(lines: Lines, separator: str, least: int, *, with_first: bool) -> Iterator[list[str]]:
    if with_first:
        yield lines.first.split(separator)
    for number, line in lines.rest:
        if not line.strip():
            continue
        cells = line.split(separator)
        if len(cells) < least:
            raise RecordError(
                f"{lines.file}, line {number}: expected {least} cells, found {len(cells)}; was the "
                "file cut off?"
            )
        yield cells


def _rf2_concepts(lines: Lines, columns: list[str]) -> Iterator[Concept]:
    identifier, active = columns.index("id"), columns.index("active")
    for cells in _cells(lines, "\t", len(columns), with_first=False):
        yield Concept("SNOMED", cells[identifier], None, cells[active] == "1")


def _rf2_descriptions(lines: Lines, columns: list[str]) -> Iterator[Concept]:
    concept, kind, term, active = (
        columns.index(name) for name in ("conceptid", "typeid", "term", "active")
    )
    for cells in _cells(lines, "\t", len(columns), with_first=False):
        if cells[kind] == _FSN and cells[active] == "1":
            yield Concept("SNOMED", cells[concept], cells[term][:_LONGEST], True)


def _rxnorm(lines: Lines) -> Iterator[Concept]:
    for cells in _cells(lines, "|", 18, with_first=True):
        in_use = cells[16] in {"", "N"}
        if in_use and cells[11] == "RXNORM" and cells[12] not in {"SY", "TMSY", "ET"}:
            yield Concept("RXNORM", cells[0], cells[14][:_LONGEST], True)


def _icd10_cm(lines: Lines) -> Iterator[Concept]:
    yield _cm_line(lines.file, 1, lines.first)
    for number, line in lines.rest:
        if line.strip():
            yield _cm_line(lines.file, number, line)


def _cm_line(file: Path, number: int, line: str) -> Concept:
    order, plain = _CM_ORDER.match(line), _CM_CODES.match(line)
    if order is not None:
        name = (order[3] or order[2]).strip()
        return Concept("ICD10", dotted(order[1]), name[:_LONGEST], True)
    if plain is None:
        raise RecordError(f"{file}, line {number}: expected a code and its name")
    return Concept("ICD10", dotted(plain[1]), plain[2].strip()[:_LONGEST], True)


def _is_gm(line: str) -> bool:
    cells = line.split(";")
    return len(cells) >= 9 and bool(_ICD.match(cells[6])) and cells[0] in {"3", "4", "5"}


def _icd10_gm(lines: Lines) -> Iterator[Concept]:
    for cells in _cells(lines, ";", 9, with_first=True):
        yield Concept("ICD10", dotted(cells[6].rstrip(".-")), cells[8][:_LONGEST], True)


def _table(lines: Lines, vocabulary: str | None) -> Iterator[Concept]:
    """A list with a first line of names: OMOP's, or any with a code and a name."""
    separator = max("\t;,|", key=lines.first.count)
    (first,) = csv.reader([lines.first], delimiter=separator)
    names = [name.strip().lower() for name in first]
    quoting: Any = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    text = (line for _, line in lines.rest)
    rows = csv.reader(text, delimiter=separator, strict=True, quoting=quoting)
    if {"concept_code", "concept_name", "vocabulary_id"} <= set(names):
        yield from _omop(lines.file, names, rows, vocabulary)
        return
    code = next((names.index(name) for name in _CODE_NAMES if name in names), None)
    name = next((names.index(name) for name in _NAME_NAMES if name in names), None)
    if code is None or name is None:
        raise RecordError(
            f"{lines.file} is of no form that is known: expected SNOMED RF2, RXNCONSO.RRF, an OMOP "
            "CONCEPT.csv, an ICD-10-CM or -GM list, or a CSV with the columns 'code' and 'name'"
        )
    if vocabulary is None and names[code].startswith("atc"):
        vocabulary = "ATC"
    if vocabulary is None:
        raise RecordError(f"{lines.file} does not say which vocabulary it is; give --vocabulary")
    spell: Callable[[str], str] = dotted if vocabulary == "ICD10" else str
    for number, cells in enumerate(rows, 2):
        if not any(cells):
            continue
        if len(cells) <= max(code, name) or not cells[code].strip():
            raise RecordError(f"{lines.file}, row {number}: expected a code and its name")
        yield Concept(vocabulary, spell(cells[code].strip()), cells[name].strip()[:_LONGEST], True)


def _omop(
    file: Path, names: list[str], rows: Iterable[list[str]], wanted: str | None
) -> Iterator[Concept]:
    code, name, vocabulary = (
        names.index(column) for column in ("concept_code", "concept_name", "vocabulary_id")
    )
    invalid = names.index("invalid_reason") if "invalid_reason" in names else None
    for number, cells in enumerate(rows, 2):
        if not any(cells):
            continue
        if len(cells) != len(names):
            raise RecordError(
                f"{file}, row {number}: expected {len(names)} cells, found {len(cells)}"
            )
        known = _OMOP.get(cells[vocabulary])
        if known is not None and wanted in {None, known}:
            active = invalid is None or not cells[invalid]
            yield Concept(known, cells[code], cells[name][:_LONGEST], active)


def dotted(code: str) -> str:
    """An ICD-10 code as records write it, with the dot after the third character."""
    plain = code.replace(".", "")
    return f"{plain[:3]}.{plain[3:]}" if len(plain) > 3 else plain
