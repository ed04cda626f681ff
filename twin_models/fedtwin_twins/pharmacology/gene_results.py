"""What is known of one gene of one patient, with everything that was said of it held together.

A result may be given as a diplotype, a phenotype, an activity score, or several of them; what
contradicts itself is refused, and so is an allele that the table of the gene does not have. What
the table calls Indeterminate stays Indeterminate.

CYP2D6 needs the number of gene copies: `*1/*4` may be one copy of each or three in all, which are
different phenotypes (PharmCAT documentation, "Calling CYP2D6"). It is either in the diplotype
(`*1x2/*4`) or stated beside it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from fedtwin_twins.genes.calling import GeneCall
from fedtwin_twins.genes.genotypes import diplotype_name
from fedtwin_twins.genes.phenotypes import INDETERMINATE, Meaning, meaning_of, split_diplotype
from fedtwin_twins.genes.tables import GeneTable, built_in_tables
from fedtwin_twins.twin.refusals import Problem, Refusal

NOT_TESTED: Final = "No Result"
"""CPIC's own term for a gene of a pair that was not tested."""
_SHORT: Final = {
    **{"pm": "Poor Metabolizer", "im": "Intermediate Metabolizer", "nm": "Normal Metabolizer"},
    **{"rm": "Rapid Metabolizer", "um": "Ultrarapid Metabolizer"},
}
_COUNT: Final = re.compile(r"(?P<name>.*?\d[^x]*?)\s*x\s*(?P<least>≥|>=)?\s*(?P<count>\d+|N)\Z")
_DELETED: Final = "*5"
"""The CYP2D6 allele that is the absence of the gene."""
_TWO_NAMES: Final = re.compile(r"(.+?) \(([^()]+)\)")
_VKORC1: Final = {
    **dict.fromkeys("CG", "rs9923231 reference (C)"),
    **dict.fromkeys("TA", "rs9923231 variant (T)"),
}
"""Bases at -1639 of VKORC1 on either strand: no base stands for both alleles."""
_VKORC1_BASES: Final = re.compile(r"(?:c\.)?(?:-1639)? *([ACGT])[/|]?([ACGT])\Z", re.IGNORECASE)
"""How laboratories write the two: `AA`, `-1639 GA`, `c.-1639 G/A`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneResult:
    """One gene of one patient.

    Attributes:
        gene: HGNC symbol.
        phenotype: in CPIC's words; none for a gene without phenotypes (CYP4F2).
        activity_score: none where the gene is not scored or the score is not known.
        at_least: the score is a lower bound.
        diplotype: as it was given, in order; empty where only a phenotype was.
        alleles: of the diplotype.
        version: of the table that it was read by.
    """

    gene: str
    phenotype: str | None
    activity_score: float | None = None
    at_least: bool = False
    diplotype: str = ""
    alleles: tuple[str, ...] = ()
    version: str = ""

    @property
    def shown(self) -> str:
        """The result as a reader sees it."""
        score = ""
        if self.activity_score is not None:
            score = (
                f", activity score {'at least ' if self.at_least else ''}{self.activity_score:g}"
            )
        said = f"{self.phenotype or 'no phenotype'}{score}"
        return f"{self.diplotype} ({said})" if self.diplotype else said

    @property
    def indeterminate(self) -> bool:
        """Whether the functions do not tell."""
        return self.phenotype == INDETERMINATE


def gene_result(
    gene: str,
    *,
    diplotype: str | None = None,
    phenotype: str | None = None,
    activity_score: float | None = None,
    copy_number: int | None = None,
    tables: Mapping[str, GeneTable] | None = None,
) -> GeneResult:
    """Everything that was reported of a gene, as one result.

    Args:
        gene: HGNC symbol.
        diplotype: such as `*1/*17`, or `A/G` for VKORC1 -1639; both alleles must be in the table.
        phenotype: in CPIC's words, or `PM`, `IM`, `NM`, `RM`, `UM`; bases of VKORC1, such as `GA`,
            are taken for a diplotype.
        activity_score: for genes that are scored.
        copy_number: of CYP2D6, all copies on both chromosomes; needed with a diplotype that
            does not state it itself.
        tables: by gene; those of this package if none are given.

    Raises:
        Refusal: unknown gene, allele or phenotype; a contradiction; CYP2D6 without copy number.
    """
    table = _table(gene, tables)
    if diplotype is None and phenotype is not None and _is_bases(table, phenotype):
        diplotype, phenotype = phenotype, None
    if diplotype is None and phenotype is None and activity_score is None:
        raise _refusal(gene, "empty", "a diplotype, a phenotype or an activity score")
    named = None if phenotype is None else _phenotype(table, phenotype)
    if diplotype is None:
        return _without_diplotype(table, named, activity_score)
    alleles = _alleles(table, diplotype, copy_number)
    meaning = meaning_of(table, alleles)
    _agree(table, diplotype, meaning, named, activity_score)
    return GeneResult(
        gene=table.gene,
        phenotype=meaning.phenotype,
        activity_score=meaning.activity_score,
        at_least=meaning.at_least,
        diplotype=diplotype_name(alleles),
        alleles=tuple(alleles),
        version=table.version,
    )


def called_result(call: GeneCall, tables: Mapping[str, GeneTable] | None = None) -> GeneResult:
    """A gene called from a patient's own genotypes.

    Raises:
        Refusal: it could not be called; with the call's own reason.
    """
    table = _table(call.gene, tables)
    if call.meaning is None:
        why = call.refusal or "no reason is given"
        raise _refusal(call.gene, f"not called: {why}", "a call, or a reported result")
    single = len(call.diplotypes) == 1 and " AND " not in call.name
    names = tuple(split_diplotype(call.name)) if single and "[" not in call.name else ()
    return GeneResult(
        gene=call.gene,
        phenotype=call.meaning.phenotype,
        activity_score=call.meaning.activity_score,
        at_least=call.meaning.at_least,
        diplotype=call.name,
        alleles=names if all(_known(table, name) for name in names) else (),
        version=table.version,
    )


def _table(gene: str, tables: Mapping[str, GeneTable] | None) -> GeneTable:
    known = built_in_tables() if tables is None else tables
    if gene not in known:
        raise _refusal("gene", gene, ", ".join(sorted(known)))
    return known[gene]


def phenotypes_of(table: GeneTable) -> list[str]:
    """All phenotypes that a gene may have."""
    names = {item.name for item in table.phenotypes.values()}
    names |= {band.phenotype for band in table.bands}
    return sorted(names | {INDETERMINATE}) if names else []


def _is_bases(table: GeneTable, text: str) -> bool:
    """Whether a phenotype is no phenotype, but the two bases of VKORC1."""
    spelled = text.strip().lower() in {name.lower() for name in phenotypes_of(table)}
    return table.gene == "VKORC1" and not spelled and bool(_VKORC1_BASES.match(text.strip()))


def _phenotype(table: GeneTable, text: str) -> str:
    allowed = {name.lower(): name for name in phenotypes_of(table)}
    asked = text.strip().lower().removeprefix(table.gene.lower()).strip()
    asked = _SHORT.get(asked, asked).lower().replace("metaboliser", "metabolizer")
    if asked not in allowed:
        known = ", ".join(allowed.values()) or "no phenotype: this gene has none, give a diplotype"
        raise _refusal(f"{table.gene} phenotype", text, known)
    return allowed[asked]


def _without_diplotype(table: GeneTable, named: str | None, score: float | None) -> GeneResult:
    meaning = Meaning(named, None)
    if score is not None:
        by_score = _by_score(table, score)
        if named is not None and by_score != named:
            raise _conflict(table, f"activity score {score:g}", by_score, named)
        meaning = Meaning(by_score, score)
    return GeneResult(
        gene=table.gene,
        phenotype=meaning.phenotype,
        activity_score=meaning.activity_score,
        version=table.version,
    )


def _by_score(table: GeneTable, score: float) -> str:
    every = table.phenotypes.values()
    scored = {p.activity_score: p.name for p in every if p.activity_score is not None}
    if table.bands and score >= 0 and float(score * 4).is_integer():
        return next(band.phenotype for band in table.bands if band.holds(score))
    if score not in scored:
        allowed = ", ".join(
            f"{value:g}" for value in sorted(filter(lambda v: v is not None, scored))
        )
        expected = allowed or ("a multiple of 0.25 from 0" if table.bands else "no score")
        raise _refusal(f"{table.gene} activity score", f"{score:g}", expected)
    return scored[score]


def _alleles(table: GeneTable, diplotype: str, copy_number: int | None) -> list[str]:
    bases = _VKORC1_BASES.match(diplotype.strip()) if table.gene == "VKORC1" else None
    try:
        alleles = list(bases.groups()) if bases else split_diplotype(diplotype)
    except ValueError as error:
        allowed = str(error).removeprefix("expected ")
        raise _refusal(f"{table.gene} diplotype", diplotype or "empty", allowed) from error
    if table.gene == "VKORC1":
        alleles = sorted(_VKORC1.get(allele.upper(), allele) for allele in alleles)
    if len(alleles) != 2 and table.chromosome != "chrX":
        raise _refusal(f"{table.gene} diplotype", diplotype, "two alleles with '/' between them")
    if table.calling == "reported":
        _check_copies(table, diplotype, alleles, copy_number)
        return alleles
    spelled = _spellings(table)
    alleles = [spelled.get(allele, allele) for allele in alleles]
    for allele in alleles:
        if not _known(table, allele):
            raise _unknown_allele(table, allele)
    return alleles


def _spellings(table: GeneTable) -> dict[str, str]:
    """What laboratories call an allele that the table calls by two names, as `c.1905+1G>A (*2A)`.

    A name that two alleles have, or that is another's own, stands for none of them.
    """
    names = {allele.name for allele in table.alleles}
    found: dict[str, str] = {}
    twice: set[str] = set()
    for name in sorted(names):
        match = _TWO_NAMES.fullmatch(name)
        for other in match.groups() if match else ():
            if other in found or other in names:
                twice.add(other)
            found[other] = name
    if table.gene == "DPYD" and "*1" not in names:
        found["*1"] = "Reference"
    return {other: name for other, name in found.items() if other not in twice}


def _parts(allele: str) -> list[str]:
    """The genes in a row on one chromosome, as in `*68+*4`."""
    return [part.strip() for part in allele.strip("[] ").split("+")]


def _known(table: GeneTable, name: str) -> bool:
    plain = re.sub(r"(\*\d+)\.\d+\Z", r"\1", name)
    names = set(table.values) | set(table.functions) | {allele.name for allele in table.alleles}
    names |= {allele.shown_as for allele in table.alleles}
    return bool({name, plain} & names)


def _check_copies(
    table: GeneTable, diplotype: str, alleles: list[str], copy_number: int | None
) -> None:
    parts = [part for allele in alleles for part in _parts(allele)]
    counts = [_COUNT.match(part) for part in parts]
    for part, match in zip(parts, counts, strict=True):
        if not _known(table, match["name"] if match else part):
            raise _unknown_allele(table, part)
    if copy_number is None:
        if not any(counts) and len(parts) == 2 and _DELETED not in parts:
            raise _refusal(
                f"{table.gene} copy number",
                "",
                "the number of gene copies, for without it a duplication looks like two copies",
                f"say how many copies were measured, or report it as in {parts[0]}x2",
            )
        return
    at_least = any(
        match is not None and (match["least"] or match["count"] == "N") for match in counts
    )
    total = sum(
        0 if part == _DELETED else int(match["count"]) if match and match["count"] != "N" else 1
        for part, match in zip(parts, counts, strict=True)
    )
    if copy_number < total or (copy_number != total and not at_least):
        raise _refusal(
            f"{table.gene} copy number",
            str(copy_number),
            f"{'at least ' if at_least else ''}{total}, which {diplotype} states",
        )


def _agree(
    table: GeneTable, diplotype: str, meaning: Meaning, named: str | None, score: float | None
) -> None:
    if named is not None and named != meaning.phenotype:
        raise _conflict(table, f"diplotype {diplotype}", meaning.phenotype or "no phenotype", named)
    if score is not None and score != meaning.activity_score:
        own = "no known score" if meaning.activity_score is None else f"{meaning.activity_score:g}"
        raise _conflict(table, f"diplotype {diplotype}", own, f"{score:g}")


def _conflict(table: GeneTable, by: str, means: str, given: str) -> Refusal:
    return _refusal(
        f"{table.gene} result",
        given,
        f"{means}, for that is what {by} means in the table of {table.version}",
        "ask the laboratory which of the two is right, and give that one alone",
    )


def _unknown_allele(table: GeneTable, part: str) -> Refusal:
    names = sorted(set(table.values) | set(table.functions) | {item.name for item in table.alleles})
    alike = get_close_matches(part, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    return _refusal(
        f"{table.gene} allele",
        part,
        f"one of {len(names)} alleles of the table of {table.version}",
        f"{hint}what is not in the table has no known function; a newer table may have it",
    )


def _refusal(field: str, value: str, allowed: str, remedy: str = "") -> Refusal:
    return Refusal(Problem(field=field, value=value, allowed=allowed, remedy=remedy))
