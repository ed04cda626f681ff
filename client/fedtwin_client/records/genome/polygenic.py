"""Polygenic scores of patients, from their VCF files and a scoring file.

A variant that the VCF does not have adds nothing and is counted. A score of which too little was
found is put aside: the share counts how much the found variants can matter, out of all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.events import Event
from fedtwin_client.records.genome.genotype_columns import Genotypes, Said, SampleColumns
from fedtwin_client.records.genome.score_files import Score, read_score
from fedtwin_client.records.genome.score_sums import ScoreSums
from fedtwin_client.records.genome.variant_files import VcfFile, VcfRecord
from fedtwin_client.records.lines import Progress
from fedtwin_client.records.people import People, Person
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.report import EXAMPLES, Place, Tally
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.polygenic import (
    Copies,
    Palindromes,
    RunningScore,
    ScoreVariant,
    UnmatchedError,
    copies_of_effect,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolygenicOptions:
    """How a score is made.

    Attributes:
        palindromes: what is done with A/T and C/G variants.
        least_coverage: below this share of the weights the score is put aside, 0 to 1.
        keep_filtered: also use lines whose FILTER is not PASS.
    """

    palindromes: Palindromes = Palindromes.FREQUENCY
    least_coverage: float = 0.75
    keep_filtered: bool = False


def polygenic_scores(
    paths: Sequence[Path],
    score: Path,
    people: People,
    options: PolygenicOptions,
    progress: Progress | None = None,
) -> OpenSource:
    """Scores as a source.

    Args:
        paths: VCF files; a patient's chromosomes may be spread over several.
        score: a scoring file of the PGS Catalog.
        people: whose samples the files hold.
        options: how a score is made.
        progress: is told how many bytes more of the files were read.

    Raises:
        RecordError: a coverage outside 0 to 1.
    """
    if not 0 <= options.least_coverage <= 1:
        raise RecordError(f"expected a coverage from 0 to 1, found {options.least_coverage}")
    return lambda desk: PolygenicScores(paths, score, people, options, desk, progress)


class PolygenicScores(ByNumber):
    """Reads the score, then all files, then gives one event pair for each patient.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        score: Path,
        people: People,
        options: PolygenicOptions,
        desk: Desk,
        progress: Progress | None = None,
    ) -> None:
        self.title = f"polygenic scores of {len(paths)} VCF files by {score.name}"
        self._paths = paths
        self._score_file = score
        self._people = people
        self._options = options
        self._desk = desk
        self._progress = progress
        self._tally = desk.reading.tally
        self._sums = ScoreSums()
        self._places: dict[Person, Place] = {}

    def versions(self) -> Iterator[Version]:
        """One version for each patient whose score is covered.

        Raises:
            RecordError: a file cannot be read or is of another reference genome, or nobody's score
                is covered.
        """
        score = read_score(self._score_file, self._tally)
        for path in self._paths:
            self._read(path, score)
        used = 0
        for person in self._places:
            version = self._of_person(person, self._sums.of(person), score)
            if version is not None:
                used += 1
                yield version
        if not used:
            raise RecordError(
                f"nobody has {self._options.least_coverage:.0%} of the weights of "
                f"{score.identifier}{self._tally.commonest()}; nothing was imported"
            )

    def _read(self, path: Path, score: Score) -> None:
        file = VcfFile(path, self._tally, self._progress)
        header = file.header
        place = Place(path.name, header.line)
        if header.build is None:
            self._tally.note("a header that does not tell its reference genome", place)
        elif header.build != score.build:
            raise RecordError(
                f"{path} is of {header.build} and {self._score_file} of {score.build}: take the "
                f"harmonised scoring file for {header.build} from the PGS Catalog"
            )
        people = self._people.of_samples(header.samples, path.name)
        columns: list[tuple[int, Person]] = []
        for column, name in enumerate(header.samples):
            if name in people:
                columns.append((column, people[name]))
                self._places.setdefault(people[name], place)
                self._tally.read["samples"] += 1
            else:
                self._tally.skip("a sample that no patient is named for", place)

        batches = [
            (SampleColumns(places, len(header.samples)), self._sums.rows(persons))
            for places, persons in _each_person_once(columns)
        ]

        def wanted(chromosome: str, position: int, end: int, identifier: str) -> bool:
            return (chromosome, position) in score.variants

        for record in file.records(wanted):
            if record.filter not in {"PASS", ".", ""} and not self._options.keep_filtered:
                self._tally.skip(f"FILTER is not PASS ({record.filter[:40]})", record.place)
                continue
            for samples, rows in batches:
                self._add(record, samples, rows, score)
        if file.passed_over:
            self._tally.reasons["a position that is not in the score"] += file.passed_over

    def _add(
        self, record: VcfRecord, samples: SampleColumns, rows: NDArray[np.int64], score: Score
    ) -> None:
        """Add what a line says of some samples, whose sums are these rows."""
        found = samples.read(record)
        self._account(record, found)
        for number, variant in score.variants[(record.chromosome, record.position)]:
            told = self._copies(record, variant, found.said)
            reasons = [item if isinstance(item, str) else None for item in told]
            for reason, count in _counted(reasons, found.which):
                _skip(self._tally, f"{score.identifier}: {reason}", record.place, count)
            copies = [item if isinstance(item, Copies) else None for item in told]
            self._sums.add((number, variant), copies, found.which, rows)

    def _account(self, record: VcfRecord, found: Genotypes) -> None:
        """Tell of the genotypes that cannot be used."""
        if not any(isinstance(said, UnusableError) for said in found.said):
            return
        reasons = [
            said.reason if isinstance(said, UnusableError) and not said.wrong else None
            for said in found.said
        ]
        for reason, count in _counted(reasons, found.which):
            _skip(self._tally, reason, record.place, count)
        for place in found.which.tolist():
            said = found.said[place]
            if isinstance(said, UnusableError) and said.wrong:
                self._desk.reading.unusable(said, record.place, record.raw)

    def _copies(
        self, record: VcfRecord, variant: ScoreVariant, said: Sequence[Said]
    ) -> list[Copies | str | None]:
        """For each thing that is said the copies, or why they are not known; none: nothing is."""
        single = len(variant.effect) == 1 and len(variant.other or "A") == 1
        alleles = _alleles(record, single)
        frequencies = _frequencies(record, alleles)
        found: list[Copies | str | None] = []
        for numbers in said:
            if isinstance(numbers, UnusableError):
                found.append(None)
                continue
            copies = {text: 0 for text in alleles if text.isalpha()}
            if _could_be_a_length(record, variant):
                found.append("the score does not name the other allele, and the VCF has a length")
                continue
            if any(alleles[number] not in copies for number in numbers):
                found.append("a reference that is not bases")
                continue
            for number in numbers:
                copies[alleles[number]] += 1
            try:
                told = copies_of_effect(variant, copies, self._options.palindromes, frequencies)
            except UnmatchedError as error:
                found.append(str(error))
            else:
                found.append(told)
        return found

    def _of_person(self, person: Person, total: RunningScore, score: Score) -> Version | None:
        place = self._places[person]
        times = self._people.times(self._desk, person)
        missing = score.count - total.matched
        if missing:
            self._tally.reasons[f"{score.identifier}: a variant without a usable genotype"] += (
                missing
            )
        subject = self._people.subject(self._desk, person)
        if not (math.isfinite(total.total) and math.isfinite(score.size)):
            self._tally.put_aside(
                f"{score.identifier}: weights too large to be added up", place, f"subject {subject}"
            )
            return None
        share = total.size / score.size
        if share < self._options.least_coverage:
            self._tally.put_aside(
                f"{score.identifier}: less than {self._options.least_coverage:.0%} of the weights "
                "found",
                place,
                f"subject {subject}: {total.matched} of {score.count} variants, {share:.3f}",
            )
            return None
        origin = f"{self._desk.reading.source}:polygenic/{subject}/{score.identifier}"
        events = _events(origin, subject, times, total, score)
        return Version(origin=origin, updated=None, events=events)


