"""The rows of a view as a file: Parquet or CSV.

The file is written beside its place and moved there at the end, so that a run that is cut off
leaves nothing half-written. It holds patient data and is readable by its owner alone.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedtwin_client.records.report import Tally
from fedtwin_client.records.resources import find_files, read_resources
from fedtwin_client.records.views.definition import Column
from fedtwin_client.records.views.functions import EvaluationError
from fedtwin_client.records.views.running import View
from fedtwin_protocol.errors import RecordError

_BATCH = 5_000
_TYPES = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "decimal": pa.float64(),
    "text": pa.string(),
}

Rows = list[dict[str, Any]]
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What a table was made of.

    Attributes:
        out: the table.
        rows: how many it has.
        resources: of the view's type.
        without: of those, how many make no row.
        others: resources of other types, by type.
        unreadable: lines and entries that are no resource, by reason.
        examples: where such things stand.
    """

    out: Path
    rows: int
    resources: int
    without: int
    others: dict[str, int]
    unreadable: dict[str, int]
    examples: dict[str, list[str]]

    def lines(self, kind: str) -> list[str]:
        """The account as lines of plain text.

        Args:
            kind: the view's type of resource.
        """
        lines = [f"{self.out}: {self.rows:,} rows of {self.resources:,} {kind} resources"]
        if self.without:
            lines.append(f"  {self.without:>8,}  {kind} resources make no row")
        lines += [
            f"  {count:>8,}  {other[:40]} resources are not of this view"
            for other, count in sorted(self.others.items())
        ]
        lines += [
            f"  {count:>8,}  {reason}  {', '.join(self.examples.get(reason, [])[:2])}"
            for reason, count in sorted(self.unreadable.items())
        ]
        return lines


def _tell_nobody(_done: int, _files: int, _rows: int) -> None:
    """No progress display."""


def write_view(
    view: View, paths: Sequence[Path], out: Path, progress: Progress = _tell_nobody
) -> Written:
    """Write the rows of FHIR files.

    Args:
        view: the view.
        paths: files and folders of FHIR resources.
        out: ending in `.parquet` or `.csv`; an older one is replaced.
        progress: told the number of files read, of all files, and of rows written.

    Raises:
        RecordError: a file cannot be read, a resource does not fit the view, or the table cannot be
            written; an older table is then still there.
    """
    if out.suffix not in {".parquet", ".csv"}:
        raise RecordError(f"expected a table ending in .parquet or .csv, found {out}")
    files = find_files(paths)
    part = out.with_name(f".{out.name}.part")
    tally, counts = Tally(quarantine=None), Counter[str]()
    write = _parquet if out.suffix == ".parquet" else _csv
    try:
        part.touch(mode=0o600)
        write(part, view.columns, _batches(view, files, tally, counts, progress))
        os.replace(part, out)
    except OSError as error:
        raise RecordError(f"cannot write {out}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    kind = view.definition.resource
    return Written(
        out=out,
        rows=counts["rows"],
        resources=tally.read[kind],
        without=counts["without"],
        others={other: count for other, count in tally.read.items() if other != kind},
        unreadable=dict(tally.reasons),
        examples=tally.examples,
    )


def _batches(
    view: View, files: list[Path], tally: Tally, counts: Counter[str], progress: Progress
) -> Iterator[Rows]:
    waiting: Rows = []
    for number, file in enumerate(files, start=1):
        for found in read_resources(file, tally):
            tally.read[found.resource["resourceType"]] += 1
            if found.resource["resourceType"] != view.definition.resource:
                continue
            try:
                rows = view.rows(found.resource)
            except EvaluationError as error:
                raise RecordError(
                    f"the view {view.name} does not fit the {view.definition.resource} at "
                    f"{found.place}: {error}; no table was written"
                ) from error
            counts["without"] += not rows
            counts["rows"] += len(rows)
            waiting += rows
            if len(waiting) >= _BATCH:
                yield waiting
                waiting = []
                progress(number - 1, len(files), counts["rows"])
        progress(number, len(files), counts["rows"])
    yield waiting
    if not any(tally.read.values()):
        listed = ", ".join(str(file) for file in files[:5])
        raise RecordError(f"found no FHIR resource in {listed}{tally.commonest()}")


def _parquet(out: Path, columns: list[Column], batches: Iterator[Rows]) -> None:
    schema = pa.schema([(column.name, _type(column)) for column in columns])
    with pq.ParquetWriter(out, schema) as writer:
        for rows in batches:
            arrays = [
                pa.array([_typed(row[column.name], column) for row in rows], type=_type(column))
                for column in columns
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _csv(out: Path, columns: list[Column], batches: Iterator[Rows]) -> None:
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in columns])
        for rows in batches:
            writer.writerows([_spell(row[column.name]) for column in columns] for row in rows)


def _type(column: Column) -> Any:
    single = _TYPES[column.carrier]
    return pa.list_(single) if column.collection else single


def _typed(value: Any, column: Column) -> Any:
    """A value as Parquet carries it; one of a column without a type becomes text."""
    if column.type is not None or value is None:
        return value
    return [_spell(item) for item in value] if isinstance(value, list) else _spell(value)


def _spell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
