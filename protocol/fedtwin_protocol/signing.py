"""Documents signed by several people: Ed25519, with a threshold.

The envelope is DSSE (github.com/secure-systems-lab/dsse, protocol v1): the signature covers the
type and the payload together, so that a plan can never pass for a release. Verification raises;
it never returns a verdict that could be overlooked.
"""

import base64
import binascii
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field, ValidationError, model_validator

from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.contract import Part
from fedtwin_protocol.errors import ConfigurationError, SignatureError

PLAN_TYPE = "application/vnd.fedtwin.plan+json"
RELEASE_TYPE = "application/vnd.fedtwin.release+json"


class SigningKey(Part):
    """The public half of one signer's key.

    Attributes:
        holder: the person or office that keeps the private half.
        public: 32 bytes, base64.
    """

    holder: str = Field(min_length=1, max_length=120)
    public: str = Field(min_length=44, max_length=44)

    @property
    def key_id(self) -> str:
        """SHA-256 of the public bytes, in hexadecimal."""
        return sha256_hex(base64.b64decode(self.public))


class TrustRoot(Part):
    """Whose signatures a consortium's documents need.

    Attributes:
        consortium: the consortium's name.
        keys: the signers.
        threshold: so many different signers must sign.
    """

    consortium: str
    keys: Annotated[tuple[SigningKey, ...], Field(min_length=1)]
    threshold: int = Field(ge=1)

    @model_validator(mode="after")
    def _threshold_can_be_met(self) -> "TrustRoot":
        if len({key.key_id for key in self.keys}) != len(self.keys):
            raise ValueError("a signing key is listed twice")
        if self.threshold > len(self.keys):
            raise ValueError(f"threshold {self.threshold} exceeds the {len(self.keys)} keys")
        return self


class Signature(Part):
    """One signer's signature over the type and the payload, base64."""

    keyid: str
    sig: str


class Envelope(Part):
    """A payload with its type and signatures; DSSE's field names."""

    payloadType: str  # noqa: N815 - DSSE fixes this spelling
    payload: str
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def body(self) -> bytes:
        """The payload, not yet verified."""
        try:
            return base64.b64decode(self.payload, validate=True)
        except binascii.Error as error:
            raise SignatureError("the signed document's payload is not base64") from error


def sign(payload_type: str, body: bytes, keys: list[Ed25519PrivateKey]) -> Envelope:
    """Wrap and sign a document with each of the keys."""
    message = pre_authentication(payload_type, body)
    signatures = [
        Signature(keyid=public_key(key, "-").key_id, sig=_b64(key.sign(message))) for key in keys
    ]
    return Envelope(payloadType=payload_type, payload=_b64(body), signatures=tuple(signatures))


def envelope_from_bytes(data: bytes) -> Envelope:
    """Read an envelope; nothing in it is trusted yet.

    Raises:
        SignatureError: the bytes hold no envelope.
    """
    try:
        return Envelope.model_validate_json(data)
    except ValidationError as error:
        raise SignatureError("expected a signed document (a DSSE envelope), got none") from error


def verify(envelope: Envelope, payload_type: str, trust: TrustRoot) -> bytes:
    """Return the payload of a document that enough known signers have signed.

    Args:
        envelope: the document.
        payload_type: what it must be.
        trust: whose signatures count, and how many are needed.

    Raises:
        SignatureError: another type, a wrong signature by a known key, or too few signers.
    """
    if envelope.payloadType != payload_type:
        raise SignatureError(
            f"expected a document of type {payload_type}, got {envelope.payloadType}"
        )
    body = envelope.body
    message = pre_authentication(payload_type, body)
    known = {key.key_id: key for key in trust.keys}
    signers: set[str] = set()
    for signature in envelope.signatures:
        key = known.get(signature.keyid)
        if key is not None:
            _check(key, signature.sig, message)
            signers.add(signature.keyid)
    if len(signers) < trust.threshold:
        holders = ", ".join(sorted(known[key_id].holder for key_id in signers)) or "none"
        raise SignatureError(
            f"expected {trust.threshold} signatures of {trust.consortium}'s "
            f"{len(trust.keys)} signers, found {len(signers)} ({holders})"
        )
    return body


def public_key(key: Ed25519PrivateKey, holder: str) -> SigningKey:
    """The public half of a key, with its holder's name."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return SigningKey(holder=holder, public=_b64(raw))


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a signer's private key from PEM.

    Raises:
        ConfigurationError: the file is missing or holds no Ed25519 key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"cannot read the signing key {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} holds no unencrypted PEM private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds a key of another kind; expected Ed25519")
    return key


def _check(key: SigningKey, signature: str, message: bytes) -> None:
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public))
        public.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise SignatureError(
            f"the signature of {key.holder} does not fit the document: it was changed after signing"
        ) from error


def pre_authentication(payload_type: str, body: bytes) -> bytes:
    """The bytes that a signature covers: the type and the body, neither to be shifted."""
    kind = payload_type.encode()
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(body)).encode(), body])


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
