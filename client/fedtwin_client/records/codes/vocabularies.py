"""The vocabularies that a site has loaded for itself: which codes there are, and their names.

They lie in one SQLite file in the store's folder `codes`, which holds nothing of patients. Loading
an edition replaces what was loaded under the same vocabulary and edition before.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from fedtwin_client.records.codes.vocabulary_files import Concept, dotted, read_vocabulary
from fedtwin_protocol.errors import RecordError

FILE: Final = "vocabularies.db"
VOCABULARIES: Final = ("SNOMED", "RXNORM", "ATC", "ICD10", "ICD9", "LOINC", "NDC", "CVX")
_AT_ONCE: Final = 10_000
_EDITION: Final = re.compile(r"[A-Za-z0-9][\w .+-]{0,39}\Z")
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS edition (
    id INTEGER PRIMARY KEY, vocabulary TEXT NOT NULL, name TEXT NOT NULL, loaded TEXT NOT NULL,
    UNIQUE (vocabulary, name));
CREATE TABLE IF NOT EXISTS concept (
    vocabulary TEXT NOT NULL, code TEXT NOT NULL, edition INTEGER NOT NULL, name TEXT,
    active INTEGER NOT NULL, PRIMARY KEY (vocabulary, code, edition)) WITHOUT ROWID;
"""
_INSERT: Final = """
INSERT INTO concept VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    name = coalesce(excluded.name, name), active = min(active, excluded.active)
"""


class Edition(NamedTuple):
    """One edition of a vocabulary, as it was loaded here."""

    vocabulary: str
    name: str
    loaded: str
    concepts: int


class Entry(NamedTuple):
    """What one edition says of a code."""

    edition: str
    name: str | None
    active: bool


def vocabulary_file(store: Path) -> Path:
    """Where a store's vocabularies lie."""
    return store / "codes" / FILE


def load_vocabulary(
    files: Iterable[Path],
    store: Path,
    *,
    edition: str,
    now: datetime,
    vocabulary: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Edition]:
    """Load the files of one edition, all or nothing.

    Args:
        files: of it; for SNOMED CT the concepts and the descriptions.
        store: the timeline store's folder.
        edition: its name, such as `GM 2026`.
        now: for the list.
        vocabulary: of a plain list that does not say; of an OMOP file the only one to load.
        progress: is told how many rows were read.

    Returns:
        What is loaded under this edition's name now.

    Raises:
        RecordError: a file cannot be used; nothing was changed.
    """
    if vocabulary not in {None, *VOCABULARIES}:
        raise RecordError(f"expected a vocabulary of {', '.join(VOCABULARIES)}, got {vocabulary}")
    if not _EDITION.match(edition):
        raise RecordError("expected a short name of the edition, such as 'GM 2026'")
    with _opened(store) as db, db:
        numbers: dict[str, int] = {}
        count = 0
        for file in files:
            concepts = read_vocabulary(file, vocabulary)
            while piece := list(islice(concepts, _AT_ONCE)):
                _take(db, piece, numbers, edition, now)
                count += len(piece)
                progress(count)
        if not count:
            raise RecordError("found no code in these files; nothing was changed")
        return [item for item in _editions(db) if item.name == edition]


def _take(
    db: sqlite3.Connection,
    piece: list[Concept],
    numbers: dict[str, int],
    edition: str,
    now: datetime,
) -> None:
    for name in {concept.vocabulary for concept in piece} - numbers.keys():
        db.execute(
            "INSERT INTO edition (vocabulary, name, loaded) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET loaded = excluded.loaded",
            (name, edition, now.date().isoformat()),
        )
        found = db.execute(
            "SELECT id FROM edition WHERE vocabulary = ? AND name = ?", (name, edition)
        )
        (numbers[name],) = found.fetchone()
        db.execute("DELETE FROM concept WHERE edition = ?", (numbers[name],))
    db.executemany(
        _INSERT,
        [(one.vocabulary, one.code, numbers[one.vocabulary], *one[2:]) for one in piece],
    )


def editions(store: Path) -> list[Edition]:
    """What is loaded.

    Raises:
        RecordError: the file cannot be read.
    """
    if not vocabulary_file(store).exists():
        return []
    with _opened(store) as db:
        return _editions(db)


def _editions(db: sqlite3.Connection) -> list[Edition]:
    rows = db.execute(
        "SELECT edition.vocabulary, edition.name, loaded, count(*) FROM edition"
        " JOIN concept ON concept.edition = edition.id GROUP BY edition.id ORDER BY 1, 2"
    )
    return [Edition(*row) for row in rows.fetchall()]


def look_up(store: Path, codes: Iterable[str]) -> dict[str, list[Entry]]:
    """What the loaded editions say of codes; an empty list where none holds one.

    Args:
        store: the timeline store's folder.
        codes: `<VOCABULARY>//<code>`.

    Raises:
        RecordError: the file cannot be read.
    """
    if not vocabulary_file(store).exists():
        return {code: [] for code in codes}
    with _opened(store) as db:
        return {code: _entries(db, code) for code in codes}


def _entries(db: sqlite3.Connection, code: str) -> list[Entry]:
    vocabulary, _, plain = code.partition("//")
    rows = db.execute(
        "SELECT edition.name, concept.name, active FROM concept JOIN edition"
        " ON edition.id = concept.edition WHERE concept.vocabulary = ? AND code = ? ORDER BY 1",
        (vocabulary, dotted(plain.upper()) if vocabulary == "ICD10" else plain),
    )
    return [Entry(edition, name, bool(active)) for edition, name, active in rows.fetchall()]


@contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection]:
    file = vocabulary_file(store)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as db:
            db.executescript(_TABLES)
            yield db
    except (sqlite3.Error, OSError) as error:
        raise RecordError(
            f"cannot use {file}: {error}; if it is damaged, remove it and load the vocabularies "
            "again"
        ) from error
