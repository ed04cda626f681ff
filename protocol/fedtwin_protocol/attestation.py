"""What OpenSSF's `model_signing verify` accepts beside a release, and how the model came about.

`model.sig` is a Sigstore bundle (v0.3) with a DSSE envelope around an in-toto Statement v1 of
predicate type `https://model_signing/signature/v1.0`, method `files`, SHA-256: byte for byte what
model-signing 1.1.1 writes with an EC key. The verifiers of that predicate pass over fields that
they do not know, so that its `fedtwin` part can hold the provenance.

The key (EC P-256, because model-signing takes no Ed25519) is made for this one release and thrown
away when it has signed; its public half is `model.pem`. Both files are named by the statement that
the signers sign and by the TUF list, and from there alone comes the trust in the key: there is no
long-lived key to steal, and nobody can make a second bundle for it.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.signing import pre_authentication

IN_TOTO_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE, BUNDLE_KEY = "model.sig", "model.pem"
EVIDENCE: Final = "evidence"
# Not in the bundle's manifest: they follow from it. The signers' statement lists the first two.
BESIDE: Final = (BUNDLE, BUNDLE_KEY, "statement.json", EVIDENCE)


def attest(
    files: Mapping[str, bytes], name: str, provenance: Mapping[str, Any]
) -> dict[str, bytes]:
    """Sign a model's files with a key that is made for it and thrown away.

    Args:
        files: contents by name: the model, its card, its plan.
        name: of the model.
        provenance: JSON values: how the model came about.

    Returns:
        `model.sig` and `model.pem`.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    body = canonical_bytes(_statement(files, name, provenance))
    signature = key.sign(pre_authentication(IN_TOTO_TYPE, body), ec.ECDSA(hashes.SHA256()))
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": sha256_hex(public)}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(body).decode("ascii"),
            "payloadType": IN_TOTO_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode("ascii"), "keyid": ""}],
        },
    }
    return {BUNDLE: canonical_bytes(bundle), BUNDLE_KEY: public}


def check_attestation(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Believe the bundle of a release whose other files are believed, or raise.

    Args:
        files: contents by name, with `model.sig` and `model.pem`.

    Returns:
        The provenance.

    Raises:
        ReleaseError: the signature does not fit, or a file is not as the bundle says.
    """
    try:
        envelope = json.loads(files[BUNDLE])["dsseEnvelope"]
        body = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        key = serialization.load_pem_public_key(files[BUNDLE_KEY])
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ReleaseError(f"{BUNDLE_KEY} holds a key of another kind; expected EC P-256")
        key.verify(
            signature, pre_authentication(envelope["payloadType"], body), ec.ECDSA(hashes.SHA256())
        )
        statement = json.loads(body)
        said = {item["name"]: item["digest"] for item in statement["predicate"]["resources"]}
        provenance: dict[str, Any] = statement["predicate"]["fedtwin"]
        kinds = (envelope["payloadType"], statement["_type"], statement["predicateType"])
    except InvalidSignature as error:
        raise ReleaseError(f"the signature in {BUNDLE} does not fit its content") from error
    except (ValueError, KeyError, IndexError, TypeError, binascii.Error) as error:
        raise ReleaseError(f"{BUNDLE} is no signature bundle of a model") from error
    if kinds != (IN_TOTO_TYPE, STATEMENT_TYPE, PREDICATE_TYPE):
        raise ReleaseError(f"{BUNDLE} holds a statement of another kind: {kinds}")
    if said != _digests(files):
        raise ReleaseError(f"{BUNDLE} speaks of other files than those of the release")
    return provenance


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: sha256_hex(files[name]) for name in sorted(set(files) - set(BESIDE))}


def _statement(
    files: Mapping[str, bytes], name: str, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    digests = _digests(files)
    whole = sha256_hex(b"".join(bytes.fromhex(digest) for digest in digests.values()))
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(BESIDE),
            },
            "resources": [
                {"name": file, "algorithm": "sha256", "digest": digest}
                for file, digest in digests.items()
            ],
            "fedtwin": dict(provenance),
        },
    }
