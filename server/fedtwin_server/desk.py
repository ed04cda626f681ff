"""Where members get certificates: the first by invitation, the next by the one they have."""

import sqlite3
from datetime import timedelta

from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.identity import PeerIdentity
from fedtwin_protocol.signing import TrustRoot
from fedtwin_protocol.site_key import checked_public_key
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.authority import Authority
from fedtwin_server.hub import Clock
from fedtwin_server.invitations import InvitationBook
from fedtwin_server.revocation import IssuedBook
from fedtwin_server.store import Store


class EnrolmentDesk:
    """Issues certificates.

    Args:
        authority: the issuing CA.
        store: members are noted there.
        trust: the signers' keys, handed to new members.
        clock: the time.
        lifetime: of the certificates.
    """

    def __init__(
        self,
        authority: Authority,
        store: Store,
        trust: TrustRoot,
        clock: Clock,
        lifetime: timedelta,
    ) -> None:
        connection: sqlite3.Connection = store.connection
        self._authority = authority
        self._store = store
        self._trust = trust
        self._clock = clock
        self._lifetime = lifetime
        self._invitations = InvitationBook(connection)
        self._issued = IssuedBook(connection)

    def enrol(self, identity: PeerIdentity, request: pb.EnrolRequest) -> bytes:
        """A first certificate; the invitation is spent.

        Raises:
            InvitationError: it is unknown, used, too old, or somebody else's.
            IdentityError: the request is not acceptable.
        """
        role = identity.role.removeprefix("invited-")
        now = self._clock()
        self._authority.check_request(request.request)
        key = checked_public_key(request.signing_key) if request.signing_key else ""
        self._invitations.redeem(request.invitation_id, identity.name, role, now)
        reply = self._issue(role, identity.name, request.request)
        self._store.enrol(role, identity.name, request.software, now)
        if role == "site" and key:
            self._store.set_signing_key(identity.name, key, replace=True)
        return reply

    def renew(self, identity: PeerIdentity, request: pb.RenewRequest) -> bytes:
        """The next certificate, for a new key.

        Raises:
            IdentityError: the request is not acceptable.
        """
        if identity.role == "site" and request.signing_key:
            key = checked_public_key(request.signing_key)
            self._store.set_signing_key(identity.name, key, replace=False)
        return self._issue(identity.role, identity.name, request.request)

    def _issue(self, role: str, name: str, request: bytes) -> bytes:
        leaf = self._authority.issue_leaf(request, role, name, self._clock(), self._lifetime)
        self._issued.add(leaf)
        return pb.IssuedCredentials(
            chain_pem=leaf.chain_pem,
            roots_pem=self._authority.roots_pem,
            trust_root=canonical_bytes(self._trust.model_dump(mode="json")),
        ).SerializeToString()
