"""Patients' pseudonyms, and the one way back.

A pseudonym is the first 63 bits of HMAC-SHA256(site secret, system|value): without the secret it
cannot be computed from a patient's number, and another hospital's pseudonym of the same person is
different. Only this module turns one back, through an SQLite file at the site (0600) that is
written before any record under the pseudonym is.
"""

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fedtwin_client.at_rest.database import ERRORS, connect
from fedtwin_client.at_rest.room import how_to_mend
from fedtwin_protocol.errors import ConfigurationError, RecordError

_AT_ONCE = 500

SECRET_BYTES = 32


class Identity(NamedTuple):
    """A patient's number and whose number it is."""

    system: str
    value: str


def written_identity(system: str, number: str) -> Identity:
    """A patient as an import knows them: without a system of numbers, by the server's own id.

    Args:
        system: an identifier system, or the name of a server or table.
        number: as people write it.
    """
    by_server = ":" not in system and "/" not in system
    if by_server and not number.startswith("Patient/"):
        return Identity(system, f"Patient/{number}")
    return Identity(system, number)


def open_secret(path: Path, fresh: bytes) -> bytes:
    """Read the site's secret, or keep a fresh one where there is none yet.

    Args:
        path: of the secret file.
        fresh: 32 bytes from a cryptographic generator, used only if the file does not exist.

    Returns:
        The secret that the site uses from now on.

    Raises:
        ConfigurationError: the file cannot be read or made, or holds something else.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(fresh)
                file.flush()
                os.fsync(file.fileno())
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read or make the site's secret {path}: {error.strerror}"
        ) from error
    check_secret(secret, str(path))
    return secret


def check_secret(secret: bytes, where: str) -> None:
    """Refuse a secret that is not one.

    Raises:
        ConfigurationError: it has another length than 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise ConfigurationError(
            f"expected a secret of {SECRET_BYTES} bytes, found {len(secret)} in {where}; "
            "put the original file back: with another secret every patient gets a new pseudonym"
        )