def _events(
    origin: str, subject: int, times: Times, total: RunningScore, score: Score
) -> Iterator[Event]:
    status = (
        f"{total.matched} of {score.count} variants, {total.flipped} on the other strand, "
        f"{total.palindromic} A/T or C/G"
    )
    code = f"PGS//{score.identifier}"
    for suffix, value in (("", total.total), ("/coverage", min(1.0, total.size / score.size))):
        yield Event(
            subject_id=subject,
            time=times.time,
            available_time=times.available_time,
            code=f"{code}{suffix}",
            source=f"{origin}#{suffix.strip('/') or 'score'}",
            numeric_value=value,
            unit="1",
            status=status,
        )


def _each_person_once(
    columns: Sequence[tuple[int, Person]],
) -> Iterator[tuple[list[int], list[Person]]]:
    """The columns in parts, in none of which a person comes twice."""
    left = list(columns)
    while left:
        first = {person: column for column, person in reversed(left)}
        part = [item for item in left if first[item[1]] == item[0]]
        left = [item for item in left if first[item[1]] != item[0]]
        yield [column for column, _ in part], [person for _, person in part]


def _counted(reasons: Sequence[str | None], which: NDArray[np.int64]) -> Iterator[tuple[str, int]]:
    """How often each reason stands, in the order in which they come first."""
    if not any(reasons):
        return
    counts = np.bincount(which, minlength=len(reasons)).tolist()
    for reason in dict.fromkeys(reasons):
        if reason is not None:
            places = (n for n, said in enumerate(reasons) if said == reason)
            yield reason, sum(counts[place] for place in places)


