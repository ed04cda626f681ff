"""Lines of VCF 4 files, plain or gzipped (BGZF too), with their numbers.

An own reader and not htslib, because whatever is put aside needs its line, and because a damaged
line must cost that line alone: htslib numbers no lines, warns on standard error and stops.
Format: samtools.github.io/hts-specs/VCFv4.3.pdf (2022).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from fedtwin_client.records.lines import Progress
from fedtwin_client.records.numbered_lines import numbered_lines
from fedtwin_client.records.report import Place, Tally
from fedtwin_protocol.errors import RecordError

_LONGEST_HEADER = 256 * 1024 * 1024
_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
_BINARY = (b"BCF\x02", b"CRAM", b"BAM\x01")
_END = re.compile(r"(?:^|;)END=(\d{1,10})(?:;|\Z)")
_AF = re.compile(rb"(?:^|;)AF=([^;]+)")
_CONTIG = re.compile(r"##contig=<(.*)>\s*\Z")
_FIELD = re.compile(r'(\w+)=("[^"]*"|[^,]*)')
_CHROMOSOME = re.compile(r"(?:chr)?(\d{1,2}|X|Y|M|MT)\Z", re.IGNORECASE)
_BY_NUMBER = {"M": "MT", "23": "X", "24": "Y", "26": "MT"}
"""As PLINK numbers them (cog-genomics.org/plink/2.0/data)."""
_REFSEQ = re.compile(r"NC_0000(\d\d)\.\d+\Z")
_BUILD_NAMES = (
    ("GRCh38", re.compile(r"GRCh38|hg38|b38\b", re.IGNORECASE)),
    ("GRCh37", re.compile(r"GRCh37|hg19|b37\b|hs37|human_g1k_v37", re.IGNORECASE)),
    ("NCBI36", re.compile(r"NCBI36|hg18|b36\b", re.IGNORECASE)),
    ("T2T-CHM13", re.compile(r"CHM13|T2T|hs1\b", re.IGNORECASE)),
)
# Lengths of a few chromosomes tell the builds apart (ncbi.nlm.nih.gov/assembly).
_LENGTHS = {
    ("1", 248956422): "GRCh38",
    ("2", 242193529): "GRCh38",
    ("4", 190214555): "GRCh38",
    ("6", 170805979): "GRCh38",
    ("7", 159345973): "GRCh38",
    ("10", 133797422): "GRCh38",
    ("12", 133275309): "GRCh38",
    ("13", 114364328): "GRCh38",
    ("16", 90338345): "GRCh38",
    ("19", 58617616): "GRCh38",
    ("22", 50818468): "GRCh38",
    ("X", 156040895): "GRCh38",
    ("1", 249250621): "GRCh37",
    ("2", 243199373): "GRCh37",
    ("4", 191154276): "GRCh37",
    ("6", 171115067): "GRCh37",
    ("7", 159138663): "GRCh37",
    ("10", 135534747): "GRCh37",
    ("12", 133851895): "GRCh37",
    ("13", 115169878): "GRCh37",
    ("16", 90354753): "GRCh37",
    ("19", 59128983): "GRCh37",
    ("22", 51304566): "GRCh37",
    ("X", 155270560): "GRCh37",
    ("1", 248387328): "T2T-CHM13",
    ("10", 134758134): "T2T-CHM13",
}


class VcfRecord(NamedTuple):
    """One line: what it says of a stretch of a chromosome.

    Attributes:
        place: file and line.
        chromosome: `1` to `22`, `X`, `Y`, `MT`, or the contig's own name.
        position: of the first base of REF, from 1.
        end: of the last base that the line speaks of (INFO END of a block).
        id: such as an rsid.
        reference: REF, upper case.
        alternatives: ALT, upper case; `<...>` and `*` as they stand.
        filter: as it stands.
        format: the keys of the genotype columns.
        samples: the genotype columns.
        frequencies: of the alternatives (INFO AF), as they stand.
        raw: the start of the line, for the quarantine.
    """

    place: Place
    chromosome: str
    position: int
    end: int
    id: str
    reference: str
    alternatives: tuple[str, ...]
    filter: str
    format: Sequence[str]
    samples: Sequence[str]
    frequencies: str
    raw: str


class Wanted(Protocol):
    """What a reader wants of a file; everything else is passed over at little cost."""

    def __call__(self, chromosome: str, position: int, end: int, identifier: str) -> bool:
        """Whether a line is wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VcfHeader:
    """What stands above the records.

    Attributes:
        samples: names of the genotype columns.
        build: of the reference genome, if the header tells; none if it does not.
        line: of the column names.
    """

    samples: tuple[str, ...]
    build: str | None
    line: int


