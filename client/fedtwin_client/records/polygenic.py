"""Polygenic scores of patients, from their VCF files and a scoring file.

A variant that the VCF does not have adds nothing and is counted. A score of which too little was
found is put aside: the share counts how much the found variants can matter, out of all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtwin_client.records.events import Event
from fedtwin_client.records.lines import Progress
from fedtwin_client.records.people import People, Person
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.score_files import Score, read_score
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_client.records.variant_files import VcfFile, VcfRecord
from fedtwin_client.records.variants import read_call
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.polygenic import (
    Palindromes,
    RunningScore,
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
        self._sums: dict[Person, RunningScore] = {}
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
        for person, total in self._sums.items():
            version = self._of_person(person, total, score)
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
        columns = []
        for column, name in enumerate(header.samples):
            if name in people:
                columns.append((column, people[name]))
                self._sums.setdefault(people[name], RunningScore())
                self._places.setdefault(people[name], place)
                self._tally.read["samples"] += 1
            else:
                self._tally.skip("a sample that no patient is named for", place)

        def wanted(chromosome: str, position: int, end: int, identifier: str) -> bool:
            return (chromosome, position) in score.variants

        for record in file.records(wanted):
            if record.filter not in {"PASS", ".", ""} and not self._options.keep_filtered:
                self._tally.skip(f"FILTER is not PASS ({record.filter[:40]})", record.place)
                continue
            for column, person in columns:
                self._add(record, column, self._sums[person], score)
        if file.passed_over:
            self._tally.reasons["a position that is not in the score"] += file.passed_over

    def _add(self, record: VcfRecord, column: int, total: RunningScore, score: Score) -> None:
        try:
            call = read_call(record, column, least_depth=0)
        except UnusableError as error:
            self._desk.reading.unusable(error, record.place, record.raw)
            return
        if None in call.numbers:
            self._tally.skip("only one of two chromosomes was read", record.place)
            return
        for number, variant in score.variants[(record.chromosome, record.position)]:
            single = len(variant.effect) == 1 and len(variant.other or "A") == 1
            alleles = _alleles(record, single)
            copies = {text: 0 for text in alleles if text.isalpha()}
            for index in call.numbers:
                copies[alleles[index or 0]] += 1
            try:
                told = copies_of_effect(
                    variant, copies, self._options.palindromes, _frequencies(record, alleles)
                )
            except UnmatchedError as error:
                self._tally.skip(f"{score.identifier}: {error}", record.place)
                continue
            total.add(number, variant, told)

    def _of_person(self, person: Person, total: RunningScore, score: Score) -> Version | None:
        place = self._places[person]
        times = self._people.times(self._desk, person)
        missing = score.count - total.matched
        if missing:
            self._tally.reasons[f"{score.identifier}: a variant without a usable genotype"] += (
                missing
            )
        subject = self._people.subject(self._desk, person)
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
