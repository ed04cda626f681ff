"""Ready calls of genes: PharmCAT's reports and reported diplotypes, as a source.

What the report says is kept as it says it. Only where a reported diplotype has no phenotype is it
looked up in this node's tables, with the source in `status`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedtwin_client.records.genome.gene_events import GeneResult, gene_events, gene_origin
from fedtwin_client.records.genome.gene_report_files import ReadyCall, read_calls
from fedtwin_client.records.people import People, Person
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.phenotypes import INDETERMINATE, meaning_of, split_diplotype
from fedtwin_twins.genes.tables import GeneTable

_LONGEST_TEXT = 1000
_NO_CALL = {"", "no call", "unknown/unknown", "n/a", "no result"}
_DISAGREES = "; this node's tables give another phenotype for the diplotype"
_SCORE = re.compile(r"(≥|>=)?\s*(\d{1,2}(?:\.\d{1,3})?)\Z")
_TERMS = {
    "pm": "Poor Metabolizer",
    "im": "Intermediate Metabolizer",
    "nm": "Normal Metabolizer",
    "em": "Normal Metabolizer",
    "rm": "Rapid Metabolizer",
    "um": "Ultrarapid Metabolizer",
}


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


class GeneReports(ByNumber):
    """Reads all files, and gives one version for each gene of each patient.

    Attributes:
        title: what is imported, in words.
    """

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
            self._check_samples(path, calls)
            times = Counter((call.sample, call.gene) for call in calls)
            for call in calls:
                self._tally.read["calls"] += 1
                try:
                    if times[call.sample, call.gene] > 1:
                        raise UnusableError(f"{call.gene[:20]}: called more than once in a report")
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

    def _check_samples(self, path: Path, calls: Sequence[ReadyCall]) -> None:
        samples = sorted({call.sample for call in calls if call.sample})
        if self._people.one is not None and len(samples) > 1:
            self._people.of_samples(samples, path.name)

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
        if result.status.endswith(_DISAGREES):
            self._tally.note(
                f"{table.gene}: a reported phenotype that is not what this node's tables say",
                call.place,
            )
        times = self._times(person, call.place)
        subject = self._people.subject(self._desk, person)
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
        return self._people.times(self._desk, person)


def _result(table: GeneTable, call: ReadyCall) -> GeneResult:
    """What a call says of a gene.

    Raises:
        UnusableError: nothing was called, or a cell is not what it should be.
    """
    diplotype = _plain(call.diplotype)
    phenotype = _one_phenotype(_plain(call.phenotype))
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
    return result if diplotype is None else _completed(table, result, diplotype)


def _completed(table: GeneTable, result: GeneResult, diplotype: str) -> GeneResult:
    """Look up what a reported diplotype means, where the report does not say it.

    Raises:
        UnusableError: it is no diplotype.
    """
    if " OR " in diplotype or " AND " in diplotype or "[" in diplotype:
        return result
    try:
        alleles = split_diplotype(diplotype)
    except ValueError as error:
        raise UnusableError(f"{table.gene}: {error}") from error
    meaning = meaning_of(table, alleles)
    if result.phenotype is None and result.activity_score is None and meaning.phenotype:
        return replace(
            result,
            phenotype=meaning.phenotype,
            activity_score=meaning.activity_score,
            at_least=meaning.at_least,
            status=f"{result.status}; phenotype by this node's tables {table.version}",
        )
    known = all(name in table.functions for name in alleles)
    if known and result.phenotype is not None and meaning.phenotype != result.phenotype:
        return replace(result, status=f"{result.status}{_DISAGREES}")
    return result


def _one_phenotype(text: str | None) -> str | None:
    """CPIC's term; several different ones, of diplotypes that fit equally well, are open."""
    if text is None:
        return None
    parts = {_TERMS.get(part.lower(), part) for part in text.split(" / ")}
    return parts.pop() if len(parts) == 1 else INDETERMINATE


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