def _skip(tally: Tally, reason: str, place: Place, count: int) -> None:
    """Count something so many times, with a place among the examples for each of the first."""
    single = min(count, EXAMPLES)
    for _ in range(single):
        tally.skip(reason, place)
    if count > single:
        tally.skip(reason, place, count - single)


def _alleles(record: VcfRecord, single: bool) -> list[str]:
    """The line's alleles as a score writes them: one base, or without what they end in together.

    Args:
        record: the line.
        single: the score's alleles are single bases; an insertion leaves the base before it.
    """
    written = [record.reference, *record.alternatives]
    if single:
        return [text[0] if text[:1] in {"A", "C", "G", "T"} else text for text in written]
    plain = [text for text in written if text.isalpha()]
    shared = 0
    while plain and all(len(text) > shared + 1 for text in plain):
        if len({text[-1 - shared] for text in plain}) > 1:
            break
        shared += 1
    return [text[: len(text) - shared] if text.isalpha() else text for text in written]


def _could_be_a_length(record: VcfRecord, variant: ScoreVariant) -> bool:
    """Whether a single base may stand for an insertion or deletion, or for the base before it.

    `A` beside `ATG` is the deletion if the score means that, and what everybody has if it means
    another base in A's place; only the other allele would tell.
    """
    if variant.other is not None or variant.effect != record.reference[:1]:
        return False
    return any(
        text.isalpha() and len(text) != len(record.reference) for text in record.alternatives
    )


def _frequencies(record: VcfRecord, alleles: Sequence[str]) -> Mapping[str, float] | None:
    """Of the line's alleles, from INFO AF; none if it is not there or does not fit."""
    cells = record.frequencies.split(",") if record.frequencies else []
    if len(cells) != len(alleles) - 1:
        return None
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    if not all(0 <= value <= 1 for value in values):
        return None
    return dict(zip(alleles, [max(0.0, 1 - sum(values)), *values], strict=True))
