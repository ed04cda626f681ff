"""An invitation: the small secret file with which a site or researcher joins a consortium.

Rules:

1. The file holds a 256-bit secret. Two things follow from it by HKDF-SHA256 with different labels:
   the *invitation id*, which the invited party shows once and of which the coordinator keeps only
   a hash; and the *bootstrap key* (EC P-256), for which the file carries a certificate of the role
   `invited-site` or `invited-researcher`. So enrolment itself runs over mutual TLS, and the
   bootstrap key travels as little as any other.
2. Whoever holds the file can join in that name until it is used or expires, so it is handed over
   like a password, and kept with mode 0600.
3. The file names the root that the coordinator must lead to. Both ends show `root_fingerprint`,
   and two people compare it over another channel.
"""

import base64
import binascii
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.contract import Part
from fedtwin_protocol.credentials import (
    Credentials,
    key_to_pem,
    read_private,
    write_atomically,
)
from fedtwin_protocol.errors import IdentityError, InvitationError
from fedtwin_protocol.identity import root_fingerprint, uri_name
from fedtwin_protocol.signing import TrustRoot

INVITATION_SUFFIX: Final = ".invitation"
INVITATION_LIFETIME: Final = timedelta(hours=24)
SECRET_BYTES: Final = 32

# Order of the group of P-256 (FIPS 186-5 and SP 800-186, section 3.2.1.3).
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ADDRESS: Final = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5})")


class Invitation(Part):
    """What the invited party is handed.

    Attributes:
        consortium: whom it joins.
        role: what it will be.
        name: its name, for good.
        address: `host:port` of the coordinator.
        roots_pem: the root certificates that the coordinator must lead to.
        trust: whose signatures under plans and releases count.
        secret: 32 bytes, base64url without padding.
        expires: end of the invitation, UTC.
        bootstrap_chain_pem: certificate of the bootstrap key, then the issuing CA.
    """

    format: Literal["fedtwin-invitation/1"] = "fedtwin-invitation/1"
    consortium: str
    role: Literal["site", "researcher"]
    name: str
    address: str
    roots_pem: str
    trust: TrustRoot
    secret: Annotated[str, Field(repr=False)]
    expires: AwareDatetime
    bootstrap_chain_pem: str

    @field_validator("secret")
    @classmethod
    def _secret_is_whole(cls, secret: str) -> str:
        if len(_secret_bytes(secret)) != SECRET_BYTES:
            raise ValueError(f"the secret is not {SECRET_BYTES} bytes long")
        return secret

    @field_validator("address")
    @classmethod
    def _address_has_port(cls, address: str) -> str:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 1 <= int(match["port"]) <= 65535:
            raise ValueError(f"expected an address such as fed.example.org:8443, got {address!r}")
        return address

    @model_validator(mode="after")
    def _fits_together(self) -> "Invitation":
        if self.trust.consortium != self.consortium:
            raise ValueError(f"the signers are those of {self.trust.consortium}")
        try:
            expected = uri_name(self.consortium, f"invited-{self.role}", self.name)
            found = self.bootstrap_credentials().identity.uri
        except IdentityError as error:
            raise ValueError(str(error)) from error
        if found != expected:
            raise ValueError(f"its certificate is for {found} instead of {expected}")
        return self

    @property
    def invitation_id(self) -> str:
        """What is shown to the coordinator once, in hexadecimal."""
        return invitation_id(_secret_bytes(self.secret))

    @property
    def root_fingerprint(self) -> str:
        """The roots' fingerprint, to be compared by two people over another channel."""
        return root_fingerprint(self.roots_pem)

    def bootstrap_credentials(self) -> Credentials:
        """Credentials with which only the enrolment call may be made.

        Raises:
            IdentityError: the certificate in the file is not for the key of its secret.
        """
        uri = uri_name(self.consortium, f"invited-{self.role}", self.name)
        return Credentials(
            key_pem=key_to_pem(bootstrap_key(_secret_bytes(self.secret), uri)),
            chain_pem=self.bootstrap_chain_pem.encode(),
            roots_pem=self.roots_pem.encode(),
        )

    def check(self, now: datetime) -> None:
        """Refuse an invitation that has expired, or one whose chain does not hold.

        Args:
            now: the time, UTC.

        Raises:
            InvitationError: it has expired.
            IdentityError: its certificate does not lead to its root, or is not valid yet.
        """
        if now >= self.expires:
            raise InvitationError(
                f"the invitation of {self.role} {self.name} expired at "
                f"{self.expires:%Y-%m-%d %H:%M} UTC and it is {now:%Y-%m-%d %H:%M} UTC here: ask "
                f"{self.consortium} for a new one; if that time lies ahead, this computer's clock "
                "is wrong"
            )
        self.bootstrap_credentials().check(now)


def invitation_id(secret: bytes) -> str:
    """The id that follows from a secret: 32 bytes in hexadecimal."""
    return _derive(secret, "id", 32).hex()


def bootstrap_key(secret: bytes, uri: str) -> ec.EllipticCurvePrivateKey:
    """The bootstrap key that follows from a secret, for one URI name and no other.

    A scalar of 384 bits is reduced modulo the order of P-256 less one, plus one: "extra random
    bits" of FIPS 186-5, appendix A.2.1, so that the bias is below 2^-128.
    """
    wide = int.from_bytes(_derive(secret, f"bootstrap key {uri}", 48), "big")
    return ec.derive_private_key(wide % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def encode_secret(secret: bytes) -> str:
    """Spell a secret as the file does: base64url without padding."""
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")


def write_invitation(path: Path, invitation: Invitation) -> None:
    """Write an invitation, readable by its owner only.

    Raises:
        InvitationError: the name does not end in `.invitation`.
        ConfigurationError: the file cannot be written.
    """
    if path.suffix != INVITATION_SUFFIX:
        raise InvitationError(
            f"expected a file name that ends in {INVITATION_SUFFIX}, got {path.name}: this ending "
            "keeps the secret out of version control"
        )
    write_atomically(path, canonical_bytes(invitation.model_dump(mode="json")) + b"\n")


def read_invitation(path: Path, now: datetime) -> Invitation:
    """Read an invitation that can still be used.

    Args:
        path: the file.
        now: the time, UTC.

    Raises:
        InvitationError: it is absent, open to others, damaged or expired.
        IdentityError: its certificate does not hold.
    """
    try:
        data = read_private(path, f"there is no invitation at {path}")
        invitation = Invitation.model_validate_json(data)
    except IdentityError as error:
        raise InvitationError(str(error)) from error
    except ValidationError as error:
        raise InvitationError(f"{path} is no whole invitation: {_faults(error)}") from error
    invitation.check(now)
    return invitation


def _faults(error: ValidationError) -> str:
    """What is wrong, without the values, because one of them is the secret."""
    faults = error.errors(include_input=False, include_url=False)
    texts = [": ".join([*map(str, fault["loc"]), str(fault["msg"])]) for fault in faults]
    return "; ".join(text.replace("Value error, ", "") for text in texts)


def _derive(secret: bytes, label: str, length: int) -> bytes:
    info = f"fedtwin invitation 1: {label}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(secret)


def _secret_bytes(secret: str) -> bytes:
    try:
        padded = secret + "=" * (-len(secret) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the secret is not base64url") from error
