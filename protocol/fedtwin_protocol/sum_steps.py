"""Names of the steps of a secure sum; `secure_messages` says what each of them carries."""

from typing import Final

KEYS, SHARES, MASKED, CONFIRM, UNMASK = "keys", "shares", "masked", "confirm", "unmask"
STEPS: Final = (KEYS, SHARES, MASKED, CONFIRM, UNMASK)


def kind_of(purpose: str, step: str) -> str:
    """A task's kind."""
    return f"{purpose}.{step}"


def step_of(kind: str) -> tuple[str, str]:
    """Purpose and step of a task's kind; an empty step for a task that is none of a sum."""
    purpose, _, step = kind.rpartition(".")
    return (purpose, step) if step in STEPS and purpose else (kind, "")
