"""The consortium's certificate authority: an offline root, and the issuing CA at the coordinator.

| certificate | key   | life          | may sign                | names and use                      |
|-------------|-------|---------------|-------------------------|------------------------------------|
| root        | P-384 | 10 years      | CAs, path length 1      | none; kept offline                 |
| issuing CA  | P-384 | 1 year        | leaves, path length 0   | none                               |
| coordinator | P-256 | 24 h          | nothing                 | URI and host names; server         |
| member      | P-256 | 24 h or 14 d  | nothing                 | URI only; client                   |
| invited     | P-256 | the invitation's | nothing              | URI only; client                   |

Rules: whatever a request says about names is ignored, only its key and its signature count. A leaf
starts 60 s in the past, for clocks that differ. No leaf outlives the issuing CA. Keys and serial
numbers come from the operating system's generator, the time is handed in.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedtwin_protocol.credentials import (
    CREDENTIALS_FILE,
    Credentials,
    certificates_to_pem,
    key_to_pem,
    load_credentials,
    load_key,
    read_private,
    save_credentials,
    write_atomically,
)
from fedtwin_protocol.errors import ConfigurationError, IdentityError
from fedtwin_protocol.identity import (
    MEMBER_ROLES,
    PeerIdentity,
    certificates_from_pem,
    check_consortium,
    identity_from_certificate,
    root_fingerprint,
    uri_name,
)

ROOT_LIFE: Final = timedelta(days=3652)
ISSUING_LIFE: Final = timedelta(days=365)
LEAF_LIFETIME: Final = timedelta(hours=24)
LONGEST_LEAF: Final = timedelta(days=14)
LIFETIMES: Final[Mapping[str, timedelta]] = {"24h": LEAF_LIFETIME, "14d": LONGEST_LEAF}
BACKDATE: Final = timedelta(seconds=60)

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedLeaf:
    """A certificate that was just issued: who it stands for, and its chain in PEM."""

    identity: PeerIdentity
    chain_pem: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Signer:
    """A CA: its certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey


