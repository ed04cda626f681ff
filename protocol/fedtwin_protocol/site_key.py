"""A site's long-term signing key (Ed25519): what other sites know it by.

The coordinator issues the certificates of the link, so a dishonest one could issue itself another
in any site's name. This key is made at the site when it enrols and is never renewed by the
coordinator; its public half stands in every plan that names the site, under the signatures of the
consortium's signers. What sites believe of each other is signed with it.

A signature covers its purpose and the body together (the encoding of DSSE), so that one made for
one purpose can never pass for another.
"""

import base64
import binascii
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedtwin_protocol.credentials import read_private, write_atomically
from fedtwin_protocol.errors import IdentityError, SignatureError
from fedtwin_protocol.signing import pre_authentication

SIGNING_KEY_FILE: Final = "signing_key.pem"
PUBLIC_BYTES: Final = 32


class SiteKey:
    """The private half, at the site that it belongs to."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> str:
        """The public half: 32 bytes, base64."""
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return base64.b64encode(raw).decode("ascii")

    def sign(self, purpose: str, body: bytes) -> bytes:
        """A signature (64 bytes) over a body for one purpose."""
        return self._key.sign(pre_authentication(purpose, body))


def keep_site_key(folder: Path) -> SiteKey:
    """The site's key; made on the first call, readable by its owner only.

    Args:
        folder: of the site's identity.

    Raises:
        IdentityError: the file is open to others, or holds no such key.
        ConfigurationError: it cannot be written.
    """
    path = folder / SIGNING_KEY_FILE
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_atomically(path, pem)
    data = read_private(path, f"there is no signing key in {folder}: enrol with an invitation")
    try:
        found = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError(
            f"{path} holds no private key in PEM; restore it from a copy"
        ) from error
    if not isinstance(found, Ed25519PrivateKey):
        raise IdentityError(f"{path} holds a key of another kind; expected Ed25519")
    return SiteKey(found)


def check_site_signature(
    public: str, purpose: str, body: bytes, signature: bytes, site: str
) -> None:
    """Check a site's signature.

    Args:
        public: the site's public key, base64, from the signed plan.
        purpose: what it must have been made for.
        body: what it must cover.
        signature: 64 bytes.
        site: whose it should be, for the error.

    Raises:
        SignatureError: it is not that site's signature of that.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(signature, pre_authentication(purpose, body))
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise SignatureError(f"this is not the signature of {site} for '{purpose}'") from error


def checked_public_key(data: bytes) -> str:
    """A public key that came from a site, base64.

    Raises:
        IdentityError: it is none.
    """
    try:
        Ed25519PublicKey.from_public_bytes(data)
    except ValueError as error:
        raise IdentityError(f"expected a signing key of {PUBLIC_BYTES} bytes") from error
    return base64.b64encode(data).decode("ascii")
