"""Which patients a study was reserved for: lists of pseudonyms, fixed before the first charge.

The lists lie in a file of their own beside the ledger, because they speak of patients and the
ledger does not. The ledger's chain holds for each list a commitment, SHA-256 over a random salt and
the list: a changed list shows, and nobody who sees the commitment can try out who is in it.
"""

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final

from fedtwin_client.node.database import Database
from fedtwin_client.node.ledger_chain import REMEDY
from fedtwin_client.training.pseudonym_list import Members, pack, unpack
from fedtwin_protocol.errors import LedgerError

SALT_BYTES: Final = 32
_PURPOSE: Final = b"fedtwin members of a study\0"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS members (
    commitment TEXT PRIMARY KEY, salt BLOB NOT NULL, ids BLOB NOT NULL);
"""


class Memberships:
    """The file of lists.

    Args:
        path: made if absent, readable by its owner only.
        patience_s: how long to wait for another process that holds it.
    """

    def __init__(self, path: Path, *, patience_s: float = 10.0) -> None:
        self._path = path
        self._database = Database(
            path,
            schema=_SCHEMA,
            what="the file of the studies' members",
            consequence="Nothing was charged, nothing was sent",
            patience_s=patience_s,
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def keep(self, members: Iterable[int]) -> str:
        """Write a list, on disk before this returns.

        Returns:
            the commitment to it.
        """
        packed, salt = pack(members), os.urandom(SALT_BYTES)
        commitment = _commitment(salt, packed)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO members (commitment, salt, ids) VALUES (?, ?, ?)",
                (commitment, salt, packed),
            )
        return commitment

    def read(self, commitment: str) -> Members:
        """A list, in ascending order.

        Raises:
            LedgerError: it is not there, or was changed.
        """
        with self._database.explained():
            row = self._database.connection.execute(
                "SELECT salt, ids FROM members WHERE commitment = ?", (commitment,)
            ).fetchone()
        if row is None or _commitment(*(_bytes(value) for value in row)) != commitment:
            raise LedgerError(
                f"{self._path} lacks the members of a study that the privacy ledger speaks of, or "
                f"they were changed: the two files belong together. {REMEDY}"
            )
        return unpack(_bytes(row[1]))


def members_file(ledger_file: Path) -> Path:
    """Where the lists of a ledger lie."""
    return ledger_file.with_name(f"{ledger_file.stem}-members{ledger_file.suffix}")


def _commitment(salt: bytes, packed: bytes) -> str:
    return sha256(_PURPOSE + salt + packed).hexdigest()


def _bytes(value: bytes | str) -> bytes:
    """A column's bytes; SQLite hands out text where somebody wrote text into it."""
    return value.encode() if isinstance(value, str) else value
