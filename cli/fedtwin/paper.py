"""What commands write for people: tables, times, logs."""

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import typer
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


class LogLevel(StrEnum):
    """How much a running process writes to its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def say(*lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def show_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table; a numeric column is recognised by its values."""
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for index, heading in enumerate(headings):
        cells = [row[index] for row in rows if row[index] not in {"", "-"}]
        numeric = bool(cells) and all(_numeric(cell) for cell in cells)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def start_log(level: LogLevel) -> None:
    """Send the log to standard error, one line an event."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )


def refuse_misplaced(context: typer.Context, name: str) -> None:
    """Refuse an option that was given before a command, where it would be passed over.

    Raises:
        typer.BadParameter: it was given there.
    """
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        raise typer.BadParameter(
            f"write --{name} after '{context.invoked_subcommand}', not before it", ctx=context
        )


def now() -> datetime:
    """The time of this machine, in UTC."""
    return datetime.now(UTC)


def data_folder(party: str) -> Path:
    """Where a party's folder lies unless it is named."""
    return Path.home() / ".local" / "share" / "fedtwin" / party


def _numeric(text: str) -> bool:
    return text.replace(".", "").replace("-", "").replace(",", "").replace("%", "").isdigit()
