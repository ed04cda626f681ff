"""Which certificates no longer count: the book of issued ones, and the signed list made from it.

Rules:

1. Every leaf is entered in the book before it is handed out. A name that is revoked gets no further
   leaf; this and the entry are one transaction, so that no leaf slips past a revocation.
2. Revoking a name revokes every certificate it holds, its unused invitations' included. A redeemed
   new invitation lifts the bar; old certificates stay revoked.
3. The list (`revoked.crl`, X.509 CRL of RFC 5280) is signed by the issuing CA and dated. A list
   that is absent, damaged, signed by another or past its date refuses everybody: who can stop
   the list from being renewed must not thereby undo a revocation.
4. Serial numbers leave the list a day after their certificate has expired.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import IdentityError
from fedtwin_protocol.identity import PeerIdentity, certificates_from_pem, check_name
from fedtwin_server.authority import Authority, IssuedLeaf

log = logging.getLogger("fedtwin.revocation")
CRL_FILE: Final = "revoked.crl"
CRL_LIFE: Final = timedelta(hours=24)
REMEDY: Final = "the coordinator writes it again within a minute, if its folder can be written"
_KEEP_EXPIRED: Final = timedelta(days=1)

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS issued (serial TEXT PRIMARY KEY, role TEXT NOT NULL,"
    " name TEXT NOT NULL, not_after INTEGER NOT NULL, revoked INTEGER)",
    "CREATE INDEX IF NOT EXISTS issued_by_name ON issued (role, name)",
    "CREATE TABLE IF NOT EXISTS barred (role TEXT NOT NULL, name TEXT NOT NULL,"
    " since INTEGER NOT NULL, PRIMARY KEY (role, name))",
    "CREATE TABLE IF NOT EXISTS publications (number INTEGER PRIMARY KEY,"
    " published INTEGER NOT NULL, issuer TEXT NOT NULL, listed INTEGER NOT NULL)",
)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of what is inside, or nothing; other processes wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class IssuedBook:
    """Which certificates were issued to whom, and which of them are revoked.

    Args:
        connection: the coordinator's database, in autocommit mode (`isolation_level=None`).
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        for statement in _SCHEMA:
            connection.execute(statement)

    def add(self, leaf: IssuedLeaf) -> None:
        """Enter a leaf, before it is handed out.

        Raises:
            IdentityError: the name is revoked; the leaf must not be handed out.
        """
        who = leaf.identity
        with transaction(self._connection) as connection:
            row = connection.execute(
                "SELECT since FROM barred WHERE role = ? AND name = ?", (who.role, who.name)
            ).fetchone()
            if row is not None:
                raise IdentityError(
                    f"{who.uri} was revoked at {_utc(row[0])} and gets no certificate: it can "
                    "enrol again with a new invitation"
                )
            connection.execute(
                "INSERT INTO issued (serial, role, name, not_after) VALUES (?, ?, ?, ?)",
                (f"{who.serial:x}", who.role, who.name, int(who.not_after.timestamp())),
            )

    def revoke(self, role: str, name: str, now: datetime) -> int:
        """Revoke everything that a member holds, and bar it. The list must be published after.

        Args:
            role: `site` or `researcher`.
            name: the member's name.
            now: the time, UTC.

        Returns:
            How many certificates that were still valid are revoked by it.

        Raises:
            IdentityError: no certificate was ever issued to that name.
        """
        check_name(name)
        second = int(now.timestamp())
        with transaction(self._connection) as connection:
            known = connection.execute(
                "SELECT 1 FROM issued WHERE role IN (?, ?) AND name = ? LIMIT 1",
                (role, f"invited-{role}", name),
            ).fetchone()
            if known is None:
                raise IdentityError(f"no {role} '{name}' was ever invited here: is it misspelt?")
            connection.execute(
                "INSERT OR IGNORE INTO barred (role, name, since) VALUES (?, ?, ?)",
                (role, name, second),
            )
            return connection.execute(
                "UPDATE issued SET revoked = ? WHERE role IN (?, ?) AND name = ?"
                " AND revoked IS NULL AND not_after > ?",
                (second, role, f"invited-{role}", name, second),
            ).rowcount

    def revoke_serial(self, serial: int, now: datetime) -> None:
        """Revoke one certificate. The list must be published after.

        Raises:
            IdentityError: no such certificate was issued here.
        """
        changed = self._connection.execute(
            "UPDATE issued SET revoked = COALESCE(revoked, ?) WHERE serial = ?",
            (int(now.timestamp()), f"{serial:x}"),
        ).rowcount
        if changed == 0:
            raise IdentityError(f"no certificate of serial number {serial:x} was issued here")

    def readmit(self, role: str, name: str) -> None:
        """Lift the bar on a name; its revoked certificates stay revoked."""
        self._connection.execute("DELETE FROM barred WHERE role = ? AND name = ?", (role, name))

    def publish(self, authority: Authority, now: datetime) -> Path:
        """Sign the list and put it in place of the old one.

        The database stays locked meanwhile, so that of two processes that publish at once the one
        that knows more is also the one that writes last.

        Args:
            authority: signs; the list lies in its home.
            now: the time, UTC.

        Returns:
            Where the list lies.

        Raises:
            ConfigurationError: it cannot be written.
        """
        path = authority.home / CRL_FILE
        second = int(now.timestamp())
        with transaction(self._connection) as connection:
            rows = connection.execute(
                "SELECT serial, revoked FROM issued WHERE revoked IS NOT NULL AND not_after > ?",
                (second - int(_KEEP_EXPIRED.total_seconds()),),
            ).fetchall()
            number = connection.execute(
                "INSERT INTO publications (published, issuer, listed) VALUES (?, ?, ?)",
                (second, _issuer_id(authority.issuer_pem), self._revoked_ever()),
            ).lastrowid
            data = _signed_list(authority, rows, number or 0, now)
            write_atomically(path, data, mode=0o644)
        return path

    def publish_if_due(self, authority: Authority, now: datetime) -> bool:
        """Publish where the list is absent, damaged, half through its life, or lacks a revocation.

        The coordinator calls this at its start and then every minute or so. Until then a list that
        cannot be relied on refuses everybody; nothing is undone by writing it again from the book.

        Args:
            authority: signs; the list lies in its home.
            now: the time, UTC.

        Returns:
            Whether a new list was published.
        """
        last = self._connection.execute(
            "SELECT published, issuer, listed FROM publications ORDER BY number DESC LIMIT 1"
        ).fetchone()
        fresh = (
            last is not None
            and _reliable(authority, now)
            and last[0] <= now.timestamp() < last[0] + CRL_LIFE.total_seconds() / 2
            and last[1:] == (_issuer_id(authority.issuer_pem), self._revoked_ever())
        )
        if not fresh:
            self.publish(authority, now)
        return not fresh

    def _revoked_ever(self) -> int:
        row = self._connection.execute(
            "SELECT COUNT(*) FROM issued WHERE revoked IS NOT NULL"
        ).fetchone()
        return int(row[0])


