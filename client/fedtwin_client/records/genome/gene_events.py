"""The events of a gene's call: its diplotype, its phenotype and its activity score.

| code | holds |
|---|---|
| `HGNC//2621` | `text_value`: the diplotype, `*1/*2`; several that fit equally well with ` OR ` |
| `HGNC//2621/phenotype` | `text_value`: CPIC's term; `Indeterminate` stays `Indeterminate` |
| `HGNC//2621/activity-score` | `numeric_value`, for genes that are scored and have one |

The number is the gene's at genenames.org (HGNC). `status` says where the call is from, of which
date the definitions are, and what was missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import Times

_LONGEST_STATUS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneResult:
    """What a source says of one gene of one patient.

    Attributes:
        hgnc: the gene's HGNC number.
        diplotype: as it is written; none if only a phenotype was reported.
        phenotype: none if there is none.
        activity_score: none if the gene is not scored, or the score is not known.
        at_least: the score is a lower bound.
        status: where the call is from, and its limits.
    """

    hgnc: int
    diplotype: str | None
    phenotype: str | None
    activity_score: float | None
    at_least: bool
    status: str


def gene_origin(source: str, kind: str, subject: int, gene: str) -> str:
    """One gene of one patient by one way of calling is one record; a later one replaces it."""
    return f"{source}:{kind}/{subject}/{gene}"


def gene_events(origin: str, subject: int, times: Times, result: GeneResult) -> Iterator[Event]:
    """The events of one gene's call."""
    start = Event(
        subject_id=subject,
        time=times.time,
        available_time=times.available_time,
        code=f"HGNC//{result.hgnc}",
        source=f"{origin}#diplotype",
        status=result.status[:_LONGEST_STATUS],
    )
    if result.diplotype is not None:
        yield replace(start, text_value=result.diplotype)
    if result.phenotype is not None:
        yield replace(
            start,
            code=f"{start.code}/phenotype",
            source=f"{origin}#phenotype",
            text_value=result.phenotype,
        )
    if result.activity_score is not None:
        yield replace(
            start,
            code=f"{start.code}/activity-score",
            source=f"{origin}#activity-score",
            numeric_value=result.activity_score,
            unit="1",
            comparator=">=" if result.at_least else None,
        )
