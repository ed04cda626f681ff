"""VCF files as a source: genotypes at known positions, called gene by gene.

Nothing is assumed where nothing was read. A file of another reference genome than GRCh38 is
refused: by its header, by bases that differ at known positions, or by rsids at other places.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from fedtwin_client.records.genome.gene_events import GeneResult, gene_events, gene_origin
from fedtwin_client.records.genome.variant_files import VcfFile, VcfRecord, plain_chromosome
from fedtwin_client.records.genome.variants import (
    BLOCK_ALLELES,
    Chromosome,
    bases_at,
    joined,
    read_call,
)
from fedtwin_client.records.lines import Progress
from fedtwin_client.records.people import People, Person
from fedtwin_client.records.reading import Times, UnusableError
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.calling import NO_COVERAGE, REPORTED_ONLY, GeneCall, call_gene
from fedtwin_twins.genes.genotypes import Genotype
from fedtwin_twins.genes.phenotypes import Meaning
from fedtwin_twins.genes.tables import BUILD, GeneTable

_MARGIN = 80
_DIFFERENT = 2048
"""Genotypes whose calls are kept in mind, of some 20 KB each."""
_ELSEWHERE = "a position of no gene that is read here"
_FEW = 2
_SINGLE = frozenset({"X", "Y", "MT"})


@dataclass(frozen=True, kw_only=True, slots=True)
class GenomeOptions:
    """How strictly genotypes are taken.

    Attributes:
        least_depth: fewer reads make a genotype unusable; 0 asks for none.
        keep_filtered: also use lines whose FILTER is not PASS.
        combinations: name combined and partial alleles where no pair of named ones fits.
    """

    least_depth: int = 0
    keep_filtered: bool = False
    combinations: bool = False


def variant_files(
    paths: Sequence[Path],
    people: People,
    tables: Mapping[str, GeneTable],
    options: GenomeOptions,
    progress: Progress | None = None,
) -> OpenSource:
    """VCF files as a source.

    Args:
        paths: files; a patient's genes may be spread over several.
        people: whose samples they hold.
        tables: of the genes to call.
        options: how strictly genotypes are taken.
        progress: is told how many bytes more of the files were read.

    Raises:
        RecordError: a depth below 0.
    """
    if options.least_depth < 0:
        raise RecordError(f"expected a least depth of 0 or more, found {options.least_depth}")
    return lambda desk: VariantFiles(paths, people, tables, options, desk, progress)


@dataclass(slots=True)
class _Build:
    """What the lines say of the reference genome."""

    same: int = 0
    other: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)


class VariantFiles(ByNumber):
    """Reads all files, then calls every gene of every patient.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        people: People,
        tables: Mapping[str, GeneTable],
        options: GenomeOptions,
        desk: Desk,
        progress: Progress | None = None,
    ) -> None:
        self.title = f"genotypes of {len(paths)} VCF files"
        self._paths = paths
        self._people = people
        self._tables = tables
        self._options = options
        self._desk = desk
        self._progress = progress
        self._tally = desk.reading.tally
        # Most people of a cohort have one of a few genotypes of a gene.
        self._called = lru_cache(maxsize=_DIFFERENT)(self._call)
        self._chromosomes = _chromosomes(tables)
        self._starts = {
            name: [locus.position for locus in item.loci]
            for name, item in self._chromosomes.items()
        }
        self._rsids = {
            rsid: (name, position)
            for name, item in self._chromosomes.items()
            for rsid, position in item.rsids.items()
        }
        # By patient: the place of their first file, and genotypes by chromosome and position.
        self._found: dict[Person, dict[tuple[str, int], Genotype | None]] = {}
        self._places: dict[Person, Place] = {}

    def versions(self) -> Iterator[Version]:
        """One version for each gene of each patient that could be called.

        Raises:
            RecordError: a file cannot be read or is of another reference genome, or no gene of
                anybody could be called.
        """
        for path in self._paths:
            self._read(path)
        called = 0
        for person in self._found:
            for version in self._of_person(person):
                called += 1
                yield version
        if not called:
            raise RecordError(
                f"found no gene that can be called in {', '.join(map(str, self._paths[:5]))}: "
                f"{self._why()}; nothing was imported"
            )

    def _why(self) -> str:
        """The commonest reasons, beside that of genes that a file does not hold."""
        reasons = [
            f"{reason} ({count})"
            for reason, count in self._tally.reasons.most_common()
            if not reason.endswith((NO_COVERAGE, REPORTED_ONLY, _ELSEWHERE))
        ]
        return ", ".join(reasons[:3]) or "none of its lines covers a known position"

    def _read(self, path: Path) -> None:
        file = VcfFile(path, self._tally, self._progress)
        header = file.header
        if header.build not in {None, BUILD}:
            raise _wrong_build(path, f"its header says {header.build}")
        place = Place(path.name, header.line)
        people = self._people.of_samples(header.samples, path.name)
        columns = []
        for column, name in enumerate(header.samples):
            if name in people:
                columns.append((column, people[name]))
                self._found.setdefault(people[name], {})
                self._places.setdefault(people[name], place)
                self._tally.read["samples"] += 1
            else:
                self._tally.skip("a sample that no patient is named for", place)
        build = _Build()
        for record in file.records(self._wanted):
            self._take(record, columns, build)
        self._tally.reasons[_ELSEWHERE] += file.passed_over
        if not self._tally.reasons[_ELSEWHERE]:
            del self._tally.reasons[_ELSEWHERE]
        _check_build(path, build)

    def _wanted(self, chromosome: str, position: int, end: int, identifier: str) -> bool:
        if identifier in self._rsids:
            return True
        starts = self._starts.get(chromosome)
        if starts is None:
            return False
        index = bisect_left(starts, position - _MARGIN)
        return index < len(starts) and starts[index] <= end + _MARGIN

    def _take(
        self, record: VcfRecord, columns: Sequence[tuple[int, Person]], build: _Build
    ) -> None:
        """One line into the genotypes of all patients."""
        chromosome = self._chromosomes.get(record.chromosome)
        if self._is_elsewhere(record, build) or chromosome is None:
            self._tally.skip("a known rsid at another position than GRCh38's", record.place)
            return
        differs = chromosome.mismatch(record)
        if differs:
            build.other.append(f"{record.place}")
            self._tally.put_aside(
                "REF differs from the bases of GRCh38 there", record.place, record.raw
            )
            return
        build.same += differs is False
        if record.filter not in {"PASS", ".", ""} and not self._options.keep_filtered:
            self._tally.skip(f"FILTER is not PASS ({record.filter[:40]})", record.place)
            return
        for column, person in columns:
            try:
                call = read_call(
                    record, record.samples[column], least_depth=self._options.least_depth
                )
                if len(call.numbers) == 1 and record.chromosome not in _SINGLE:
                    raise UnusableError("one chromosome of a kind that comes in pairs")
            except UnusableError as error:
                self._desk.reading.unusable(error, record.place, record.raw)
                continue
            found = bases_at(record, call, chromosome)
            if not found:
                self._count_unused(record, call.numbers)
            for position, genotype in found.items():
                self._join(person, record, position, genotype)

    def _is_elsewhere(self, record: VcfRecord, build: _Build) -> bool:
        """Whether a known rsid stands at another place, which speaks of another build."""
        known = self._rsids.get(record.id)
        if known is None or known == (record.chromosome, record.position):
            return False
        inside = record.chromosome == known[0] and record.position <= known[1] <= record.end
        if inside:
            return False
        build.moved.append(f"{record.id[:20]} at {record.chromosome[:20]}:{record.position}")
        return True

    def _count_unused(self, record: VcfRecord, numbers: Sequence[int | None]) -> None:
        if None in numbers:
            self._tally.skip("only one of two chromosomes was read", record.place)
        elif set(record.alternatives) <= BLOCK_ALLELES or not any(numbers):
            self._tally.skip(_ELSEWHERE, record.place)
        else:
            self._tally.skip("a variant beside the positions that define alleles", record.place)

    def _join(self, person: Person, record: VcfRecord, position: int, genotype: Genotype) -> None:
        key = (record.chromosome, position)
        found = self._found[person]
        if key not in found:
            found[key] = genotype
            return
        earlier = found[key]
        if earlier is None:
            return
        reference = "".join(
            locus.reference
            for locus in self._chromosomes[record.chromosome].loci
            if locus.position == position
        )
        together = joined(earlier, genotype, reference)
        if together is None:
            self._tally.put_aside(
                "lines that contradict each other at one position", record.place, record.raw
            )
        found[key] = together

    def _of_person(self, person: Person) -> Iterator[Version]:
        place = self._places[person]
        times = self._people.times(self._desk, person)
        subject = self._people.subject(self._desk, person)
        found = self._found[person]
        for table in self._tables.values():
            chromosome = plain_chromosome(table.chromosome)
            genotypes = {
                locus.position: genotype
                for locus in table.loci
                if (genotype := found.get((chromosome, locus.position))) is not None
            }
            call = self._called(table.gene, frozenset(genotypes.items()))
            if call.meaning is None:
                self._account(table, call, genotypes, place)
                continue
            self._note(table, call, place)
            yield self._version(table, call, call.meaning, subject, times)

    def _call(self, gene: str, genotypes: frozenset[tuple[int, Genotype]]) -> GeneCall:
        table = self._tables[gene]
        return call_gene(table, dict(genotypes), combinations=self._options.combinations)

    def _account(
        self,
        table: GeneTable,
        call: GeneCall,
        genotypes: Mapping[int, Genotype],
        place: Place,
    ) -> None:
        """A gene without a call: counted if nothing was read, put aside if it makes no sense."""
        reason = f"{table.gene}: {call.refusal}"
        if call.refusal in {NO_COVERAGE, REPORTED_ONLY}:
            self._tally.skip(reason, place)
            return
        read = [
            f"{locus.rsid or locus.position} {'/'.join(base or '.' for base in item.alleles)}"
            for locus in table.loci
            if (item := genotypes.get(locus.position)) and set(item.alleles) != {locus.reference}
        ]
        self._tally.put_aside(reason, place, f"{table.gene} {', '.join(read)}")

    def _version(
        self, table: GeneTable, call: GeneCall, meaning: Meaning, subject: int, times: Times
    ) -> Version:
        result = GeneResult(
            hgnc=table.hgnc,
            diplotype=call.name,
            phenotype=meaning.phenotype,
            activity_score=meaning.activity_score,
            at_least=meaning.at_least,
            status=_status(table, call),
        )
        origin = gene_origin(self._desk.reading.source, "vcf", subject, table.gene)
        events = gene_events(origin, subject, times, result)
        return Version(origin=origin, updated=None, events=events)

    def _note(self, table: GeneTable, call: GeneCall, place: Place) -> None:
        if call.missing:
            self._tally.note(
                f"{table.gene}: called without all of its positions being covered", place
            )
        if call.undocumented:
            self._tally.note(f"{table.gene}: bases that no named allele has", place)
        for remark in call.remarks:
            self._tally.note(f"{table.gene}: {remark}", place)


