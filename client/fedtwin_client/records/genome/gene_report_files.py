"""The kinds of files that hold ready calls of genes.

- `*.report.tsv`: PharmCAT's table of calls, of one sample or of many (`Sample ID`);
- `*.phenotype.json` and `*.report.json`, also gzipped: its Phenotyper's and Reporter's results;
- reported calls (PharmCAT's "outside call" format): gene, diplotype, phenotype, activity score,
  separated by tabs, without column names; lines that begin with `#` are remarks.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtwin_client.records.numbered_lines import numbered_lines
from fedtwin_client.records.report import Place, Tally
from fedtwin_protocol.errors import RecordError

_LONGEST_LINE = 32 * 1024 * 1024
_VERSION = re.compile(r"PharmCAT\s+(v?[\w.+-]{1,40})")


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


def read_calls(path: Path, tally: Tally) -> tuple[str, list[ReadyCall]]:
    """The calls of one file, and its kind: `pharmcat` or `reported`.

    Raises:
        RecordError: it cannot be read, or is none of these kinds.
    """
    lines = [(number, _decoded(line, path, number)) for number, line in _whole(path)]
    first = next((text for _, text in lines if text.strip()), "")
    if first.lstrip().startswith(("{", "[")):
        return "pharmcat", list(_of_json("".join(text for _, text in lines), path, tally))
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
        # Where strands are not known, only what was looked up has a phenotype.
        looked_up = "" if row.get("Phenotype") else "Recommendation Lookup "
        yield ReadyCall(
            gene=row.get("Gene", ""),
            sample=row.get("Sample ID"),
            diplotype=row.get("Source Diplotype"),
            phenotype=row.get(f"{looked_up}Phenotype"),
            activity_score=row.get(f"{looked_up}Activity Score"),
            status=status,
            place=Place(path.name, number),
        )


def _of_json(text: str, path: Path, tally: Tally) -> Iterator[ReadyCall]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not whole JSON: {str(error)[:100]}") from error
    whole = raw if isinstance(raw, dict) else {}
    # Reports hold the same of each gene as phenotypes do, under another name.
    reports = whole.get("geneReports", whole.get("genes"))
    if not isinstance(reports, dict):
        what = (
            "PharmCAT's matcher results, without phenotypes"
            if "results" in whole
            else "something else"
        )
        raise RecordError(
            "expected PharmCAT's phenotype.json (with 'geneReports') or report.json (with "
            f"'genes') in {path}, found {what}"
        )
    metadata = whole.get("matcherMetadata")
    sample = metadata.get("sampleId") if isinstance(metadata, dict) else None
    place = Place(path.name, 1)
    for gene, report in _by_gene(reports, tally, place):
        yield _of_gene_report(gene, report, sample, place)


def _by_gene(reports: dict[str, Any], tally: Tally, place: Place) -> Iterator[tuple[str, Any]]:
    """Each gene's report; PharmCAT 2 has one by each source of guidelines, of the same alleles."""
    by_source = {
        source: report
        for source, report in reports.items()
        if isinstance(report, dict) and "sourceDiplotypes" not in report
    }
    yield from ((gene, report) for gene, report in reports.items() if gene not in by_source)
    taken: set[str] = set()
    # Phenotypes here are CPIC's terms, so its word comes first.
    for source in sorted(by_source, key=lambda name: (name != "CPIC", name)):
        for gene, report in by_source[source].items():
            if not isinstance(report, dict):
                continue
            if gene in taken:
                tally.read["calls"] += 1
                tally.skip(f"what {source[:20]} makes of a gene, beside CPIC's", place)
                continue
            taken.add(gene)
            yield gene, report


def _of_gene_report(gene: str, report: Any, sample: Any, place: Place) -> ReadyCall:
    report = report if isinstance(report, dict) else {}
    diplotypes = _objects(report.get("sourceDiplotypes"))
    deciding = _objects(report.get("recommendationDiplotypes"))
    # Genes whose lowest functions count have their phenotype in what was looked up.
    lowest = bool(report.get("matcherComponentHaplotypes")) or gene == "DPYD"
    read_from = deciding if lowest and deciding else diplotypes
    status = f"PharmCAT, definitions {str(report.get('alleleDefinitionVersion') or 'unknown')[:10]}"
    if report.get("callSource") == "OUTSIDE":
        status += "; reported to it, not called by it"
    missing = [item for item in _objects(report.get("variants")) if item.get("call") is None]
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


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _phenotypes(item: Mapping[str, Any]) -> str | None:
    listed = item.get("phenotypes")
    return ", ".join(_texts(listed)) if isinstance(listed, list) else None


def _texts(values: Any) -> list[str]:
    return list(dict.fromkeys(value for value in values if isinstance(value, str) and value))


def _of_lines(lines: Sequence[tuple[int, str]], path: Path, tally: Tally) -> Iterator[ReadyCall]:
    """Reported calls: gene, diplotype, phenotype, activity score."""
    for number, text in lines:
        if not text.strip() or text.startswith("#"):
            continue
        row = text.rstrip("\r\n").split("\t")
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
