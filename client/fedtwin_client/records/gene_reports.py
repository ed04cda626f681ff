"""Ready calls of genes: PharmCAT's reports and reported diplotypes, as a source.

- `*.report.tsv`: PharmCAT's table of calls, of one sample or of many (`Sample ID`);
- `*.phenotype.json`, also gzipped: its Phenotyper's results;
- reported calls (PharmCAT's "outside call" format): gene, diplotype, phenotype, activity score,
  separated by tabs, without column names; lines that begin with `#` are remarks.

What the report says is kept as it says it. Only where a reported diplotype has no phenotype is it
looked up in this node's tables, with the source in `status`.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.gene_events import GeneResult, gene_events, gene_origin
from fedtwin_client.records.people import People, Person
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.source import Desk, OpenSource, Version
from fedtwin_client.records.variant_files import numbered_lines
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.phenotypes import Meaning, meaning_of, split_diplotype
from fedtwin_twins.genes.tables import GeneTable

_LONGEST_LINE = 32 * 1024 * 1024
_LONGEST_TEXT = 1000
_NO_CALL = {"", "no call", "unknown/unknown", "n/a", "no result"}
_SCORE = re.compile(r"(≥|>=)?\s*(\d{1,2}(?:\.\d{1,3})?)\Z")
_VERSION = re.compile(r"PharmCAT\s+(v?[\w.+-]{1,40})")
_TERMS = {
    "pm": "Poor Metabolizer",
    "im": "Intermediate Metabolizer",
    "nm": "Normal Metabolizer",
    "em": "Normal Metabolizer",
    "rm": "Rapid Metabolizer",
    "um": "Ultrarapid Metabolizer",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyCall:
    """One gene as a report has it.

    Attributes:
        gene: HGNC symbol.
        sample: whose it is; none if the report does not say.
        diplotype: none if there is none.
        phenotype: none if there is none.
        activity_score: as it is written.
        status: where it is from, and its limits.
        place: where it stands.
    """

    gene: str
    sample: str | None
    diplotype: str | None
    phenotype: str | None
    activity_score: str | None
    status: str
    place: Place


def gene_reports(
    paths: Sequence[Path], people: People, tables: Mapping[str, GeneTable]
) -> OpenSource:
    """Reports as a source.

    Args:
        paths: files of one of the three kinds.
        people: whose samples they are about.
        tables: which genes are read.
    """
    return lambda desk: GeneReports(paths, people, tables, desk)


class GeneReports:
    """Reads all files, and gives one version for each gene of each patient.

    Attributes:
        title: what is imported, in words.
        learned: nothing: patients are given by their number.
        consents: none.
    """

    learned: Mapping[str, Identity] = MappingProxyType({})
    consents: Mapping[str, Consent] = MappingProxyType({})

    def __init__(
        self,
        paths: Sequence[Path],
        people: People,
        tables: Mapping[str, GeneTable],
        desk: Desk,
    ) -> None:
        self.title = f"calls of genes in {len(paths)} reports"
        self._paths = paths
        self._people = people
        self._tables = tables
        self._desk = desk
        self._tally = desk.reading.tally

    def versions(self) -> Iterator[Version]:
        """One version for each gene that was called.

        Raises:
            RecordError: a file cannot be read or is none of the three kinds, or holds no call.
        """
        used = 0
        for path in self._paths:
            kind, calls = read_calls(path, self._tally)
            for call in calls:
                self._tally.read["calls"] += 1
                try:
                    version = self._version(kind, call)
                except UnusableError as error:
                    raw = f"{call.gene}\t{call.diplotype}\t{call.phenotype}\t{call.activity_score}"
                    self._desk.reading.unusable(error, call.place, raw)
                    continue
                used += 1
                yield version
        if not used:
            raise RecordError(
                f"found no call of a gene that is read here in "
                f"{', '.join(map(str, self._paths[:5]))}{self._tally.commonest()}; "
                "nothing was imported"
            )

    def _version(self, kind: str, call: ReadyCall) -> Version:
        """One gene.

        Raises:
            UnusableError: it is no gene that is read here, was not called, or nobody is named.
        """
        table = self._tables.get(call.gene)
        if table is None:
            raise UnusableError(f"{call.gene[:20]}: a gene that no model here uses", wrong=False)
        person = self._person(call)
        result = _result(table, call)
        times = self._times(person, call.place)
        subject = self._desk.pseudonyms.of(Identity(self._people.system, person.patient))
        origin = gene_origin(self._desk.reading.source, kind, subject, table.gene)
        events = gene_events(origin, subject, times, result)
        return Version(origin=origin, updated=None, events=events)

    def _person(self, call: ReadyCall) -> Person:
        if self._people.one is not None:
            return self._people.one
        person = self._people.by_sample.get(call.sample or "")
        if person is None:
            raise UnusableError("a sample that no patient is named for", wrong=False)
        return person

    def _times(self, person: Person, place: Place) -> Times:
        try:
            return self._desk.reading.times([person.date], person.reported)
        except UnusableError as error:
            raise RecordError(
                f"the date '{person.date[:40]}' of the sample in {place.file}: {error.reason}; "
                "write it as 2026-03-01"
            ) from error


def read_calls(path: Path, tally: Tally) -> tuple[str, list[ReadyCall]]:
    """The calls of one file, and its kind: `pharmcat` or `reported`.

    Raises:
        RecordError: it cannot be read, or is none of the three kinds.
    """
    lines = [(number, _decoded(line, path, number)) for number, line in _whole(path)]
    first = next((text for _, text in lines if text.strip()), "")
    if first.lstrip().startswith(("{", "[")):
        return "pharmcat", list(_of_json("".join(text for _, text in lines), path))
    if first.startswith(("PharmCAT", "Gene\t", "Sample ID\t")):
        return "pharmcat", list(_of_report(lines, path))
    return "reported", list(_of_lines(lines, path, tally))


def _whole(path: Path) -> Iterator[tuple[int, bytes]]:
    size = 0
    for number, line in numbered_lines(path, _LONGEST_LINE):
        size += len(line)
        if size > 8 * _LONGEST_LINE:
            raise RecordError(f"{path} is larger than any report; is it the right file?")
        yield number, line


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise RecordError(
            f"line {number} of {path} is not UTF-8 text ({error.reason}); save it as UTF-8, which "
            "'≥' in diplotypes needs"
        ) from error


def _of_report(lines: Sequence[tuple[int, str]], path: Path) -> Iterator[ReadyCall]:
    match = _VERSION.match(lines[0][1])
    version = match[1] if match else "of a version that it does not say"
    start = 0 if lines[0][1].startswith(("Gene\t", "Sample ID\t")) else 1
    header = lines[start][1].rstrip("\r\n").split("\t") if len(lines) > start else []
    if not {"Gene", "Source Diplotype", "Phenotype"} <= set(header):
        raise RecordError(
            f"expected the columns Gene, Source Diplotype and Phenotype in line {start + 1} of "
            f"{path}: give PharmCAT's report.tsv"
        )
    for number, text in lines[start + 1 :]:
        if not text.strip():
            continue
        cells = text.rstrip("\r\n").split("\t")
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        status = f"PharmCAT {version}"
        if row.get("Outside Call", "").lower() == "yes":
            status += "; reported to it, not called by it"
        if row.get("Missing positions", "no").lower() not in {"no", ""}:
            status += "; positions not covered"
        yield ReadyCall(
            gene=row.get("Gene", ""),
            sample=row.get("Sample ID"),
            diplotype=row.get("Source Diplotype"),
            phenotype=row.get("Phenotype"),
            activity_score=row.get("Activity Score"),
            status=status,
            place=Place(path.name, number),
        )


def _of_json(text: str, path: Path) -> Iterator[ReadyCall]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not whole JSON: {str(error)[:100]}") from error
    reports = raw.get("geneReports") if isinstance(raw, dict) else None
    if not isinstance(reports, dict):
        what = (
            "PharmCAT's matcher results, without phenotypes"
            if isinstance(raw, dict) and "results" in raw
            else "something else"
        )
        raise RecordError(
            f"expected PharmCAT's phenotype.json (with 'geneReports') in {path}, found {what}"
        )
    metadata = raw.get("matcherMetadata")
    sample = metadata.get("sampleId") if isinstance(metadata, dict) else None
    place = Place(path.name, 1)
    for gene, report in reports.items():
        # Format 2 nests the sources of guidelines: {"CPIC": {gene: ...}}.
        inner = {gene: report}
        if isinstance(report, dict) and "sourceDiplotypes" not in report:
            inner = {name: item for name, item in report.items() if isinstance(item, dict)}
        for name, item in inner.items():
            yield _of_gene_report(str(name), item, sample, place)


def _of_gene_report(gene: str, report: Any, sample: Any, place: Place) -> ReadyCall:
    report = report if isinstance(report, dict) else {}
    listed = report.get("sourceDiplotypes")
    diplotypes = [item for item in listed or [] if isinstance(item, dict)]
    looked_up = report.get("recommendationDiplotypes")
    deciding = [item for item in looked_up or [] if isinstance(item, dict)]
    # Genes whose lowest functions count have their phenotype in what was looked up.
    lowest = bool(report.get("matcherComponentHaplotypes")) or gene == "DPYD"
    read_from = deciding if lowest and deciding else diplotypes
    status = f"PharmCAT, definitions {str(report.get('alleleDefinitionVersion') or 'unknown')[:10]}"
    if report.get("callSource") == "OUTSIDE":
        status += "; reported to it, not called by it"
    missing = [
        item
        for item in report.get("variants") or []
        if isinstance(item, dict) and item.get("call") is None
    ]
    if missing:
        status += f"; {len(missing)} positions not covered"
    joiner = " AND " if lowest and len(deciding) == 1 and len(diplotypes) > 1 else " OR "
    return ReadyCall(
        gene=gene,
        sample=sample if isinstance(sample, str) else None,
        diplotype=joiner.join(_texts(item.get("label") for item in diplotypes)),
        phenotype=" / ".join(_texts(_phenotypes(item) for item in read_from)),
        activity_score=" / ".join(_texts(item.get("activityScore") for item in read_from)),
        status=status,
        place=place,
    )


def _phenotypes(item: Mapping[str, Any]) -> str | None:
    listed = item.get("phenotypes")
    return ", ".join(_texts(listed)) if isinstance(listed, list) else None


def _texts(values: Any) -> list[str]:
    return list(dict.fromkeys(value for value in values if isinstance(value, str) and value))


def _of_lines(lines: Sequence[tuple[int, str]], path: Path, tally: Tally) -> Iterator[ReadyCall]:
    """Reported calls: gene, diplotype, phenotype, activity score."""
    rows = csv.reader((text for _, text in lines), delimiter="\t", quoting=csv.QUOTE_NONE)
    for (number, text), row in zip(lines, rows, strict=False):
        if not text.strip() or text.startswith("#"):
            continue
        place = Place(path.name, number)
        cells = [cell.strip() for cell in row] + ["", "", "", ""]
        if len(row) < 2 or not re.match(r"[A-Z][A-Z0-9-]{1,19}\Z", cells[0]):
            tally.put_aside(
                "expected gene, diplotype, phenotype and activity score, separated by tabs",
                place,
                text.rstrip("\r\n"),
            )
            continue
        yield ReadyCall(
            gene=cells[0],
            sample=None,
            diplotype=cells[1],
            phenotype=cells[2],
            activity_score=cells[3],
            status="reported",
            place=place,
        )


def _result(table: GeneTable, call: ReadyCall) -> GeneResult:
    """What a call says of a gene.

    Raises:
        UnusableError: nothing was called, or a cell is not what it should be.
    """
    diplotype = _plain(call.diplotype)
    phenotype = _plain(call.phenotype)
    if phenotype is not None:
        phenotype = _TERMS.get(phenotype.lower(), phenotype)
    score, at_least = _score(call.activity_score)
    if diplotype is None and phenotype is None and score is None:
        raise UnusableError(f"{table.gene}: not called", wrong=False)
    result = GeneResult(
        hgnc=table.hgnc,
        diplotype=diplotype,
        phenotype=phenotype,
        activity_score=score,
        at_least=at_least,
        status=call.status,
    )
    if diplotype is None or (phenotype is not None and (score is not None or not table.values)):
        return result
    return _completed(table, result, diplotype)


def _completed(table: GeneTable, result: GeneResult, diplotype: str) -> GeneResult:
    """Look up what a reported diplotype means, where the report does not say it.

    Raises:
        UnusableError: it is no diplotype, or says something else than the report's own phenotype.
    """
    if " OR " in diplotype or " AND " in diplotype or "[" in diplotype:
        return result
    try:
        meaning = meaning_of(table, split_diplotype(diplotype))
    except ValueError as error:
        raise UnusableError(f"{table.gene}: {error}") from error
    if result.phenotype is not None and meaning.phenotype != result.phenotype:
        return result
    if meaning == Meaning(None):
        return result
    return replace(
        result,
        phenotype=meaning.phenotype,
        activity_score=meaning.activity_score
        if result.activity_score is None
        else result.activity_score,
        at_least=meaning.at_least if result.activity_score is None else result.at_least,
        status=f"{result.status}; phenotype by this node's tables {table.version}",
    )


def _plain(text: str | None) -> str | None:
    """A cell's text; none where nothing was called.

    Raises:
        UnusableError: it is too long for a call.
    """
    if text is None or text.strip().lower() in _NO_CALL:
        return None
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        raise UnusableError("a call that is too long, or holds signs that are no text")
    return text.strip()


def _score(text: str | None) -> tuple[float | None, bool]:
    """An activity score, and whether it is a lower bound.

    Raises:
        UnusableError: it is no score.
    """
    if text is None or text.strip().lower() in _NO_CALL or " / " in text:
        return None, False
    match = _SCORE.match(text.strip())
    if match is None or not math.isfinite(float(match[2])):
        raise UnusableError("an activity score that is no number")
    return float(match[2]), match[1] is not None
