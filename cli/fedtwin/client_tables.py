"""`fedtwin client records view` and `records propose`: tables of FHIR, and mappings for tables."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fedtwin.paper import console, now, say, show_table


def view(
    view_file: Annotated[
        Path, typer.Argument(metavar="VIEW", help="A ViewDefinition (SQL on FHIR v2), JSON.")
    ],
    fhir: Annotated[list[Path], typer.Option(help="Files and folders: NDJSON or bundles.")],
    out: Annotated[Path, typer.Option(help="The table: .parquet or .csv.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILES]...", help="Further FHIR files.")
    ] = None,
) -> None:
    """Make a table of FHIR resources by a ViewDefinition; it holds patient data and stays here.

    Example: fedtwin client records view procedures.json --fhir export/ --out procedures.parquet
    """
    from fedtwin_client.records.views.definition import read_view
    from fedtwin_client.records.views.running import View
    from fedtwin_client.records.views.writing import write_view

    definition = read_view(view_file)
    ready = View(definition, str(view_file), now())
    with Progress(
        TextColumn("reading"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} files, {task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None, rows=0)

        def progress(done: int, files: int, rows: int) -> None:
            bar.update(task, completed=done, total=files, rows=rows)

        written = write_view(ready, [*fhir, *(more or [])], out, progress)
    say(*written.lines(definition.resource))


def propose(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the proposed mapping there, YAML.")
    ] = None,
) -> None:
    """Look at a table and propose a mapping, which a person must review before it can be used.

    Example: fedtwin client records propose visits.csv --out visits.yaml
    """
    from fedtwin_client.records.tables.proposals.proposing import propose as propose_mapping
    from fedtwin_client.records.tables.proposals.showing import form_lines, open_questions, rows
    from fedtwin_client.records.tables.proposals.sniffing import read_start
    from fedtwin_client.records.tables.proposals.writing import write_proposal

    with console.status("looking at the table"):
        found = propose_mapping(read_start(table))
    say(*form_lines(found))
    headings = ["column", "cells", "distinct", "looks like", "proposed", "unit", "score", "why"]
    show_table("", headings, [[escape(cell) for cell in row] for row in rows(found)])
    questions = open_questions(found)
    if questions:
        say(f"{len(questions)} to decide:", *(f"  {line}" for line in questions))
    if out is None:
        say("With --out MAP.yaml this is written as a mapping file for you to review.")
        return
    write_proposal(found, out)
    say(f"{out} is a proposal: decide what is marked 'unsure', then remove 'reviewed: no'.")