class VcfFile:
    """One file, opened for one reading.

    Attributes:
        header: what stands above the records.
        passed_over: lines that were not wanted.
    """

    def __init__(self, path: Path, tally: Tally, progress: Progress | None = None) -> None:
        """Read the header.

        Args:
            path: of the file.
            tally: the account.
            progress: is told how many bytes more of it were read.

        Raises:
            RecordError: there is no such file, or it is no VCF with genotypes.
        """
        self._path = path
        self._tally = tally
        self._lines = _lines(path, progress)
        self.passed_over = 0
        self.header = self._header()

    def records(self, wanted: Wanted) -> Iterator[VcfRecord]:
        """The lines that are wanted; damaged ones are put aside.

        Raises:
            RecordError: the file ends in the middle, or cannot be read.
        """
        for number, line in self._lines:
            if not line.strip():
                continue
            self._tally.read["variant lines"] += 1
            place = Place(self._path.name, number)
            try:
                record = self._record(line, place, wanted)
            except ValueError as error:
                self._tally.put_aside(str(error), place, _shown(line))
                continue
            if record is None:
                self.passed_over += 1
                continue
            yield record

    def _header(self) -> VcfHeader:
        builds: set[str] = set()
        size = 0
        for number, line in self._lines:
            size += len(line)
            text = line.decode("utf-8", errors="replace").rstrip("\r\n").removeprefix("\ufeff")
            if number == 1 and not text.startswith("##fileformat=VCFv4"):
                raise RecordError(
                    f"expected '##fileformat=VCFv4...' in line 1 of {self._path}, found "
                    f"'{_printable(text)}'; give a VCF 4 file, plain or gzipped"
                )
            if size > _LONGEST_HEADER:
                break
            if text.startswith("##"):
                builds.update(_builds(text))
                continue
            return VcfHeader(
                samples=self._samples(text, number),
                build=self._one_build(builds),
                line=number,
            )
        raise RecordError(
            f"{self._path} has no line that begins with #CHROM: the file is not whole"
        )

    def _samples(self, text: str, number: int) -> tuple[str, ...]:
        names = text.split("\t")
        if tuple(names[:8]) != _COLUMNS:
            raise RecordError(
                f"expected the columns {' '.join(_COLUMNS)} in line {number} of {self._path}, "
                f"separated by tabs, found '{_printable(text)}'"
            )
        samples = tuple(names[9:])
        if len(names) < 10 or names[8] != "FORMAT":
            raise RecordError(
                f"{self._path} has no genotypes: line {number} names no sample after FORMAT"
            )
        if len(set(samples)) != len(samples):
            raise RecordError(f"{self._path} names a sample twice in line {number}")
        return samples

    def _one_build(self, builds: set[str]) -> str | None:
        if len(builds) > 1:
            raise RecordError(
                f"the header of {self._path} speaks of several reference genomes "
                f"({', '.join(sorted(builds))}); correct its ##contig and ##reference lines"
            )
        return next(iter(builds), None)

    def _record(self, line: bytes, place: Place, wanted: Wanted) -> VcfRecord | None:
        """Take a line apart only as far as it needs.

        Raises:
            ValueError: the line is damaged.
        """
        head = line.split(b"\t", 8)
        if len(head) < 9:
            raise ValueError("a line with too few columns")
        try:
            contig, identifier = head[0].decode(), head[2].decode()
            reference = head[3].decode().upper()
            info = head[7].decode() if b"END=" in head[7] else ""
        except UnicodeDecodeError as error:
            raise ValueError("a line that is not UTF-8 text") from error
        if not head[1].isdigit() or len(head[1]) > 10:
            raise ValueError("a position that is no number")
        if not reference:
            raise ValueError("no bases in REF")
        position = int(head[1])
        block = _END.search(info)
        end = position + len(reference) - 1
        if block is not None:
            end = max(end, int(block[1]))
        chromosome = plain_chromosome(contig)
        if not wanted(chromosome, position, end, identifier):
            return None
        try:
            rest = head[8].decode().rstrip("\r\n").split("\t")
            alternatives, mark = head[4].decode().upper(), head[6].decode()
        except UnicodeDecodeError as error:
            raise ValueError("a line that is not UTF-8 text") from error
        if len(rest) - 1 != len(self.header.samples):
            raise ValueError("a line with another number of samples than the header")
        return VcfRecord(
            place,
            chromosome,
            position,
            end,
            identifier,
            reference,
            () if alternatives == "." else tuple(alternatives.split(",")),
            mark,
            rest[0].split(":"),
            rest[1:],
            _frequency(head[7]),
            _shown(line),
        )


def plain_chromosome(contig: str) -> str:
    """`10` of `chr10`, `10` or `NC_000010.11`, `X` of `23`; other contigs keep their name."""
    match = _CHROMOSOME.match(contig)
    if match is not None:
        name = match[1].upper()
        return _BY_NUMBER.get(name, name)
    match = _REFSEQ.match(contig)
    if match is not None:
        number = int(match[1])
        return {23: "X", 24: "Y"}.get(number, str(number))
    return contig


def _lines(path: Path, progress: Progress | None) -> Iterator[tuple[int, bytes]]:
    for number, line in numbered_lines(path, progress=progress):
        if number == 1 and line.startswith(_BINARY):
            raise RecordError(f"{path} is binary; write VCF first: bcftools view -O z")
        yield number, line


def _builds(text: str) -> Iterator[str]:
    """The reference genomes that a header line speaks of."""
    contig = _CONTIG.match(text)
    if contig is not None:
        fields = {key: value.strip('"') for key, value in _FIELD.findall(contig[1])}
        yield from _named(fields.get("assembly", ""))
        length = fields.get("length", "")
        if length.isdigit() and len(length) < 12:
            known = _LENGTHS.get((plain_chromosome(fields.get("ID", "")), int(length)))
            if known is not None:
                yield known
    elif text.startswith(("##reference=", "##assembly=")):
        yield from _named(text)


def _named(text: str) -> Iterator[str]:
    for name, pattern in _BUILD_NAMES:
        if pattern.search(text):
            yield name
            return


def _frequency(info: bytes) -> str:
    match = _AF.search(info) if b"AF=" in info else None
    return match[1].decode("ascii", errors="replace") if match else ""


def _printable(text: str) -> str:
    return "".join(letter for letter in text[:40] if letter.isprintable())


def _shown(line: bytes) -> str:
    return line[:2000].decode("utf-8", errors="replace").rstrip("\r\n")
