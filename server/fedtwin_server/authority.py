"""The consortium's certificate authority: an offline root, and the issuing CA at the coordinator.

`home/authority` holds the issuing CA, `home/coordinator` the coordinator's own certificate. The
root lies elsewhere, offline: who holds its key can speak for the consortium. What each certificate
may do stands in `fedtwin_server.certificates`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
    PeerIdentity,
    certificates_from_pem,
    check_consortium,
    identity_from_certificate,
    root_fingerprint,
)
from fedtwin_server.certificates import (
    Holder,
    Signer,
    consortium_of,
    host_names,
    issuing_certificate,
    leaf_certificate,
    requested_key,
    root_certificate,
)

LEAF_LIFETIME: Final = timedelta(hours=24)
LONGEST_LEAF: Final = timedelta(days=14)
LIFETIMES: Final[Mapping[str, timedelta]] = {"24h": LEAF_LIFETIME, "14d": LONGEST_LEAF}
ROOT_KEY_FILE: Final = "root.key"
ROOT_FILE: Final = "root.pem"


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedLeaf:
    """A certificate that was just issued: who it stands for, and its chain in PEM."""

    identity: PeerIdentity
    chain_pem: bytes


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
        self._signer = Signer(certificate=certificate, key=load_key(credentials.key_pem))
        self.consortium = consortium_of(certificate)

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

    def check_request(self, request: bytes) -> ec.EllipticCurvePublicKey:
        """Refuse a request that could not be answered.

        Args:
            request: a certificate signing request, DER or PEM.

        Returns:
            The key to be certified; nothing else of the request counts.

        Raises:
            IdentityError: it is damaged, not signed with its key, or its key is not EC P-256.
        """
        return requested_key(request)

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
        key = requested_key(request)
        holder = self._member(role, name, invited=False)
        return self._sign(key, holder, now, now + lifetime)

    def bootstrap_certificate(
        self,
        key: ec.EllipticCurvePublicKey,
        role: str,
        name: str,
        now: datetime,
        expires: datetime,
    ) -> IssuedLeaf:
        """Certify the bootstrap key of an invitation, until the invitation expires.

        Args:
            key: what both ends derive from the invitation's secret.
            role: `site` or `researcher`: what the invited party will be.
            name: what it will be called.
            now: the time, UTC.
            expires: end of the invitation; at most 14 days ahead.

        Raises:
            IdentityError: the role, the name or the lifetime is not acceptable.
        """
        return self._sign(key, self._member(role, name, invited=True), now, expires)

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
        hosts = host_names(addresses)
        holder = Holder(consortium=self.consortium, role="coordinator", hosts=hosts)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign(key.public_key(), holder, now, now + lifetime)
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

    def _member(self, role: str, name: str, *, invited: bool) -> Holder:
        if role == "site":
            return Holder(
                consortium=self.consortium, role="invited-site" if invited else "site", name=name
            )
        if role == "researcher":
            return Holder(
                consortium=self.consortium,
                role="invited-researcher" if invited else "researcher",
                name=name,
            )
        raise IdentityError(f"expected a role of site or researcher, got {role!r}")

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        holder: Holder,
        now: datetime,
        not_after: datetime,
    ) -> IssuedLeaf:
        self._check_times(now, not_after)
        leaf = leaf_certificate(self._signer, key, holder, now, not_after)
        return IssuedLeaf(
            identity=identity_from_certificate(leaf),
            chain_pem=certificates_to_pem([leaf]) + self.issuer_pem,
        )

    def _check_times(self, now: datetime, not_after: datetime) -> None:
        if not timedelta(0) < not_after - now <= LONGEST_LEAF:
            raise IdentityError(
                "expected a lifetime of more than nothing and at most "
                f"{LONGEST_LEAF.days} days, got {not_after - now}"
            )
        start = self._signer.certificate.not_valid_before_utc
        if not start <= now < self.not_after:
            raise IdentityError(
                f"the issuing CA of {self.consortium} is valid from {start:%Y-%m-%d %H:%M} to "
                f"{self.not_after:%Y-%m-%d %H:%M} UTC and it is {now:%Y-%m-%d %H:%M} UTC here: "
                "renew it with the root key, or set this computer's clock"
            )


def create_authority(
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
    host_names(addresses)
    for taken in (_issuing_folder(home) / CREDENTIALS_FILE, root_folder / ROOT_KEY_FILE):
        if taken.exists():
            raise ConfigurationError(
                f"{taken} exists already and is never overwritten: choose another folder"
            )
    key = ec.generate_private_key(ec.SECP384R1())
    root = root_certificate(key, consortium, now)
    write_atomically(root_folder / ROOT_KEY_FILE, key_to_pem(key, passphrase))
    write_atomically(root_folder / ROOT_FILE, certificates_to_pem([root]), mode=0o644)
    signer = Signer(certificate=root, key=key)
    authority = _install_issuing(home, signer, certificates_to_pem([root]), now)
    save_credentials(home / "coordinator", authority.issue_coordinator(addresses, now))
    return authority


def renew_issuing(
    home: Path, root_folder: Path, now: datetime, passphrase: bytes | None = None
) -> Authority:
    """Replace the issuing CA, with a new key; certificates of the old one stay valid.

    The new issuing CA must sign the revocation list: publish it again afterwards.

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
    path = root_folder / ROOT_KEY_FILE
    key = load_key(read_private(path, f"there is no root key at {path}"), passphrase)
    for root in certificates_from_pem(old.roots_pem):
        if root.public_key() == key.public_key():
            return _install_issuing(home, Signer(certificate=root, key=key), old.roots_pem, now)
    raise IdentityError(
        f"{path} is not the root of {old.consortium}: its members trust another one"
    )


def _install_issuing(home: Path, root: Signer, roots_pem: bytes, now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = issuing_certificate(root, key.public_key(), now)
    credentials = Credentials(
        key_pem=key_to_pem(key), chain_pem=certificates_to_pem([certificate]), roots_pem=roots_pem
    )
    save_credentials(_issuing_folder(home), credentials)
    return Authority(home, credentials)


def _issuing_folder(home: Path) -> Path:
    return home / "authority"