class Authority:
    """The issuing CA.

    Args:
        home: the coordinator's folder.
        credentials: the issuing CA's key, its certificate and the roots.
    """

    def __init__(self, home: Path, credentials: Credentials) -> None:
        self.home = home
        self.roots_pem = credentials.roots_pem
        self.issuer_pem = credentials.chain_pem
        certificate = certificates_from_pem(credentials.chain_pem)[0]
        self._signer = _Signer(certificate=certificate, key=load_key(credentials.key_pem))
        self.consortium = _organization(certificate)

    @classmethod
    def load(cls, home: Path) -> "Authority":
        """Read the issuing CA of a coordinator's home.

        Raises:
            ConfigurationError: there is none.
            IdentityError: its key is open to others, or damaged.
        """
        folder = _issuing_folder(home)
        if not (folder / CREDENTIALS_FILE).exists():
            raise ConfigurationError(
                f"there is no certificate authority in {home}: run 'fedtwin server init' first"
            )
        return cls(home, load_credentials(folder))

    @property
    def root_fingerprint(self) -> str:
        """The roots' fingerprint, as invited parties see it."""
        return root_fingerprint(self.roots_pem)

    @property
    def not_after(self) -> datetime:
        """End of the issuing CA's life; it must be renewed with the root before."""
        return self._signer.certificate.not_valid_after_utc

    def check_request(self, request: bytes) -> PublicKey:
        """Refuse a request that cannot be answered.

        Args:
            request: a certificate signing request, DER or PEM.

        Returns:
            The key to be certified; nothing else of the request counts.

        Raises:
            IdentityError: it is damaged, not signed with its key, or its key is not EC P-256.
        """
        return _requested_key(request)

    def issue_leaf(
        self,
        request: bytes,
        role: str,
        name: str,
        now: datetime,
        lifetime: timedelta = LEAF_LIFETIME,
    ) -> IssuedLeaf:
        """Certify a member's key.

        Args:
            request: a certificate signing request, DER or PEM; names in it are ignored.
            role: `site` or `researcher`.
            name: the member's name.
            now: the time, UTC.
            lifetime: one of `LIFETIMES`, or any other of at most 14 days.

        Raises:
            IdentityError: the request, the role, the name or the lifetime is not acceptable.
        """
        if role not in MEMBER_ROLES:
            raise IdentityError(f"expected a role of {' or '.join(MEMBER_ROLES)}, got {role!r}")
        return self._issue_client(_requested_key(request), role, name, now, now + lifetime)

    def bootstrap_certificate(
        self, key: PublicKey, role: str, name: str, now: datetime, expires: datetime
    ) -> IssuedLeaf:
        """Certify the bootstrap key of an invitation, until the invitation expires.

        Args:
            key: what both ends derive from the invitation's secret.
            role: `site` or `researcher`: what the invited party will be.
            name: what it will be called.
            now: the time, UTC.
            expires: end of the invitation.

        Raises:
            IdentityError: the role, the name or the lifetime is not acceptable.
        """
        if role not in MEMBER_ROLES:
            raise IdentityError(f"expected a role of {' or '.join(MEMBER_ROLES)}, got {role!r}")
        return self._issue_client(key, f"invited-{role}", name, now, expires)

    def issue_coordinator(
        self, addresses: Sequence[str], now: datetime, lifetime: timedelta = LEAF_LIFETIME
    ) -> Credentials:
        """Make a new key and certificate for the coordinator itself.

        Args:
            addresses: host names and IP addresses under which members reach it, without ports.
            now: the time, UTC.
            lifetime: at most 14 days.

        Raises:
            ConfigurationError: there is no address, or one is no host name or IP address.
            IdentityError: the lifetime is not acceptable, or the issuing CA has expired.
        """
        hosts = [_host(address) for address in addresses]
        if not hosts:
            raise ConfigurationError(
                "expected at least one host name or IP address under which sites reach the "
                "coordinator, got none"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(uri_name(self.consortium, "coordinator")), *hosts]
        leaf = self._sign_leaf(key.public_key(), "coordinator", names, now, now + lifetime)
        return Credentials(
            key_pem=key_to_pem(key), chain_pem=leaf.chain_pem, roots_pem=self.roots_pem
        )

    def sign_crl(self, builder: x509.CertificateRevocationListBuilder) -> bytes:
        """Sign a list of revoked certificates as its issuer.

        Returns:
            The list in DER.
        """
        signer = self._signer
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        named = builder.issuer_name(signer.certificate.subject)
        listed = named.add_extension(identifier, critical=False)
        crl = listed.sign(signer.key, hashes.SHA384())
        return crl.public_bytes(serialization.Encoding.DER)

    def _issue_client(
        self, key: PublicKey, role: str, name: str, now: datetime, not_after: datetime
    ) -> IssuedLeaf:
        uri = uri_name(self.consortium, role, name)
        title = f"{role} {name}"
        return self._sign_leaf(key, title, [x509.UniformResourceIdentifier(uri)], now, not_after)

    def _sign_leaf(
        self,
        key: PublicKey,
        title: str,
        names: Sequence[x509.GeneralName],
        now: datetime,
        not_after: datetime,
    ) -> IssuedLeaf:
        self._check_lifetime(now, not_after)
        server = title == "coordinator"
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(self._signer, key, _name(self.consortium, title))
            .not_valid_before(now - BACKDATE)
            .not_valid_after(min(not_after, self.not_after))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        leaf = builder.sign(self._signer.key, hashes.SHA384())
        return IssuedLeaf(
            identity=identity_from_certificate(leaf),
            chain_pem=certificates_to_pem([leaf]) + self.issuer_pem,
        )

    def _check_lifetime(self, now: datetime, not_after: datetime) -> None:
        if not timedelta(0) < not_after - now <= LONGEST_LEAF:
            raise IdentityError(
                f"expected a lifetime of more than nothing and at most {LONGEST_LEAF.days} days, "
                f"got {not_after - now}"
            )
        if not self._signer.certificate.not_valid_before_utc <= now < self.not_after:
            raise IdentityError(
                f"the issuing CA of {self.consortium} is valid from "
                f"{self._signer.certificate.not_valid_before_utc:%Y-%m-%d %H:%M} to "
                f"{self.not_after:%Y-%m-%d %H:%M} UTC and it is {now:%Y-%m-%d %H:%M} UTC here: "
                "renew it with the root key, or set this computer's clock"
            )


