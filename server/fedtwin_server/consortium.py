"""What a consortium's people do beside the running coordinator: set up, plan, sign.

Signing keys are the signers' own: `make_signer` writes one, and what it signs is a plan or a
release that was checked first. The coordinator itself holds no signing key.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors import SafetensorError
from safetensors.numpy import load

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.content import make_content
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError, PlanError
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES, initial_parameters, parameter_shapes
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.signing import (
    PLAN_TYPE,
    SigningKey,
    load_signing_key,
    public_key,
    sign,
    verify,
)
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_server.coordinator import CoordinatorSettings, Home, make_rule
from fedtwin_server.secure_plan import with_keys
from fedtwin_server.store import StudyRecord

_CONSORTIUM: Final = re.compile(r"[a-z][a-z0-9-]{1,60}")  # as in a plan
_HOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,60}")


def check_names(consortium: str, holders: Sequence[str], threshold: int) -> None:
    """Refuse a consortium that no plan can name, or signers that make no trust root.

    Called before any key is written.

    Raises:
        ConfigurationError: a wrong name, a name twice, or too high a threshold.
    """
    if not _CONSORTIUM.fullmatch(consortium):
        raise ConfigurationError(
            "expected a consortium's name of 2 to 61 lower-case letters, digits and hyphens that "
            f"starts with a letter, such as 'heart-north'; got {consortium!r}"
        )
    for holder in holders:
        if not _HOLDER.fullmatch(holder):
            raise ConfigurationError(
                f"expected a signer's name of letters, digits, dots and hyphens, got {holder!r}"
            )
    if len(set(holders)) != len(holders):
        raise ConfigurationError(f"a signer is named twice: {', '.join(holders)}")
    if threshold > len(holders):
        raise ConfigurationError(
            f"a threshold of {threshold} cannot be met by {len(holders)} signers: name more with "
            "--signer, or lower --threshold"
        )


def make_signer(path: Path, holder: str) -> SigningKey:
    """Write a signer's private key (0600); returns the public half.

    Raises:
        ConfigurationError: there is a key at that place already.
    """
    if path.exists():
        raise ConfigurationError(f"{path} exists already and is never overwritten")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomically(path, pem)
    return public_key(key, holder)


def write_settings(home: Home, settings: CoordinatorSettings) -> None:
    """Write `coordinator.yaml`."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
    write_atomically(home.settings_file, text.encode(), mode=0o644)


def add_study(
    home: Home, plan_file: Path, key_files: Sequence[Path], initial: Path | None, now: datetime
) -> StudyPlan:
    """Check a plan, sign it, and open the study.

    Args:
        home: the coordinator's.
        plan_file: YAML.
        key_files: the signers' keys; at least the threshold.
        initial: safetensors with initial parameters, for families that are not built in.
        now: the time.

    Raises:
        PlanError: the plan does not add up.
        SignatureError: too few signers.
        ConfigurationError: a file cannot be used, or the study is here already.
    """
    settings = home.settings()
    plan = plan_from_yaml(plan_file)
    if plan.consortium != settings.consortium:
        raise PlanError(
            f"{plan_file} is a plan of {plan.consortium}; this coordinator is one of "
            f"{settings.consortium}"
        )
    if plan.expires is not None and plan.expires <= now:
        raise PlanError(f"the plan expired on {plan.expires:%Y-%m-%d}")
    blobs, store = home.blobs(), home.store()
    make_rule(plan, blobs)
    if plan.privacy.mode == "secure":
        plan = with_keys(plan, store)
    envelope = sign(PLAN_TYPE, plan.to_bytes(), [load_signing_key(path) for path in key_files])
    verify(envelope, PLAN_TYPE, settings.trust)
    parameters = Payload(arrays={"arrays": _initial(plan, initial)})
    record = StudyRecord(
        study=plan.study,
        version=plan.version,
        plan_hash=plan.hash,
        envelope=envelope.to_bytes(),
        status="open",
        reason="",
        initial=make_content(parameters, blobs).SerializeToString(),
        added=now.isoformat(),
        changed=now.isoformat(),
    )
    store.add_study(record)
    store.close()
    return plan


def _initial(plan: StudyPlan, path: Path | None) -> dict[str, np.ndarray]:
    if plan.model.initial_sha256 is None:
        if path is not None:
            raise ConfigurationError(
                f"the plan names no initial parameters, so {path} would be ignored: leave "
                "--initial out, or set model.initial_sha256 to the file's SHA-256"
            )
        return dict(initial_parameters(plan))
    if path is None:
        raise ConfigurationError(
            f"model family '{plan.model.family}' needs its initial parameters: give the "
            "safetensors file with --initial"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if sha256_hex(data) != plan.model.initial_sha256:
        raise ConfigurationError(
            f"{path} has another SHA-256 than the plan's model.initial_sha256: {sha256_hex(data)}"
        )
    try:
        arrays = load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is no safetensors file that numpy reads: {error}"
        ) from error
    _check_initial(plan, path, arrays)
    return arrays


def _check_initial(plan: StudyPlan, path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A model that can be learned and released: real numbers, and the family's own shapes."""
    if not arrays:
        raise ConfigurationError(f"{path} holds no array")
    for name, array in arrays.items():
        if array.dtype.name not in {"float32", "float64"} or not np.isfinite(array).all():
            raise ConfigurationError(
                f"{path}: '{name}' ({array.dtype.name}) must hold finite float32 or float64 numbers"
            )
    if plan.model.family in BUILT_IN_FAMILIES:
        found = {name: array.shape for name, array in arrays.items()}
        if found != parameter_shapes(plan):
            raise ConfigurationError(
                f"{path} holds {found}, the family '{plan.model.family}' has "
                f"{parameter_shapes(plan)}"
            )
