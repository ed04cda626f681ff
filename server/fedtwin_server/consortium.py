"""What a consortium's people do beside the running coordinator: set up, plan, sign, publish.

Signing keys are the signers' own: `make_signer` writes one, and what it signs is a plan or a
release that was checked first. The coordinator itself holds no signing key.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors import SafetensorError
from safetensors.numpy import load

from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.card_writing import RunFacts, write_card
from fedtwin_protocol.content import content_heads, make_content, read_content
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import ConfigurationError, PlanError
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES, initial_parameters, parameter_shapes
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.release import build_release, sign_release
from fedtwin_protocol.signing import (
    PLAN_TYPE,
    SigningKey,
    envelope_from_bytes,
    load_signing_key,
    public_key,
    sign,
    verify,
)
from fedtwin_protocol.study import StudyPlan, plan_from_yaml
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import check_count, check_table
from fedtwin_server.coordinator import CoordinatorSettings, Home, make_rule
from fedtwin_server.store import Store, StudyRecord
from fedtwin_server.study_record import final_parameters, plan_of

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
    blobs = home.blobs()
    make_rule(plan, blobs)
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
    store = home.store()
    store.add_study(record)
    store.close()
    return plan


def publish(home: Home, study: str, key_files: Sequence[Path], now: datetime) -> Path:
    """Write a finished study's card, sign the release, and put it on the shelf.

    Raises:
        ConfigurationError: the study is not finished, or published already.
        SignatureError: too few signers.
        ReleaseError: the model or its card breaks a rule of releases.
    """
    settings, store, blobs = home.settings(), home.store(), home.blobs()
    record = store.study(study)
    if record.status not in {"finished", "released"}:
        raise ConfigurationError(
            f"study {study} is {record.status}{': ' + record.reason if record.reason else ''}; "
            "only a finished study can be released"
        )
    plan = plan_of(record)
    final = final_parameters(store, plan, blobs)
    arrays = {name: np.array(a) for name, a in read_content(final, blobs).arrays["arrays"].items()}
    shapes = None
    if plan.model.initial_sha256 is not None:
        shapes = {head.name: head.shape for head in content_heads(final)}
    card = write_card(plan, run_facts(store, plan, now))
    files = build_release(arrays, card, envelope_from_bytes(record.envelope), now, shapes)
    keys = [load_signing_key(path) for path in key_files]
    signed = sign_release(files, keys, settings.trust, shapes)
    target = home.shelf().put(plan.study, plan.version, signed)
    store.set_status(study, "released", "", now)
    store.close()
    return target


def run_facts(store: Store, plan: StudyPlan, now: datetime) -> RunFacts:
    """What the card may say of a run: noised counts, rounds, noised tables."""
    counts = {
        site: check_count(pb.Answer.FromString(data).content)
        for _, site, _, data in store.answers(plan.study, "query.cohort")
    }
    tables = {
        site: np.array(check_table(pb.Answer.FromString(data).content, plan)).reshape(-1, 2)
        for _, site, _, data in store.answers(plan.study, "evaluate")
    }
    rounds = store.rounds(plan.study)
    used = {site: sum(site in record.sites for record in rounds) for site in counts}
    return RunFacts(
        patients=counts,
        rounds_used=used,
        rounds=len(rounds),
        created=now,
        tables=tables,
        software={"fedtwin": version("fedtwin")},
    )


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
