"""One spelling for every document: the bytes that are hashed and signed.

JSON with sorted keys, no white space, UTF-8; floats as Python's shortest round-trip form. NaN and
infinities are refused, because two parsers may not agree on them.
"""

import hashlib
import json
from typing import Any

from fedtwin_protocol.errors import WireError


def canonical_bytes(value: Any) -> bytes:
    """Spell a JSON-like value in the one canonical way.

    Raises:
        WireError: the value holds NaN, an infinity, or something that JSON cannot spell.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise WireError(f"expected plain JSON values without NaN or infinity: {error}") from error
    return text.encode("utf-8")


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of some bytes, in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()
