"""The node's key for a FHIR server: SMART Backend Services, private_key_jwt.

The key is made here (EC P-384 for ES384, or RSA 3072 for RS384, the two that the SMART App Launch
guide 2.2 asks for), is kept encrypted where the node's files are, and signs a short-lived assertion
for each token. What is registered with the server is the public part, as a JWKS (RFC 7517); its
`kid` is the key's thumbprint (RFC 7638).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fedtwin_client.at_rest.files import read_whole, write_whole
from fedtwin_client.at_rest.keyring import Keyring
from fedtwin_protocol.errors import ConfigurationError

Algorithm = Literal["ES384", "RS384"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFE: Final = timedelta(minutes=4)
_RSA_BITS: Final = 3072
_SMALLEST_RSA: Final = 2048
_THUMBPRINT: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}


class FhirKey:
    """One private key, with its algorithm and name.

    Args:
        key: EC on P-384, or RSA of at least 2048 bits.

    Raises:
        ConfigurationError: it is of another kind.
    """

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP384R1):
            self.algorithm: Algorithm = "ES384"
        elif isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _SMALLEST_RSA:
            self.algorithm = "RS384"
        else:
            raise ConfigurationError(
                "expected a key on the curve P-384 (ES384) or an RSA key of at least 2048 bits "
                "(RS384), found another; make one with 'fedtwin client records fhir-key'"
            )
        public = self._public()
        named = {name: public[name] for name in _THUMBPRINT[public["kty"]]}
        digest = hashlib.sha256(json.dumps(named, separators=(",", ":")).encode()).digest()
        self.kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def jwks(self) -> dict[str, Any]:
        """The public part, to be registered with the server."""
        about = {"kid": self.kid, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"]}
        return {"keys": [self._public() | about]}

    def assertion(self, client_id: str, audience: str, now: datetime, unique: str) -> str:
        """A signed statement of who asks for a token, good for four minutes.

        Args:
            client_id: that the server gave this node.
            audience: the token endpoint.
            now: by the server's clock.
            unique: a number that is never used twice.
        """
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + _LIFE).timestamp()),
            "jti": unique,
        }
        return jwt.encode(claims, self._key, algorithm=self.algorithm, headers={"kid": self.kid})

    def to_pem(self) -> bytes:
        """The private key, unencrypted PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def _public(self) -> dict[str, Any]:
        public = self._key.public_key()
        if isinstance(public, ec.EllipticCurvePublicKey):
            found: Mapping[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
        else:
            found = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        return {name: found[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in found}


def make_key(algorithm: Algorithm) -> FhirKey:
    """A fresh key from the operating system's generator."""
    if algorithm == "ES384":
        return FhirKey(ec.generate_private_key(ec.SECP384R1()))
    return FhirKey(rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS))


def read_key(path: Path, keyring: Keyring | None) -> FhirKey:
    """Read a key file.

    Raises:
        ConfigurationError: there is none, it is open to others, or holds no key of the two kinds.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigurationError(f"{path} is open to others: run 'chmod 600 {path}'")
        key = serialization.load_pem_private_key(read_whole(path, keyring), password=None)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no key {path}: make one with 'fedtwin client records fhir-key'"
        ) from error
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"cannot read {path} as a private key in PEM without a password: {error}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigurationError(f"{path} holds a key of another kind than EC or RSA")
    return FhirKey(key)


def keep_key(path: Path, key: FhirKey, keyring: Keyring | None) -> None:
    """Write a key file where there is none yet.

    Raises:
        ConfigurationError: there is one, or it cannot be written.
    """
    if path.exists():
        raise ConfigurationError(
            f"{path} is there already; the server knows its public part. To change the key, "
            "move that file away, make a new one, and register it"
        )
    try:
        write_whole(path, key.to_pem(), keyring)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
