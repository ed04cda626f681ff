"""The tables of genes that an import uses: those of the package, or newer ones of the site."""

from collections.abc import Mapping
from pathlib import Path

from fedtwin_protocol.errors import RecordError
from fedtwin_twins.genes.tables import GeneTable, built_in_tables, parse_table


def gene_tables(folder: Path | None) -> Mapping[str, GeneTable]:
    """Tables by gene; a table in the site's folder takes the place of the package's.

    Args:
        folder: with JSON files of the format `fedtwin-gene-table/1`; none: the package's alone.

    Raises:
        RecordError: there is no such folder, it holds no table, or one that cannot be read.
    """
    tables = dict(built_in_tables())
    if folder is None:
        return tables
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise RecordError(f"expected a folder with gene tables (*.json), found none in {folder}")
    for file in files:
        try:
            table = parse_table(file.read_text(encoding="utf-8"), file.name)
        except (OSError, ValueError) as error:
            raise RecordError(f"cannot use the gene table {file}: {error}") from error
        tables[table.gene] = table
    return tables
