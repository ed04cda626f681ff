"""A party's key, its certificate chain and the consortium's roots, and how they lie on disk.

Rules:

1. The private key is made where it is used and never leaves; only a request travels.
2. Key, chain and roots stand in one file, replaced by one rename. A crash at any moment leaves
   either the old or the new credentials, never a key with somebody else's certificate.
3. The file is readable by its owner only, and is refused otherwise.
4. The roots are the self-signed certificates of that file. A chain that brings a self-signed
   certificate along is refused, because it would make itself a root on the next reading.
"""

import os
import stat
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedtwin_protocol.errors import ConfigurationError, IdentityError
from fedtwin_protocol.identity import (
    PeerIdentity,
    certificates_from_pem,
    check_chain,
    identity_from_certificate,
)

CREDENTIALS_FILE: Final = "credentials.pem"


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """What one end of a TLS connection needs.

    Attributes:
        key_pem: the private key, PKCS#8; never shown in a representation.
        chain_pem: the leaf, then the issuing CA.
        roots_pem: the roots that the other end must lead to.

    Raises:
        IdentityError: the key does not belong to the leaf, or a certificate is out of place.
    """

    key_pem: bytes = field(repr=False)
    chain_pem: bytes
    roots_pem: bytes

    def __post_init__(self) -> None:
        chain = certificates_from_pem(self.chain_pem)
        if any(_self_signed(certificate) for certificate in chain):
            raise IdentityError("expected a chain without its root, found a self-signed one in it")
        if not all(map(_self_signed, certificates_from_pem(self.roots_pem))):
            raise IdentityError("expected self-signed root certificates, found another among them")
        if load_key(self.key_pem).public_key() != chain[0].public_key():
            raise IdentityError(
                "the private key does not belong to the certificate: they come from two different "
                "enrolments; enrol again with a new invitation"
            )

    @property
    def identity(self) -> PeerIdentity:
        """Who these credentials stand for."""
        return identity_from_certificate(self.chain_pem)

    @property
    def renew_at(self) -> datetime:
        """When to ask for the next certificate: at two thirds of this one's life."""
        leaf = certificates_from_pem(self.chain_pem)[0]
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        return leaf.not_valid_before_utc + life * 2 / 3

    def check(self, now: datetime) -> None:
        """Refuse credentials that the other end would refuse.

        Args:
            now: the time, UTC.

        Raises:
            IdentityError: outside the lifetime, or another CA signed them.
        """
        check_chain(self.chain_pem, self.roots_pem, now)


def new_key_and_request() -> tuple[bytes, bytes]:
    """Make a private key (EC P-256) and a request for a certificate.

    The key comes from the operating system's generator; a key from a seed could be guessed. The
    request names nobody: the CA takes the name from the invitation or the present certificate.

    Returns:
        The key in PEM (PKCS#8) and the request in DER.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(key, hashes.SHA256())
    return key_to_pem(key), signed.public_bytes(serialization.Encoding.DER)


def key_to_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """Spell a private key in PEM (PKCS#8), encrypted if there is a passphrase."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def load_key(pem: bytes, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read an EC private key in PEM.

    Raises:
        IdentityError: there is none, or the passphrase is missing, wrong or superfluous.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=passphrase)
    except TypeError as error:
        text = "is encrypted: give its passphrase" if passphrase is None else "needs no passphrase"
        raise IdentityError(f"the private key {text}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError(
            "expected a private key in PEM; it is missing or damaged, or the passphrase is wrong"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError("expected an EC private key, found one of another kind")
    return key


def save_credentials(folder: Path, credentials: Credentials) -> None:
    """Put credentials in place of the old ones, all at once.

    Args:
        folder: made if absent, open to its owner only.
        credentials: what to keep.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    parts = (credentials.key_pem, credentials.chain_pem, credentials.roots_pem)
    data = b"".join(part.rstrip() + b"\n" for part in parts)
    write_atomically(folder / CREDENTIALS_FILE, data)


def load_credentials(folder: Path) -> Credentials:
    """Read credentials.

    Their lifetime is not judged here: expired ones can still be shown and explained.

    Raises:
        IdentityError: there are none, others can read them, or they do not fit together.
    """
    path = folder / CREDENTIALS_FILE
    data = read_private(path, f"there are no credentials in {folder}: enrol with an invitation")
    try:
        certificates = certificates_from_pem(data)
        chain = [each for each in certificates if not _self_signed(each)]
        roots = [each for each in certificates if _self_signed(each)]
        return Credentials(
            key_pem=key_to_pem(load_key(data)),
            chain_pem=certificates_to_pem(chain),
            roots_pem=certificates_to_pem(roots),
        )
    except IdentityError as error:
        raise IdentityError(f"{path} cannot be used: {error}") from error


def certificates_to_pem(certificates: list[x509.Certificate]) -> bytes:
    """Spell certificates in PEM, one after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def read_private(path: Path, absent: str) -> bytes:
    """Read a file with a secret, if nobody but its owner can.

    Args:
        path: the file.
        absent: what to say if there is no such file.

    Raises:
        IdentityError: it is absent, unreadable, or open to others.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read()
    except FileNotFoundError as error:
        raise IdentityError(absent) from error
    except OSError as error:
        raise IdentityError(f"cannot read {path}: {error.strerror}") from error
    if mode & 0o077:
        raise IdentityError(
            f"{path} holds a secret and is open to other users of this computer (mode {mode:04o}): "
            f"run  chmod 600 {path}"
        )
    return data


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file at one blow, and survive a power cut right after.

    Args:
        path: the file; its folder is made if absent, open to its owner only.
        data: the whole content.
        mode: permissions of the file.

    Raises:
        ConfigurationError: it cannot be written.
    """
    draft = path.with_name(f".{path.stem}.new{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


def check_writable(folder: Path) -> None:
    """Make sure that a folder can be made and written, before something is spent on it.

    Raises:
        ConfigurationError: it cannot.
    """
    probe = folder / ".writable"
    write_atomically(probe, b"")
    probe.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _self_signed(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject
