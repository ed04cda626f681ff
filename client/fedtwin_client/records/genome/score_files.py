"""Scoring files of the PGS Catalog (format 2.0), also harmonised ones (`hm_` columns).

Format: pgscatalog.org/downloads, "PGS Scoring Files". A harmonised position is used where the file
has one. Lines that are no single variant's weight (interactions, haplotypes, diplotypes), or that
have no position, are counted and left out.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fedtwin_client.records.genome.variant_files import plain_chromosome
from fedtwin_client.records.numbered_lines import numbered_lines
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place, Tally
from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.polygenic import ScoreVariant

_LONGEST_LINE = 1_000_000
_MOST_VARIANTS = 20_000_000
_IDENTIFIER = re.compile(r"PGS\d{6}\Z")
_BASES = re.compile(r"[ACGT]+\Z")
_BUILDS = {
    "GRCH38": "GRCh38",
    "HG38": "GRCh38",
    "GRCH37": "GRCh37",
    "HG19": "GRCh37",
    "NCBI36": "NCBI36",
    "HG18": "NCBI36",
}
_TRUE = {"true", "1", "yes"}


class PlacedVariant(NamedTuple):
    """A variant of a score with its number in the file."""

    number: int
    variant: ScoreVariant


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A polygenic score.

    Attributes:
        identifier: `PGS000018`.
        build: the reference genome of the positions.
        variants: by chromosome and position; several where alleles differ.
        count: how many variants there are.
        size: how much all of them can matter together.
        place: of the file.
    """

    identifier: str
    build: str
    variants: Mapping[tuple[str, int], list[PlacedVariant]]
    count: int
    size: float
    place: Place


def read_score(path: Path, tally: Tally) -> Score:
    """Read one scoring file.

    Raises:
        RecordError: it is no scoring file, or holds no variant that can be used.
    """
    lines = numbered_lines(path, _LONGEST_LINE)
    facts, columns = _header(path, lines)
    identifier = facts.get("pgs_id", "")
    if not _IDENTIFIER.match(identifier):
        raise RecordError(
            f"expected a line '#pgs_id=PGS000018' in {path}, found '{identifier[:20]}'"
        )
    harmonised = "hm_chr" in columns and "hm_pos" in columns
    build = _build(path, facts, harmonised)
    found: dict[tuple[str, int], list[PlacedVariant]] = {}
    taken: set[tuple[str, int, str, str | None]] = set()
    count, size = 0, 0.0
    for number, line in lines:
        if not line.strip():
            continue
        tally.read["score lines"] += 1
        place = Place(path.name, number)
        try:
            key, variant = _variant(line, columns, harmonised)
            same = (*key, variant.effect, variant.other)
            if same in taken:
                raise UnusableError(f"{identifier}: a variant that comes twice in the score")
        except UnusableError as error:
            _account(tally, error, place, line)
            continue
        taken.add(same)
        found.setdefault(key, []).append(PlacedVariant(count, variant))
        count, size = count + 1, size + variant.size
        if count > _MOST_VARIANTS:
            raise RecordError(f"{path} has more than {_MOST_VARIANTS} variants")
    if not count or size <= 0:
        raise RecordError(f"found no variant with a weight in {path}{tally.commonest()}")
    return Score(
        identifier=identifier,
        build=build,
        variants=found,
        count=count,
        size=size,
        place=Place(path.name, 1),
    )


def _account(tally: Tally, error: UnusableError, place: Place, line: bytes) -> None:
    if error.wrong:
        tally.put_aside(error.reason, place, line[:2000].decode("utf-8", errors="replace").rstrip())
    else:
        tally.skip(error.reason, place)