def _chromosomes(tables: Mapping[str, GeneTable]) -> dict[str, Chromosome]:
    found: dict[str, list[GeneTable]] = {}
    for table in tables.values():
        if table.loci:
            found.setdefault(plain_chromosome(table.chromosome), []).append(table)
    return {
        name: Chromosome(
            [locus for table in group for locus in table.loci],
            {place: base for table in group for place, base in table.reference_bases.items()},
        )
        for name, group in found.items()
    }


def _status(table: GeneTable, call: GeneCall) -> str:
    parts = [f"called from VCF, definitions {table.version}"]
    if call.missing:
        parts.append(f"{len(call.missing)} of {len(table.loci)} positions not covered")
    if call.undocumented:
        parts.append(f"{len(call.undocumented)} positions with bases of no named allele")
    return "; ".join([*parts, *call.remarks])


def _check_build(path: Path, build: _Build) -> None:
    if len(build.other) >= _FEW and len(build.other) * 5 > build.same:
        raise _wrong_build(
            path,
            f"REF differs from {BUILD} at {len(build.other)} of "
            f"{len(build.other) + build.same} known positions (first at {build.other[0]})",
        )
    if len(build.moved) >= _FEW and len(build.moved) > build.same:
        raise _wrong_build(path, f"it has {build.moved[0]}, which is another place in {BUILD}")


def _wrong_build(path: Path, why: str) -> RecordError:
    return RecordError(
        f"expected positions of {BUILD} in {path}: {why}; lift it over to {BUILD} "
        "(for example with bcftools +liftover) and import that; nothing was imported"
    )
