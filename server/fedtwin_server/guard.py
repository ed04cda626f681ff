"""Who is calling, and may they: checked on every call, and again while a stream stays open.

A peer's name, role and consortium come from its certificate and from nothing else. grpcio checks a
certificate only while connecting; expiry and revocation of a connected peer are checked here.
"""

import logging
from typing import Final

from fedtwin_protocol.channel import grpc
from fedtwin_protocol.errors import IdentityError
from fedtwin_protocol.identity import PeerIdentity, check_validity, identity_from_certificate
from fedtwin_server.hub import Clock
from fedtwin_server.revocation import RevocationWatch

log = logging.getLogger("fedtwin.guard")
TLS_VERSION: Final = b"TLSv1.3"
# Part of the name of every group with ML-KEM (FIPS 203), such as X25519MLKEM768, which both ends
# agree on by themselves. Whoever records a link today must not read it with a quantum computer.
POST_QUANTUM: Final = b"MLKEM"


class Guard:
    """Turns a call into an identity, or ends it.

    Args:
        consortium: whose certificates count.
        revocation: the revocation list, re-read when it changes.
        clock: the time.
    """

    def __init__(self, consortium: str, revocation: RevocationWatch, clock: Clock) -> None:
        self._consortium = consortium
        self._revocation = revocation
        self._clock = clock

    async def identify(
        self, context: grpc.aio.ServicerContext[bytes, bytes], *roles: str
    ) -> PeerIdentity:
        """The caller, if it has one of the roles and its certificate still holds.

        The call is aborted otherwise, with the reason for the caller and for our log.
        """
        try:
            identity = self._read(context)
            self.recheck(identity)
        except IdentityError as error:
            log.warning("refused %s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        if identity.role not in roles:
            text = f"this call is for {' or '.join(roles)}, not for {identity.role}"
            log.warning("refused %s (%s): %s", identity.uri, context.peer(), text)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, text)
        return identity

    def recheck(self, identity: PeerIdentity) -> None:
        """Raise an IdentityError if the certificate has expired or was revoked meanwhile."""
        now = self._clock()
        check_validity(identity, now, "the coordinator")
        self._revocation.current(now).check(identity)

    def _read(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> PeerIdentity:
        facts = context.auth_context()
        version = (facts.get("ssl_tls_version") or [b""])[0]
        if version != TLS_VERSION:
            raise IdentityError(f"expected TLS 1.3, the connection has {version.decode()!r}")
        group = (facts.get("ssl_negotiated_key_exchange_group") or [b""])[0]
        if POST_QUANTUM not in group:
            raise IdentityError(
                f"expected a key agreement with ML-KEM, the connection has {group.decode()!r}: "
                "install the same release on both ends"
            )
        certificates = facts.get("x509_pem_cert") or []
        if len(certificates) != 1:
            raise IdentityError("expected one certificate of the peer, found none")
        identity = identity_from_certificate(certificates[0])
        if identity.consortium != self._consortium:
            raise IdentityError(
                f"expected a certificate of {self._consortium}, got one of {identity.consortium}"
            )
        return identity
