"""Parquet files, encrypted by Parquet's own modular encryption where the folder has a keyring.

Every page, page header and the footer is AES-256-GCM encrypted and bound to its place in the file
(Apache Parquet, "Parquet Modular Encryption"); no name, number or statistic is readable. Each file
has a random key of its own, and the file's name is authenticated with it, so that one file cannot
stand in another's place. pyarrow reads and writes it; DuckDB reads it through pyarrow.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem
from pyarrow.parquet import encryption

_MAGIC: Final = b"PARE"


def open_writer(
    path: Path,
    schema: pa.Schema,
    key: bytes | None,
    repeated: Sequence[str] | None = None,
    *,
    ordered: Sequence[str] | None = None,
    counting: Sequence[str] = (),
) -> pq.ParquetWriter:
    """A writer of one file; the caller closes it.

    Args:
        path: the new file.
        schema: its columns.
        key: 32 bytes; none: not encrypted.
        repeated: columns in which few values come often, to be kept as dictionaries; none: all.
        ordered: columns of which the lowest and highest values are written down; none: all.
        counting: whole numbers that rise by little, none of them in `repeated`, which must be said.
    """
    sealing = (
        None
        if key is None
        else encryption.create_encryption_properties(
            key, aad_prefix=path.name.encode(), store_aad_prefix=False
        )
    )
    return pq.ParquetWriter(
        path,
        schema,
        compression={
            name: _compression(kind) for name, kind in zip(schema.names, schema.types, strict=True)
        },
        use_dictionary=True if repeated is None else list(repeated),
        write_statistics=True if ordered is None else list(ordered),
        column_encoding=dict.fromkeys(counting, "DELTA_BINARY_PACKED") or None,
        store_schema=False,
        encryption_properties=sealing,
    )


def open_tables(files: Sequence[tuple[Path, bytes | None]], schema: pa.Schema) -> ds.Dataset:
    """Several files, each with its own key, as one dataset that can be read again and again.

    Args:
        files: at least one, with the key of each; none for one that is not encrypted.
        schema: which columns to read; files may differ in which of them are said to be full.

    Raises:
        OSError: a file does not open with its key, or was changed.
    """
    parts = [_opened(path, key, schema) for path, key in files]
    return ds.UnionDataset(schema, parts)


def open_reader(path: Path, key: bytes | None, repeated: Sequence[str] = ()) -> pq.ParquetFile:
    """A reader of one file; the caller closes it.

    Args:
        path: the file.
        key: 32 bytes; none: it is not encrypted.
        repeated: columns that are read as dictionaries.

    Raises:
        OSError: it does not open with its key, or was changed.
    """
    return pq.ParquetFile(
        path,
        read_dictionary=list(repeated),
        pre_buffer=False,  # reading ahead is another thread's, which costs more than a local disk
        decryption_properties=_opening(path, key),
    )


def _compression(kind: pa.DataType) -> str:
    """Long texts are worth some work; the rest hardly shrinks more, and readers read it oftener."""
    return "zstd" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else "lz4"


def is_plain(path: Path) -> bool:
    """Whether a Parquet file is not encrypted."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) != _MAGIC


def _opened(path: Path, key: bytes | None, schema: pa.Schema) -> ds.FileSystemDataset:
    options = {} if key is None else {"decryption_properties": _opening(path, key)}
    form = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(**options)
    )
    fragment = form.make_fragment(str(path), filesystem=LocalFileSystem())
    return ds.FileSystemDataset([fragment], schema, form, filesystem=LocalFileSystem())


def _opening(path: Path, key: bytes | None) -> Any:
    if key is None:
        return None
    return encryption.create_decryption_properties(key, aad_prefix=path.name.encode())
