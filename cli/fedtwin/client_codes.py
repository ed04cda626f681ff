"""`fedtwin client records codes …`: what this hospital's codes and units stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from fedtwin.client_patients import DEFAULT_HOME, Folder
from fedtwin.paper import console, now, say, show_table

if TYPE_CHECKING:
    from fedtwin_client.records.codes.tables import CodeTables

Who = Annotated[str, typer.Option(help="Your name or initials; they are written down.")]

codes = typer.Typer(
    help="What local codes and units stand for, and which values are plausible.\n\n"
    "Example: fedtwin client records codes list",
    no_args_is_help=True,
    rich_markup_mode=None,
)
vocabulary = typer.Typer(
    help="Vocabularies that this hospital has a licence for: SNOMED CT, ATC, ICD and others.\n\n"
    "Example: fedtwin client records vocabulary list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_code_commands(records: typer.Typer) -> None:
    """Put the commands under `fedtwin client records`."""
    records.add_typer(codes, name="codes")
    records.add_typer(vocabulary, name="vocabulary")


@codes.command()
def add(
    local: Annotated[str, typer.Argument(help="The local code, as an import's report writes it.")],
    standard: Annotated[str, typer.Argument(help="The standard code, such as LOINC//2093-3.")],
    by: Who,
    home: Folder = DEFAULT_HOME,
    note: Annotated[str, typer.Option(help="Anything to keep with it.")] = "",
) -> None:
    """Say which standard code a local code is read as, from the next import on.

    Example: fedtwin client records codes add labs.example.org_codes//CHOL LOINC//2093-3 --by AB
    """
    from fedtwin_client.records.codes.site_codes import add_alias
    from fedtwin_client.records.codes.tables import site_tables

    store = _store(home)
    before = site_tables(store).aliases.get(local)
    tables = add_alias(store, local, standard, by=by, today=now().date(), note=note)
    known = tables.analytes.get(standard)
    meaning = f" ({known.name}, kept in {known.unit})" if known is not None else ""
    say(f"{local} is read as {standard}{meaning} from the next import on")
    if before is not None and before.standard != standard:
        say(f"  and no longer as {before.standard}, which {before.reviewer} wrote on {before.date}")
    say(_version(tables))


@codes.command("add-unit")
def add_unit(
    spelling: Annotated[str, typer.Argument(help="As your systems write it.")],
    unit: Annotated[str, typer.Argument(help="The UCUM unit it stands for.")],
    by: Who,
    home: Folder = DEFAULT_HOME,
    exact: Annotated[bool, typer.Option("--exact", help="Upper and lower case matter.")] = False,
) -> None:
    """Say which unit a spelling stands for, from the next import on.

    Example: fedtwin client records codes add-unit mg/dl-ser mg/dL --by AB
    """
    from fedtwin_client.records.codes.site_codes import add_spelling

    today = now().date()
    tables = add_spelling(_store(home), spelling, unit, by=by, today=today, exact=exact)
    say(f"'{spelling}' is read as {unit} from the next import on", _version(tables))


@codes.command("add-range")
def add_range(
    code: Annotated[str, typer.Argument(help="A code that this node knows.")],
    low: Annotated[float, typer.Argument(help="The least plausible value.")],
    high: Annotated[float, typer.Argument(help="The greatest.")],
    by: Who,
    home: Folder = DEFAULT_HOME,
) -> None:
    """Set the range outside which an import points values out; they are kept all the same.

    Example: fedtwin client records codes add-range LOINC//2345-7 0.5 80 --by AB
    """
    from fedtwin_client.records.codes.site_codes import add_range as add_one

    tables = add_one(_store(home), code, low, high, by=by, today=now().date())
    known = tables.analytes[code]
    say(
        f"{known.name} ({code}) is plausible from {low:g} to {high:g} {known.unit}",
        _version(tables),
    )


@codes.command("assume-unit")
def assume_unit(
    code: Annotated[str, typer.Argument(help="A code that this node knows.")],
    unit: Annotated[str, typer.Argument(help="The UCUM unit of its values without one.")],
    by: Who,
    home: Folder = DEFAULT_HOME,
    note: Annotated[str, typer.Option(help="Why: what the laboratory said.")] = "",
) -> None:
    """Accept a unit for values that come without one, from the next import on.

    Example: fedtwin client records codes assume-unit LOINC//2093-3 mg/dL --by AB --note 'lab says'
    """
    from fedtwin_client.records.codes.site_codes import add_assumed_unit

    today = now().date()
    tables = add_assumed_unit(_store(home), code, unit, by=by, today=today, note=note)
    say(f"{code} without a unit is read as {unit} from the next import on", _version(tables))


@codes.command("propose-units")
def propose_units(
    reference: Annotated[
        Path, typer.Argument(help="The consortium's quantiles, CSV: code, unit, q05 … q95.")
    ],
    home: Folder = DEFAULT_HOME,
    values: Annotated[
        Path | None,
        typer.Option(help="Values without a unit, CSV: code, value; else what was put aside."),
    ] = None,
) -> None:
    """Propose units for values that came without one; a person accepts them with assume-unit.

    Example: fedtwin client records codes propose-units reference.csv
    """
    from fedtwin_client.node.home import NodeHome
    from fedtwin_client.patients import unitless_values
    from fedtwin_client.records.codes.tables import site_tables, using
    from fedtwin_client.records.codes.unit_inference import propose_units as proposals
    from fedtwin_client.records.codes.unit_inference import read_reference, read_values

    store = _store(home)
    with using(site_tables(store)), console.status("comparing"):
        found = unitless_values(NodeHome(folder=home)) if values is None else read_values(values)
        rows = proposals(found, read_reference(reference))
    cells = [
        [
            row.code,
            str(row.values),
            escape(row.unit or "unsure"),
            escape(", ".join(f"{unit} {distance:.2f}" for unit, distance in row.distances)),
            escape(row.why),
        ]
        for row in rows
    ]
    if cells:
        show_table("", ["code", "values", "proposed", "distances", "why"], cells)
    say(
        f"{len(found):,} codes have values without a unit; {len(rows):,} of them have a reference",
        "Ask the laboratory, then accept with 'fedtwin client records codes assume-unit'.",
    )


@codes.command()
def check(home: Folder = DEFAULT_HOME) -> None:
    """Check the site's own tables after they were edited by hand.

    Example: fedtwin client records codes check
    """
    from fedtwin_client.records.codes.tables import site_tables

    tables = site_tables(_store(home))
    say(
        f"in order: {len(tables.analytes):,} codes, {len(tables.units.units):,} units, "
        f"{len(tables.aliases):,} local codes",
        _version(tables),
    )


@codes.command("list")
def list_codes(
    home: Folder = DEFAULT_HOME,
    all_codes: Annotated[
        bool, typer.Option("--all", help="Also every code that is known.")
    ] = False,
) -> None:
    """Show what the site has added, and with --all every code with its unit and range.

    Example: fedtwin client records codes list --all
    """
    from fedtwin_client.records.codes.site_codes import site_rows
    from fedtwin_client.records.codes.tables import site_tables

    store = _store(home)
    tables = site_tables(store)
    for name, rows in site_rows(store).items():
        if rows:
            columns = [column for column in rows[0] if any(row.get(column) for row in rows)]
            cells = [[escape(row.get(column, "")) for column in columns] for row in rows]
            show_table(name, columns, cells)
    if all_codes:
        show_table("", ["code", "name", "unit", "plausible", "source"], _known(tables))
    say(_version(tables))


@vocabulary.command()
def load(
    files: Annotated[list[Path], typer.Argument(help="The files of one edition.")],
    edition: Annotated[str, typer.Option(help="Its name, such as 'GM 2026'.")],
    home: Folder = DEFAULT_HOME,
    kind: Annotated[
        str | None,
        typer.Option("--vocabulary", help="SNOMED, RXNORM, ATC, ICD10 …, where a list is silent."),
    ] = None,
) -> None:
    """Load a vocabulary; imports then point out codes that it does not hold.

    Example: fedtwin client records vocabulary load icd10gm2026syst_kodes.txt --edition 'GM 2026'
    """
    from fedtwin_client.records.codes.vocabularies import load_vocabulary

    store = _store(home)
    with Progress(
        TextColumn("reading"),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)
        loaded = load_vocabulary(
            files,
            store,
            edition=edition,
            now=now(),
            vocabulary=kind,
            progress=lambda count: bar.update(task, completed=count),
        )
    for item in loaded:
        say(f"{item.vocabulary} {item.name}: {item.concepts:,} codes")


@vocabulary.command("list")
def list_vocabularies(home: Folder = DEFAULT_HOME) -> None:
    """Show which vocabularies are loaded.

    Example: fedtwin client records vocabulary list
    """
    from fedtwin_client.records.codes.vocabularies import editions

    rows = [
        [item.vocabulary, item.name, item.loaded, str(item.concepts)]
        for item in editions(_store(home))
    ]
    if rows:
        show_table("", ["vocabulary", "edition", "loaded", "codes"], rows)
    else:
        say("none is loaded; none is shipped, because their licences are the hospital's own")


@vocabulary.command()
def show(
    code: Annotated[str, typer.Argument(help="Such as ICD10//I25.1.")], home: Folder = DEFAULT_HOME
) -> None:
    """Say what the loaded vocabularies, and this node's own table, know of a code.

    Example: fedtwin client records vocabulary show ICD10//I25.1
    """
    from fedtwin_client.records.codes.tables import site_tables
    from fedtwin_client.records.codes.vocabularies import look_up

    store = _store(home)
    known = site_tables(store).analytes.get(code)
    if known is not None:
        say(f"{code}: {known.name}, kept in {known.unit}")
    for entry in look_up(store, [code])[code]:
        state = "" if entry.active else " (no longer active)"
        say(f"{code}: {entry.name or 'without a name'}{state}, in {entry.edition}")
    if known is None and not look_up(store, [code])[code]:
        say(f"{code} is in nothing that is loaded")


def _known(tables: "CodeTables") -> list[list[str]]:
    return [
        [
            code,
            escape(one.name),
            escape(one.unit),
            "" if one.low is None or one.high is None else f"{one.low:g} to {one.high:g}",
            escape(one.source),
        ]
        for code, one in sorted(tables.analytes.items())
    ]


def _version(tables: "CodeTables") -> str:
    return f"code tables {tables.version}"


def _store(home: Path) -> Path:
    from fedtwin_client.node.home import NodeHome

    place = NodeHome(folder=home)
    place.settings()
    return place.records
