"""The certificates of a consortium, by profile: what each may do, how long, and in which name.

| certificate | key   | life             | may sign              | names and use              |
|-------------|-------|------------------|-----------------------|----------------------------|
| root        | P-384 | 10 years         | CAs, path length 1    | none; kept offline         |
| issuing CA  | P-384 | 1 year           | leaves, path length 0 | none                       |
| coordinator | P-256 | 24 h             | nothing               | URI and host names; server |
| member      | P-256 | 24 h or 14 days  | nothing               | URI only; client           |
| invited     | P-256 | the invitation's | nothing               | URI only; client           |

Whatever a request says about names is ignored; only its key and its signature count. Everything
starts 60 s in the past, for clocks that differ, or a twentieth of its life where that is less, so
that two thirds of a life never lie in the past; and nothing outlives its issuer. Serial numbers
come from the operating system's generator (159 bits), the time is handed in.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtwin_protocol.errors import ConfigurationError, IdentityError
from fedtwin_protocol.identity import Role, uri_name

ROOT_LIFE: Final = timedelta(days=3652)
ISSUING_LIFE: Final = timedelta(days=365)
BACKDATE: Final = timedelta(seconds=60)
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
)

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Signer:
    """A CA: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Whom a leaf is for.

    Attributes:
        consortium: the consortium's name.
        role: what the holder may be.
        name: its name; empty for the coordinator.
        hosts: under which the coordinator is reached; empty for everybody else.
    """

    consortium: str
    role: Role
    name: str = ""
    hosts: tuple[x509.GeneralName, ...] = ()


def root_certificate(
    key: ec.EllipticCurvePrivateKey, consortium: str, now: datetime
) -> x509.Certificate:
    """The root of a consortium, signed with its own key."""
    name = _subject(consortium, f"root CA {now:%Y-%m-%d}")
    builder = _unsigned(key.public_key(), name, now, now + ROOT_LIFE).issuer_name(name)
    return _as_ca(builder, path_length=1).sign(key, hashes.SHA384())


def issuing_certificate(
    root: Signer, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.Certificate:
    """An issuing CA below a root."""
    name = _subject(consortium_of(root.certificate), f"issuing CA {now:%Y-%m-%d}")
    not_after = min(now + ISSUING_LIFE, root.certificate.not_valid_after_utc)
    builder = _issued(root, _unsigned(key, name, now, not_after))
    return _as_ca(builder, path_length=0).sign(root.key, hashes.SHA384())


def leaf_certificate(
    issuer: Signer,
    key: ec.EllipticCurvePublicKey,
    holder: Holder,
    now: datetime,
    not_after: datetime,
) -> x509.Certificate:
    """A certificate for the coordinator (for servers) or for anybody else (for clients).

    Raises:
        IdentityError: the holder's name cannot stand in a URI name.
    """
    uri = uri_name(holder.consortium, holder.role, holder.name)
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    if holder.role == "coordinator":
        usage = ExtendedKeyUsageOID.SERVER_AUTH
    subject = _subject(holder.consortium, f"{holder.role} {holder.name}".rstrip())
    not_after = min(not_after, issuer.certificate.not_valid_after_utc)
    names = [x509.UniformResourceIdentifier(uri), *holder.hosts]
    builder = (
        _issued(issuer, _unsigned(key, subject, now, not_after))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA384())


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key that a request wants certified.

    Args:
        request: a certificate signing request (PKCS#10), DER or PEM.

    Raises:
        IdentityError: it is damaged, not signed with its key, or its key is not EC P-256.
    """
    pem = request.lstrip().startswith(b"-----BEGIN")
    load = x509.load_pem_x509_csr if pem else x509.load_der_x509_csr
    try:
        parsed = load(request)
        signed = parsed.is_signature_valid
        key = parsed.public_key()
    except UNREADABLE as error:
        raise IdentityError(
            "expected a certificate signing request (PKCS#10), got something else or a damaged one"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("expected a certificate signing request for an EC P-256 key")
    if not signed:
        raise IdentityError("the certificate signing request is not signed with its own key")
    return key


def host_names(addresses: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    """Host names and IP addresses as a certificate spells them.

    Raises:
        ConfigurationError: there is none, or one is no host name or IP address.
    """
    if not addresses:
        raise ConfigurationError(
            "expected at least one host name or IP address under which sites reach the "
            "coordinator, got none"
        )
    return tuple(map(_host, addresses))


def consortium_of(certificate: x509.Certificate) -> str:
    """The consortium whose CA this is.

    Raises:
        IdentityError: the certificate names none.
    """
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if len(found) != 1:
        raise IdentityError("expected the consortium's name in the certificate of its CA")
    return str(found[0].value)


def _unsigned(
    key: ec.EllipticCurvePublicKey, subject: x509.Name, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(BACKDATE, (not_after - now) / 20))
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _issued(issuer: Signer, builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    named = builder.issuer_name(issuer.certificate.subject)
    return named.add_extension(identifier, critical=False)


def _as_ca(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    limited = builder.add_extension(constraints, critical=True)
    return limited.add_extension(_key_usage(ca=True), critical=True)


def _subject(consortium: str, title: str) -> x509.Name:
    """A subject for the eyes of people; of a leaf, programs read the URI name only."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium),
            x509.NameAttribute(NameOID.COMMON_NAME, title),
        ]
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        if len(address) <= 253 and _HOST.fullmatch(address):
            return x509.DNSName(address)
    raise ConfigurationError(
        "expected a host name or an IP address without a port, such as fed.example.org; got "
        f"{address!r}"
    )