def create_authority(  # noqa: PLR0913 - each is a decision of the consortium
    home: Path,
    *,
    consortium: str,
    addresses: Sequence[str],
    now: datetime,
    root_folder: Path,
    passphrase: bytes | None = None,
) -> Authority:
    """Make the root, the issuing CA and the coordinator's first certificate.

    Whoever holds `root_folder/root.key` can speak for the consortium: move that folder to a medium
    that is kept offline, with copies at two places. It is needed again in a year.

    Args:
        home: the coordinator's folder.
        consortium: the consortium's name.
        addresses: host names and IP addresses under which members reach the coordinator.
        now: the time, UTC.
        root_folder: where `root.key` and `root.pem` are written.
        passphrase: encrypts `root.key`.

    Raises:
        ConfigurationError: one of the folders holds a CA already, or cannot be written, or an
            address is no host name or IP address.
        IdentityError: the consortium's name cannot stand in a URI name.
    """
    check_consortium(consortium)
    for address in addresses:
        _host(address)
    for taken in (_issuing_folder(home) / CREDENTIALS_FILE, root_folder / "root.key"):
        if taken.exists():
            raise ConfigurationError(
                f"{taken} exists already and is never overwritten: choose another folder"
            )
    key = ec.generate_private_key(ec.SECP384R1())
    root = _self_sign(key, consortium, now)
    write_atomically(root_folder / "root.key", key_to_pem(key, passphrase))
    write_atomically(root_folder / "root.pem", certificates_to_pem([root]), mode=0o644)
    signer = _Signer(certificate=root, key=key)
    authority = _install_issuing(home, signer, certificates_to_pem([root]), now)
    save_credentials(home / "coordinator", authority.issue_coordinator(addresses, now))
    return authority


def renew_issuing(
    home: Path, root_folder: Path, now: datetime, passphrase: bytes | None = None
) -> Authority:
    """Replace the issuing CA, with a new key; certificates of the old one stay valid.

    Publish the revocation list again afterwards: the new issuing CA signs it.

    Args:
        home: the coordinator's folder.
        root_folder: where the offline root has been brought back to.
        now: the time, UTC.
        passphrase: of `root.key`.

    Raises:
        ConfigurationError: there is no CA in `home`.
        IdentityError: the root is absent, encrypted with another passphrase, or not the root of
            this consortium.
    """
    old = Authority.load(home)
    key_path = root_folder / "root.key"
    key = load_key(read_private(key_path, f"there is no root key at {key_path}"), passphrase)
    for root in certificates_from_pem(old.roots_pem):
        if root.public_key() == key.public_key():
            return _install_issuing(home, _Signer(certificate=root, key=key), old.roots_pem, now)
    raise IdentityError(
        f"{key_path} is not the root of {old.consortium}: its members trust another one"
    )


def _install_issuing(home: Path, root: _Signer, roots_pem: bytes, now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    consortium = _organization(root.certificate)
    builder = (
        _builder(root, key.public_key(), _name(consortium, f"issuing CA {now:%Y-%m-%d}"))
        .not_valid_before(now - BACKDATE)
        .not_valid_after(min(now + ISSUING_LIFE, root.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
    )
    certificate = builder.sign(root.key, hashes.SHA384())
    credentials = Credentials(
        key_pem=key_to_pem(key), chain_pem=certificates_to_pem([certificate]), roots_pem=roots_pem
    )
    save_credentials(_issuing_folder(home), credentials)
    return Authority(home, credentials)


def _self_sign(key: PrivateKey, consortium: str, now: datetime) -> x509.Certificate:
    name = _name(consortium, f"root CA {now:%Y-%m-%d}")
    public = key.public_key()
    builder = (
        _unnamed(public, name)
        .issuer_name(name)
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
    )
    return builder.sign(key, hashes.SHA384())


def _builder(issuer: _Signer, key: PublicKey, subject: x509.Name) -> x509.CertificateBuilder:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    named = _unnamed(key, subject).issuer_name(issuer.certificate.subject)
    return named.add_extension(identifier, critical=False)


def _unnamed(key: PublicKey, subject: x509.Name) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(consortium: str, title: str) -> x509.Name:
    """A subject for the eyes of people; programs read the URI name only."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, consortium),
            x509.NameAttribute(NameOID.COMMON_NAME, title),
        ]
    )


def _organization(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if len(found) != 1:
        raise IdentityError("expected the consortium's name in the issuing CA's certificate")
    return str(found[0].value)


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


def _requested_key(request: bytes) -> PublicKey:
    pem = request.lstrip().startswith(b"-----BEGIN")
    load = x509.load_pem_x509_csr if pem else x509.load_der_x509_csr
    try:
        parsed = load(request)
        signed = parsed.is_signature_valid
        key = parsed.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise IdentityError(
            "expected a certificate signing request (PKCS#10), got something else or a damaged one"
        ) from error
    if not isinstance(key, PublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("expected a certificate signing request for an EC P-256 key")
    if not signed:
        raise IdentityError("the certificate signing request is not signed with its own key")
    return key


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


def _issuing_folder(home: Path) -> Path:
    return home / "authority"
