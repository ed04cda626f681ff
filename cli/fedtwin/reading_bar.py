"""A bar for files being read: bytes, rate, and how long it will take."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedtwin.paper import console


@contextmanager
def reading_bar(paths: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """Show how far files are read, where somebody watches.

    Args:
        paths: files and folders of FHIR records.

    Yields:
        To be told how many bytes more were read.

    Raises:
        RecordError: there are no such files.
    """
    from fedtwin_client.records.resources import find_files

    with bytes_bar(sum(file.stat().st_size for file in find_files(paths))) as told:
        yield told


@contextmanager
def bytes_bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show how far so many bytes are read, where somebody watches.

    Args:
        total: bytes.

    Yields:
        To be told how many bytes more were read.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("reading"), *columns, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=total)
        yield lambda read: progress.advance(task, read)
