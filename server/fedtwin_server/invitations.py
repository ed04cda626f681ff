"""Invitations as the coordinator keeps them: a hash, a name, a role, an end; used once.

Rules, judged in this order in one transaction:

1. The id is known; an unknown one counts as a failed try against the open invitation of that name.
2. It was made for this name and role; otherwise that is a failed try, too.
3. It was not replaced by a newer one, not used, not tried in vain five times, not expired.

The secret is never stored: the database holds SHA-256 of the id that follows from it.
"""

import secrets
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from pydantic import ValidationError

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.errors import ConfigurationError, InvitationError
from fedtwin_protocol.identity import uri_name
from fedtwin_protocol.invitation import (
    INVITATION_LIFETIME,
    SECRET_BYTES,
    Invitation,
    bootstrap_key,
    encode_secret,
    invitation_id,
)
from fedtwin_protocol.signing import TrustRoot
from fedtwin_server.authority import Authority
from fedtwin_server.revocation import IssuedBook, transaction

FAILURE_LIMIT: Final = 5

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS invitations (id_hash TEXT PRIMARY KEY, role TEXT NOT NULL,"
    " name TEXT NOT NULL, expires INTEGER NOT NULL, used INTEGER, replaced INTEGER,"
    " failures INTEGER NOT NULL DEFAULT 0)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """Who is invited.

    Attributes:
        role: what it will be.
        name: what it will be called.
        address: `host:port` of the coordinator as it is reached from there.
        lifetime: how long the invitation holds; at most 14 days.
    """

    role: Literal["site", "researcher"]
    name: str
    address: str
    lifetime: timedelta = INVITATION_LIFETIME


class InvitationBook:
    """The open and the used invitations.

    Args:
        connection: the coordinator's database, in autocommit mode (`isolation_level=None`).
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._issued = IssuedBook(connection)
        connection.execute(_SCHEMA)

    def create(
        self, guest: Guest, authority: Authority, trust: TrustRoot, now: datetime
    ) -> Invitation:
        """Make an invitation; an earlier one for the same name can no longer be used.

        The secret comes from the operating system's generator and is in the returned value only.

        Args:
            guest: who is invited.
            authority: certifies the bootstrap key.
            trust: the signers of plans and releases.
            now: the time, UTC.

        Raises:
            IdentityError: the name or the lifetime is not acceptable.
            ConfigurationError: the address is not `host:port`, or the signers are another
                consortium's.
        """
        secret = secrets.token_bytes(SECRET_BYTES)
        expires = (now + guest.lifetime).replace(microsecond=0)
        uri = uri_name(authority.consortium, f"invited-{guest.role}", guest.name)
        key = bootstrap_key(secret, uri).public_key()
        leaf = authority.bootstrap_certificate(key, guest.role, guest.name, now, expires)
        try:
            invitation = Invitation(
                consortium=authority.consortium,
                role=guest.role,
                name=guest.name,
                address=guest.address,
                roots_pem=authority.roots_pem.decode("ascii"),
                trust=trust,
                secret=encode_secret(secret),
                expires=expires,
                bootstrap_chain_pem=leaf.chain_pem.decode("ascii"),
            )
        except ValidationError as error:
            faults = "; ".join(str(fault["msg"]) for fault in error.errors(include_input=False))
            raise ConfigurationError(f"this invitation cannot be made: {faults}") from None
        self._issued.add(leaf)
        self._enter(guest, invitation_id(secret), expires, now)
        return invitation

    def redeem(self, invitation_id: str, name: str, role: str, now: datetime) -> None:
        """Use an invitation up; a bar on the name is lifted with it.

        Args:
            invitation_id: what the invited party shows.
            name: its name, from its bootstrap certificate.
            role: `site` or `researcher`, from its bootstrap certificate.
            now: the time, UTC.

        Raises:
            InvitationError: it is unknown, somebody else's, replaced, used, locked or expired.
        """
        id_hash = sha256_hex(invitation_id.encode())
        with transaction(self._connection) as connection:
            reason = self._judge(id_hash, name, role, now)
            if reason is None:
                connection.execute(
                    "UPDATE invitations SET used = ? WHERE id_hash = ?",
                    (int(now.timestamp()), id_hash),
                )
                self._issued.readmit(role, name)
        # Raised behind the transaction, so that failed tries stay counted.
        if reason is not None:
            raise InvitationError(f"{reason}: ask for a new invitation of {role} {name}")

    def _enter(self, guest: Guest, shown_id: str, expires: datetime, now: datetime) -> None:
        with transaction(self._connection) as connection:
            connection.execute(
                "UPDATE invitations SET replaced = ? WHERE role = ? AND name = ?"
                " AND used IS NULL AND replaced IS NULL",
                (int(now.timestamp()), guest.role, guest.name),
            )
            connection.execute(
                "INSERT INTO invitations (id_hash, role, name, expires) VALUES (?, ?, ?, ?)",
                (
                    sha256_hex(shown_id.encode()),
                    guest.role,
                    guest.name,
                    int(expires.timestamp()),
                ),
            )

    def _judge(self, id_hash: str, name: str, role: str, now: datetime) -> str | None:
        """Why an invitation cannot be used, or None; failed tries are counted."""
        row = self._connection.execute(
            "SELECT role, name, expires, used, replaced, failures FROM invitations"
            " WHERE id_hash = ?",
            (id_hash,),
        ).fetchone()
        if row is None:
            self._connection.execute(
                "UPDATE invitations SET failures = failures + 1 WHERE role = ? AND name = ?"
                " AND used IS NULL AND replaced IS NULL",
                (role, name),
            )
            return "the invitation is unknown here"
        if (row[0], row[1]) != (role, name):
            self._connection.execute(
                "UPDATE invitations SET failures = failures + 1 WHERE id_hash = ?", (id_hash,)
            )
            return "the invitation was made for another name or role"
        return _spent(row[2], row[3], row[4], row[5], now)


def _spent(
    expires: int, used: int | None, replaced: int | None, failures: int, now: datetime
) -> str | None:
    if used is not None:
        return f"the invitation was used already, at {_utc(used)}"
    if replaced is not None:
        return f"the invitation was replaced by a newer one at {_utc(replaced)}"
    if failures >= FAILURE_LIMIT:
        return f"the invitation is locked after {failures} failed tries"
    if now.timestamp() >= expires:
        return f"the invitation expired at {_utc(expires)}"
    return None


def _utc(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M:%S} UTC"
