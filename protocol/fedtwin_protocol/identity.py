"""Who a certificate stands for: one URI name, a role, a lifetime.

Rules, in this order; the first that fails raises an `IdentityError`:

1. Exactly one URI name (SPIFFE X509-SVID), and it is one of ours:
   `spiffe://<consortium>/coordinator`, `/site/<name>`, `/researcher/<name>`,
   `/invited/site/<name>`, `/invited/researcher/<name>`.
2. The certificate is no CA.
3. The coordinator's certificate carries its host names and is for servers; every other one carries
   no further name and is for clients, so that a site can never pose as the coordinator.

TLS has checked the signatures by the time a peer's certificate gets here; `check_chain` does the
same for certificates that arrive by another way. Nothing here reads a clock.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeVar, get_args

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedtwin_protocol.errors import IdentityError

Role = Literal["coordinator", "site", "researcher", "invited-site", "invited-researcher"]
MEMBER_ROLES: Final = ("site", "researcher")

Extension = TypeVar("Extension", bound=x509.ExtensionType)
_CONSORTIUM: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,40}")
_URI: Final = re.compile(
    r"spiffe://(?P<consortium>[^/]+)/"
    r"(?:(?P<coordinator>coordinator)|(?P<invited>invited/)?(?P<role>site|researcher)/(?P<name>[^/]+))"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerIdentity:
    """What a certificate says about its holder.

    Attributes:
        consortium: the consortium's name, the trust domain of the URI name.
        role: what the holder may be.
        name: the site's or researcher's name; empty for the coordinator.
        serial: the certificate's serial number.
        not_before: start of validity, UTC.
        not_after: end of validity, UTC.
    """

    consortium: str
    role: Role
    name: str
    serial: int
    not_before: datetime
    not_after: datetime

    @property
    def uri(self) -> str:
        """The URI name."""
        return uri_name(self.consortium, self.role, self.name)


def uri_name(consortium: str, role: str, name: str = "") -> str:
    """Spell a URI name.

    Args:
        consortium: lower-case letters, digits, dots, hyphens; at most 63.
        role: one of `Role`.
        name: the member's name; empty for the coordinator, which has none.

    Raises:
        IdentityError: the consortium, the role or the name is not of that form.
    """
    check_consortium(consortium)
    if role not in get_args(Role):
        raise IdentityError(f"expected a role of {', '.join(get_args(Role))}; got {role!r}")
    if role == "coordinator":
        if name:
            raise IdentityError(f"the coordinator has no name of its own; got {name!r}")
        return f"spiffe://{consortium}/coordinator"
    check_name(name)
    return f"spiffe://{consortium}/{role.replace('invited-', 'invited/')}/{name}"


def check_consortium(consortium: str) -> None:
    """Refuse a consortium's name that cannot stand in a URI name.

    Raises:
        IdentityError: it is not of that form.
    """
    if not _CONSORTIUM.fullmatch(consortium):
        raise IdentityError(
            "expected a consortium's name of lower-case letters, digits, dots and hyphens, at most "
            f"63 characters, such as 'heart-north'; got {consortium!r}"
        )


def check_name(name: str) -> None:
    """Refuse a site's or researcher's name that cannot stand in a URI name.

    Raises:
        IdentityError: it is not of that form.
    """
    if not _NAME.fullmatch(name):
        raise IdentityError(
            "expected a name of 2 to 41 lower-case letters, digits and hyphens that starts with a "
            f"letter, such as 'st-olav'; got {name!r}"
        )


def identity_from_certificate(certificate: x509.Certificate | bytes | str) -> PeerIdentity:
    """Read who a certificate stands for.

    Args:
        certificate: the certificate, or PEM of which the first certificate counts.

    Raises:
        IdentityError: it is no certificate, or breaks a rule of this module.
    """
    if not isinstance(certificate, x509.Certificate):
        certificate = certificates_from_pem(certificate)[0]
    names = _extension(certificate, x509.SubjectAlternativeName)
    consortium, role, name = _parse_uri(names)
    constraints = _extension(certificate, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise IdentityError(f"expected the certificate of a {role}, got one of a CA with that name")
    _check_use(certificate, names, role)
    return PeerIdentity(
        consortium=consortium,
        role=role,
        name=name,
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def check_validity(identity: PeerIdentity, now: datetime, judge: str = "this computer") -> None:
    """Refuse a certificate outside its lifetime.

    Args:
        identity: whose certificate.
        now: the time, UTC.
        judge: whose clock that is; the sentence may be read on another computer.

    Raises:
        IdentityError: it has expired or is not valid yet.
    """
    if now >= identity.not_after:
        raise IdentityError(
            f"the certificate of {identity.uri} expired at {_utc(identity.not_after)} and it is "
            f"{_utc(now)} by the clock of {judge}: renew it, or enrol again with a new "
            f"invitation; if that time lies ahead, the clock of {judge} is wrong"
        )
    if now < identity.not_before:
        raise IdentityError(
            f"the certificate of {identity.uri} is not valid before {_utc(identity.not_before)} "
            f"and it is {_utc(now)} by the clock of {judge}: compare the clocks of the coordinator "
            "and of the certificate's holder"
        )


def check_chain(chain_pem: bytes, roots_pem: bytes, now: datetime) -> None:
    """Refuse a certificate that does not lead to one of the roots.

    Args:
        chain_pem: the leaf, then the CAs below the root.
        roots_pem: the consortium's roots.
        now: the time, UTC.

    Raises:
        IdentityError: no path of valid signatures and lifetimes leads to a root.
    """
    leaf, *between = certificates_from_pem(chain_pem)
    check_validity(identity_from_certificate(leaf), now)
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(certificates_from_pem(roots_pem)))
        .time(now)
        .extension_policies(
            ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(),
            # The rules of this module hold for the leaf; the web's rules do not fit it.
            ee_policy=verification.ExtensionPolicy.permit_all(),
        )
        .build_client_verifier()
    )
    try:
        verifier.verify(leaf, between)
    except verification.VerificationError as error:
        raise IdentityError(
            f"the certificate of {identity_from_certificate(leaf).uri} does not lead to the "
            f"consortium's root {root_fingerprint(roots_pem)[:19]}…: another CA signed it, or a CA "
            "on the way has expired"
        ) from error


def certificates_from_pem(pem: bytes | str) -> list[x509.Certificate]:
    """Read the certificates in PEM, in order; at least one.

    Raises:
        IdentityError: there is none, or one is damaged.
    """
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise IdentityError("expected certificates in PEM, found none or a damaged one") from error


def root_fingerprint(roots_pem: bytes | str) -> str:
    """SHA-256 of the root certificates (DER, in order), in groups of four for reading aloud.

    Two people compare it over another channel, such as the telephone, at the first contact. For
    one root it is what `openssl x509 -fingerprint -sha256` shows.

    Raises:
        IdentityError: there is no certificate.
    """
    digest = hashlib.sha256()
    for certificate in certificates_from_pem(roots_pem):
        digest.update(certificate.public_bytes(serialization.Encoding.DER))
    text = digest.hexdigest().upper()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def _parse_uri(names: x509.SubjectAlternativeName | None) -> tuple[str, Role, str]:
    uris = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError(f"expected exactly one URI name in the certificate, found {len(uris)}")
    match = _URI.fullmatch(uris[0])
    if match is None:
        raise IdentityError(
            f"expected a URI name such as spiffe://<consortium>/site/<name>, got {uris[0][:120]!r}"
        )
    role: Role = "coordinator"
    if match["role"]:
        site = match["role"] == "site"
        if match["invited"]:
            role = "invited-site" if site else "invited-researcher"
        else:
            role = "site" if site else "researcher"
    name = match["name"] or ""
    uri_name(match["consortium"], role, name)
    return match["consortium"], role, name


def _check_use(
    certificate: x509.Certificate, names: x509.SubjectAlternativeName | None, role: Role
) -> None:
    others = [name for name in names or () if not isinstance(name, x509.UniformResourceIdentifier)]
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    purposes = set() if usage is None else set(usage)
    if role == "coordinator":
        if purposes != {ExtendedKeyUsageOID.SERVER_AUTH} or not others:
            raise IdentityError(
                "expected a coordinator's certificate with its host names and for servers only"
            )
        return
    if others:
        raise IdentityError(
            f"expected no name beside the URI in a certificate of role {role}, found {len(others)}:"
            " with a host name it could pose as the coordinator"
        )
    if purposes != {ExtendedKeyUsageOID.CLIENT_AUTH}:
        raise IdentityError(f"expected a certificate of role {role} to be for clients only")


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise IdentityError(f"the certificate's extensions cannot be read: {error}") from error


def _utc(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
