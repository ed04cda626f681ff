"""A certificate authority of two files, for tests of TLS."""

import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Issued(NamedTuple):
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class SmallAuthority:
    """Issues certificates for a day.

    Attributes:
        certificate: the authority's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("a small authority")
        usage = x509.BasicConstraints(ca=True, path_length=0)
        made = self._builder(self._name, self._key).add_extension(usage, critical=True)
        signing = x509.KeyUsage(
            **dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment",
                 "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False),
            key_cert_sign=True, crl_sign=True,
        )  # fmt: skip
        self.certificate = self._write(made.add_extension(signing, critical=True), "authority")

    def issue(self, name: str) -> Issued:
        """A certificate for a host or a sender, with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        host = x509.SubjectAlternativeName([x509.DNSName(name)])
        certificate = self._write(self._builder(_named(name), key).add_extension(host, False), name)
        file = self._folder / f"{name}.key"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Issued(certificate, file)

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(authority, False)
            .add_extension(own, False)
        )

    def _write(self, made: x509.CertificateBuilder, name: str) -> Path:
        file = self._folder / f"{name}.pem"
        signed = made.sign(self._key, hashes.SHA256())
        file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return file


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
