"""`fedtwin client records codes …`: what this hospital's codes and units stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from fedtwin.client_patients import DEFAULT_HOME, Folder
from fedtwin.paper import now, say, show_table

if TYPE_CHECKING:
    from fedtwin_client.records.code_tables import CodeTables

Who = Annotated[str, typer.Option(help="Your name or initials; they are written down.")]

codes = typer.Typer(
    help="What local codes and units stand for, and which values are plausible.\n\n"
    "Example: fedtwin client records codes list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_code_commands(records: typer.Typer) -> None:
    """Put the commands under `fedtwin client records`."""
    records.add_typer(codes, name="codes")


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
    from fedtwin_client.records.site_codes import add_alias

    tables = add_alias(_store(home), local, standard, by=by, today=now().date(), note=note)
    known = tables.analytes.get(standard)
    meaning = f" ({known.name}, kept in {known.unit})" if known is not None else ""
    say(f"{local} is read as {standard}{meaning} from the next import on", _version(tables))


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
    from fedtwin_client.records.site_codes import add_spelling

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
    from fedtwin_client.records.site_codes import add_range as add_one

    tables = add_one(_store(home), code, low, high, by=by, today=now().date())
    known = tables.analytes[code]
    say(
        f"{known.name} ({code}) is plausible from {low:g} to {high:g} {known.unit}",
        _version(tables),
    )


@codes.command()
def check(home: Folder = DEFAULT_HOME) -> None:
    """Check the site's own tables after they were edited by hand.

    Example: fedtwin client records codes check
    """
    from fedtwin_client.records.code_tables import site_tables

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
    from fedtwin_client.records.code_tables import site_tables
    from fedtwin_client.records.site_codes import site_rows

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