class RevocationList:
    """A list whose signature and date have been checked.

    Args:
        crl: the list.
    """

    def __init__(self, crl: x509.CertificateRevocationList) -> None:
        self._crl = crl
        self._serials = frozenset(entry.serial_number for entry in crl)

    @classmethod
    def load(cls, path: Path, issuer_pem: bytes, now: datetime) -> "RevocationList":
        """Read a list.

        Args:
            path: the list in DER.
            issuer_pem: certificate of the issuing CA that must have signed it.
            now: the time, UTC.

        Raises:
            IdentityError: it is absent, damaged, signed by another CA, or past its date.
        """
        try:
            crl = x509.load_der_x509_crl(path.read_bytes())
        except OSError as error:
            raise IdentityError(
                f"nobody is let in, because the list of revoked certificates {path.name} in the "
                f"coordinator's home cannot be read ({error.strerror}): {REMEDY}"
            ) from error
        except (ValueError, x509.InvalidVersion) as error:
            raise IdentityError(
                f"nobody is let in, because the list of revoked certificates {path.name} in the "
                f"coordinator's home is damaged: {REMEDY}"
            ) from error
        _check_signature(crl, issuer_pem, path.name)
        found = cls(crl)
        found.check_date(now)
        return found

    def __len__(self) -> int:
        """How many certificates are listed."""
        return len(self._serials)

    def check_date(self, now: datetime) -> None:
        """Refuse to go by a list that is past its date.

        Raises:
            IdentityError: it is, or it carries no date.
        """
        limit = self._crl.next_update_utc
        if limit is None or now >= limit:
            date = "without a date" if limit is None else f"of {limit:%Y-%m-%d %H:%M} UTC"
            raise IdentityError(
                f"nobody is let in, because the list of revoked certificates {date} is past its "
                f"date (it is {now:%Y-%m-%d %H:%M} UTC at the coordinator; is its clock right?): "
                f"{REMEDY}"
            )

    def check(self, identity: PeerIdentity) -> None:
        """Refuse a revoked certificate.

        Raises:
            IdentityError: it is revoked.
        """
        if identity.serial not in self._serials:
            return
        entry = self._crl.get_revoked_certificate_by_serial_number(identity.serial)
        since = "" if entry is None else f" at {entry.revocation_date_utc:%Y-%m-%d %H:%M:%S} UTC"
        raise IdentityError(
            f"the certificate {identity.serial:x} of {identity.uri} was revoked{since}: ask "
            f"{identity.consortium} for a new invitation"
        )