def _header(path: Path, lines: Iterator[tuple[int, bytes]]) -> tuple[dict[str, str], list[str]]:
    facts: dict[str, str] = {}
    for number, line in lines:
        text = line.decode("utf-8", errors="replace").rstrip("\r\n").removeprefix("\ufeff")
        if text.startswith("#"):
            key, _, value = text.lstrip("#").partition("=")
            facts[key.strip()] = value.strip()
            continue
        columns = text.split("\t")
        weights = {"effect_weight", "dosage_0_weight"} & set(columns)
        if "effect_allele" not in columns or not weights or len(set(columns)) != len(columns):
            raise RecordError(
                f"expected columns with effect_allele and effect_weight in line {number} of "
                f"{path}: give a scoring file of the PGS Catalog"
            )
        return facts, columns
    raise RecordError(f"{path} has no line with columns: the file is not whole")


def _build(path: Path, facts: Mapping[str, str], harmonised: bool) -> str:
    written = facts.get("HmPOS_build" if harmonised else "genome_build", "")
    build = _BUILDS.get(written.upper())
    if build is None:
        key = "#HmPOS_build" if harmonised else "#genome_build"
        raise RecordError(
            f"expected '{key}=GRCh38' or GRCh37 in {path}, found '{written[:20]}'; take the "
            "harmonised file of the PGS Catalog (…_hmPOS_GRCh38.txt.gz)"
        )
    return build


def _variant(
    line: bytes, columns: list[str], harmonised: bool
) -> tuple[tuple[str, int], ScoreVariant]:
    """One line.

    Raises:
        UnusableError: it is damaged, no single variant's weight, or has no position.
    """
    try:
        cells = line.decode().rstrip("\r\n").split("\t")
    except UnicodeDecodeError as error:
        raise UnusableError("a score line that is not UTF-8 text") from error
    if len(cells) > len(columns):
        raise UnusableError("a score line with too many columns")
    # Trailing empty cells may be left out.
    row = dict(zip(columns, cells + [""] * (len(columns) - len(cells)), strict=True))
    for key in ("is_interaction", "is_haplotype", "is_diplotype"):
        if _true(row, key):
            raise UnusableError(f"a score line that is no single variant ({key})", wrong=False)
    chromosome = row.get("hm_chr" if harmonised else "chr_name", "").strip()
    position = row.get("hm_pos" if harmonised else "chr_position", "").strip()
    if not chromosome or not position or position == "NA":
        raise UnusableError("a score line without a position", wrong=False)
    if not position.isdigit() or len(position) > 10:
        raise UnusableError("a score line whose position is no number")
    effect = row["effect_allele"].strip().upper()
    other = (row.get("other_allele") or row.get("hm_inferOtherAllele") or "").strip().upper()
    if not _BASES.match(effect):
        raise UnusableError("a score line whose effect allele is not bases")
    if other and not _BASES.match(other):
        raise UnusableError("a score line whose other allele is not bases")
    if other == effect:
        raise UnusableError("a score line with two equal alleles")
    variant = ScoreVariant(effect, other or None, _weights(row), _frequency(row))
    return (plain_chromosome(chromosome), int(position)), variant


def _weights(row: Mapping[str, str]) -> tuple[float, float, float]:
    """For 0, 1 and 2 copies.

    Raises:
        UnusableError: a weight that is no finite number, or two rules at once.
    """
    by_copies = [row.get(f"dosage_{copies}_weight", "").strip() for copies in range(3)]
    if any(by_copies):
        none, one, two = (_number(cell) for cell in by_copies)
        return none, one, two
    weight = _number(row.get("effect_weight", "").strip())
    if not math.isfinite(2 * weight):
        raise UnusableError("a score line whose weight is not finite for two copies")
    dominant, recessive = _true(row, "is_dominant"), _true(row, "is_recessive")
    if dominant and recessive:
        raise UnusableError("a score line that is both dominant and recessive")
    if dominant:
        return 0.0, weight, weight
    return (0.0, 0.0, weight) if recessive else (0.0, weight, 2 * weight)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise UnusableError("a score line whose weight is no number") from error
    if not math.isfinite(value):
        raise UnusableError("a score line whose weight is not finite")
    return value


def _frequency(row: Mapping[str, str]) -> float | None:
    try:
        value = float(row.get("allelefrequency_effect", "").strip() or "nan")
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _true(row: Mapping[str, str], key: str) -> bool:
    return row.get(key, "").strip().lower() in _TRUE
