"""What a mapping file opens: a CSV or Parquet table, or FHIR resources through a view."""

from pathlib import Path

from fedtwin_client.records.report import Recipe
from fedtwin_client.records.source import OpenSource
from fedtwin_client.records.tables.files import TableReader
from fedtwin_client.records.tables.mapping import TableMapping, read_mapping
from fedtwin_client.records.tables.table_lines import table_recipe
from fedtwin_protocol.errors import RecordError


def mapped_file(path: Path, mapping: Path) -> tuple[OpenSource, TableMapping, Recipe]:
    """A table as a source, what its columns mean, and how its rows are read again.

    Args:
        path: CSV or Parquet; if the mapping names a view, a file or folder of FHIR resources.
        mapping: the YAML file that says what its columns mean.

    Raises:
        RecordError: the mapping or its view is wrong, or there is no such file.
    """
    meaning = read_mapping(mapping)
    recipe = table_recipe(mapping, meaning)
    if meaning.view is not None:
        from fedtwin_client.records.views.files import (  # noqa: PLC0415 - FHIRPath
            view_files,
            view_recipe,
        )

        view = mapping.parent / meaning.view
        return view_files(path, meaning, view), meaning, view_recipe(recipe, view)
    if not path.is_file():
        raise RecordError(f"expected a table, found no file {path}")
    return lambda desk: TableReader(path, meaning, desk), meaning, recipe