class RevocationWatch:
    """The list as it is on disk at the moment, read again only when the file has changed.

    Args:
        path: the list.
        issuer_pem: certificate of the issuing CA that must have signed it.
    """

    def __init__(self, path: Path, issuer_pem: bytes) -> None:
        self._path = path
        self._issuer_pem = issuer_pem
        self._seen: tuple[int, int, int] | None = None
        self._list: RevocationList | None = None

    def current(self, now: datetime) -> RevocationList:
        """The list to go by; costs one `stat` where nothing has changed.

        Raises:
            IdentityError: the list cannot be relied on, so nobody may be let in.
        """
        seen = self._look()
        if self._list is None or seen is None or seen != self._seen:
            self._list = None
            self._list = RevocationList.load(self._path, self._issuer_pem, now)
            self._seen = seen
        self._list.check_date(now)
        return self._list

    def _look(self) -> tuple[int, int, int] | None:
        try:
            facts = os.stat(self._path)
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _reliable(authority: Authority, now: datetime) -> bool:
    try:
        RevocationList.load(authority.home / CRL_FILE, authority.issuer_pem, now)
    except IdentityError as error:
        log.warning("the list of revoked certificates is written again: %s", error)
        return False
    return True


def _signed_list(
    authority: Authority, rows: list[tuple[str, int]], number: int, now: datetime
) -> bytes:
    entries = [
        x509.RevokedCertificateBuilder()
        .serial_number(int(serial, 16))
        .revocation_date(datetime.fromtimestamp(revoked, UTC))
        .build()
        for serial, revoked in rows
    ]
    builder = x509.CertificateRevocationListBuilder(
        last_update=None, next_update=None, revoked_certificates=entries
    )
    dated = builder.last_update(now).next_update(now + CRL_LIFE)
    return authority.sign_crl(dated.add_extension(x509.CRLNumber(number), critical=False))


def _check_signature(
    crl: x509.CertificateRevocationList, issuer_pem: bytes, file_name: str
) -> None:
    issuer = certificates_from_pem(issuer_pem)[0]
    key = issuer.public_key()
    try:
        signed = isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
        ours = signed and crl.issuer == issuer.subject
    except (ValueError, TypeError, UnsupportedAlgorithm):
        ours = False
    if not ours:
        raise IdentityError(
            f"nobody is let in, because the list of revoked certificates {file_name} in the "
            f"coordinator's home is not signed by this consortium's issuing CA: {REMEDY}"
        )


def _issuer_id(issuer_pem: bytes) -> str:
    return f"{certificates_from_pem(issuer_pem)[0].serial_number:x}"


def _utc(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S} UTC"