def pseudonym(secret: bytes, identity: Identity) -> int:
    """The patient's subject_id: 63 bits, the same at every import with the same secret."""
    text = f"{identity.system}|{identity.value}".encode()
    digest = hmac.new(secret, text, hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class IdentityMap:
    """The file that leads from pseudonyms back to patients.

    Also remembers under which address (`Patient/<id>`) a source speaks of a patient, so that
    later exports without the Patient resource still find the same one.
    """

    def __init__(self, path: Path) -> None:
        """Open the map, and make it where there is none.

        Raises:
            RecordError: the file cannot be opened or is damaged.
        """
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(connect(path)) as db, all_or_nothing(db):
                db.execute(
                    "CREATE TABLE IF NOT EXISTS patients"
                    " (subject_id INTEGER PRIMARY KEY, system TEXT, value TEXT)"
                )
                db.execute(
                    "CREATE TABLE IF NOT EXISTS addresses"
                    " (address TEXT PRIMARY KEY, system TEXT, value TEXT)"
                )
        except (OSError, *ERRORS) as error:
            mend = how_to_mend(error, path, "check the disk, the file's owner and its rights")
            raise RecordError(f"cannot open the identity map {path} ({error}): {mend}") from error

    def record(self, identities: dict[int, Identity], addresses: dict[str, Identity]) -> None:
        """Add patients and addresses; durable on return.

        Raises:
            RecordError: a pseudonym already stands for another patient, or the disk is full.
        """
        try:
            with closing(self._open()) as db, all_or_nothing(db):
                db.executemany(
                    "INSERT OR IGNORE INTO patients VALUES (?, ?, ?)",
                    [(subject, *identity) for subject, identity in identities.items()],
                )
                self._refuse_collisions(db, identities)
                db.executemany(
                    "INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)",
                    [(address, *identity) for address, identity in addresses.items()],
                )
        except ERRORS as error:
            raise RecordError(
                f"cannot write the identity map {self._path}: {error}; nothing was imported: "
                + how_to_mend(error, self._path, "check the disk, and import again")
            ) from error

    def addresses(self) -> dict[str, Identity]:
        """All addresses that sources have used, with the patient behind each."""
        with closing(self._open()) as db:
            rows = db.execute("SELECT address, system, value FROM addresses").fetchall()
        return {address: Identity(system, value) for address, system, value in rows}

    def who_is(self, subject_id: int) -> Identity:
        """Turn one pseudonym back into the patient's number.

        Raises:
            RecordError: no patient of this site has that pseudonym.
        """
        with closing(self._open()) as db:
            row = db.execute(
                "SELECT system, value FROM patients WHERE subject_id = ?", (subject_id,)
            ).fetchone()
        if row is None:
            raise RecordError(f"expected a pseudonym of this site, found {subject_id}")
        return Identity(*row)

    def forget(self, subject_id: int) -> bool:
        """Remove the way back to a patient; nothing of it is left in the file on return.

        Returns:
            Whether there was one.

        Raises:
            RecordError: the file cannot be written.
        """
        try:
            with closing(self._open()) as db, all_or_nothing(db):
                row = db.execute(
                    "SELECT system, value FROM patients WHERE subject_id = ?", (subject_id,)
                ).fetchone()
                if row is None:
                    return False
                db.execute("DELETE FROM addresses WHERE system = ? AND value = ?", row)
                db.execute("DELETE FROM patients WHERE subject_id = ?", (subject_id,))
            return True
        except ERRORS as error:
            raise RecordError(f"cannot write the identity map {self._path}: {error}") from error

    def known(self) -> frozenset[int]:
        """The pseudonyms of all patients in the map."""
        with closing(self._open()) as db:
            return frozenset(int(row[0]) for row in db.execute("SELECT subject_id FROM patients"))

    def systems(self) -> list[str]:
        """Whose numbers patients are known by here."""
        with closing(self._open()) as db:
            rows = db.execute("SELECT DISTINCT system FROM patients ORDER BY system").fetchall()
        return [str(system) for (system,) in rows]

    def _open(self) -> sqlite3.Connection:
        db = connect(self._path)
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA secure_delete=ON")
        return db

    def _refuse_collisions(self, db: sqlite3.Connection, identities: dict[int, Identity]) -> None:
        subjects = list(identities)
        for start in range(0, len(subjects), _AT_ONCE):
            asked = subjects[start : start + _AT_ONCE]
            places = ", ".join("?" * len(asked))
            columns = "subject_id, system, value"
            sql = f"SELECT {columns} FROM patients WHERE subject_id IN ({places})"  # noqa: S608
            rows = db.execute(sql, asked)
            found = {int(subject): Identity(*identity) for subject, *identity in rows}
            for subject in asked:
                if found[subject] != identities[subject]:
                    raise RecordError(
                        f"two patients have one pseudonym ({subject}) in {self._path}; nothing "
                        "was imported. Report this: it is expected once in millions of sites"
                    )


@contextmanager
def all_or_nothing(db: sqlite3.Connection) -> Iterator[None]:
    """One transaction: committed at the end, taken back where something goes wrong."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


class Pseudonyms:
    """The pseudonyms given out during one import; patients who are one person have one.

    Attributes:
        merges: who was found to be whom since the last `take_merges`.
    """

    def __init__(
        self,
        secret: bytes,
        merged: Mapping[Identity, Identity] = MappingProxyType({}),
        apart: Set[frozenset[Identity]] = frozenset(),
        erased: Set[int] = frozenset(),
    ) -> None:
        """Start with nobody.

        Args:
            secret: the site's 32 bytes.
            merged: identities that stand for another one, from earlier.
            apart: pairs that a person has said are two patients.
            erased: pseudonyms that nobody is merged with.

        Raises:
            ConfigurationError: the secret is not 32 bytes.
        """
        check_secret(secret, "the secret that was handed in")
        self._secret = secret
        self._given: dict[Identity, int] = {}
        self._behind: dict[int, Identity] = {}
        self._into = dict(merged)
        self._apart = apart
        self._erased = erased
        self.merges: dict[Identity, Identity] = {}

    def of(self, identity: Identity) -> int:
        """The pseudonym of a patient, remembered."""
        subject = self._given.get(identity)
        if subject is None:
            whole = self.whole(identity)
            subject = self._given[identity] = pseudonym(self._secret, whole)
            self._behind[subject] = whole
        return subject

    def whole(self, identity: Identity) -> Identity:
        """The identity that a patient is known by here, whichever of theirs is asked for."""
        while identity in self._into:
            identity = self._into[identity]
        return identity

    def merge(self, one: Identity, into: Identity) -> str | None:
        """Make two identities one patient: from now on both have the pseudonym of the second.

        Returns:
            Why not, in words for the report; none if they are one patient now.
        """
        first, second = self.whole(one), self.whole(into)
        if first == second:
            return None
        if {frozenset({first, second}), frozenset({one, into})} & self._apart:
            return "two patients whom a person keeps apart"
        if {pseudonym(self._secret, first), pseudonym(self._secret, second)} & self._erased:
            return "a patient who is erased here is one with another"
        self._into[first] = self.merges[first] = second
        self._given.clear()
        return None

    def formers(self, subject: int) -> frozenset[int]:
        """The pseudonyms that a patient had before they were merged."""
        return frozenset(self.own(one) for one in list(self._into) if self.of(one) == subject)

    def own(self, identity: Identity) -> int:
        """The pseudonym that an identity has, or would have, by itself."""
        return pseudonym(self._secret, identity)

    def take_merges(self) -> dict[Identity, Identity]:
        """Who was found to be whom since the last time."""
        found, self.merges = self.merges, {}
        return found

    def settled(self, merges: Mapping[Identity, Identity]) -> None:
        """Forget merges that are on the disk; another thread may have found more meanwhile."""
        for one, into in merges.items():
            if self.merges.get(one) == into:
                del self.merges[one]

    def keyed(self, purpose: str, text: str) -> str:
        """A name for something that leads back to it only with the site's secret: 32 hex digits.

        Args:
            purpose: names made for two purposes say nothing of each other.
            text: what is named.
        """
        about = f"fedtwin {purpose}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self._secret, about, hashlib.sha256).hexdigest()[:32]

    def identities(self, used: Iterable[int]) -> dict[int, Identity]:
        """Who is behind each pseudonym that was used."""
        return {subject: self._behind[subject] for subject in used if subject in self._behind}
