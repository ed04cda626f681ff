"""Every command can be found, says what it does, and shows an example that it accepts."""

import re
import subprocess
import sys

import click
import pytest

from .command_tree import everything, faults

TREE = dict(everything())
NAMED = (
    *(f"fedtwin server {name}" for name in ("init", "invite", "run", "studies", "sites")),
    *(f"fedtwin server {name}" for name in ("release", "revoke", "plan check")),
    *(f"fedtwin server signers {name}" for name in ("key", "replace", "renew")),
    *("fedtwin server sign", "fedtwin client log"),
    *(f"fedtwin server studies {name}" for name in ("add", "show", "stop")),
    *(f"fedtwin client {name}" for name in ("enrol", "check", "policy", "run", "studies")),
    *(f"fedtwin client {name}" for name in ("ledger", "left", "report")),
    *(f"fedtwin client records {name}" for name in ("fhir", "table")),
    *(f"fedtwin client studies {name}" for name in ("show", "accept", "decline")),
    *(f"fedtwin research {name}" for name in ("enrol", "fetch", "show", "verify")),
    "fedtwin research data heart-disease",
    "fedtwin demo",
)


@pytest.mark.parametrize("typed", NAMED)
def test_a_command_is_there(typed: str) -> None:
    assert typed in TREE


@pytest.mark.parametrize("typed", TREE)
def test_a_command_says_what_it_does_with_an_example_that_it_accepts(typed: str) -> None:
    text = " ".join((TREE[typed].help or "").split())
    does, _, example = text.partition("Example: ")
    assert len(does.strip()) > 10, text
    assert example.startswith("fedtwin "), text
    assert faults(example, whole=True) == []


@pytest.mark.parametrize("typed", TREE)
def test_every_option_and_argument_is_explained(typed: str) -> None:
    silent = [
        one.name
        for one in TREE[typed].params
        if one.name != "help" and not getattr(one, "help", None)
    ]
    assert silent == []


@pytest.mark.parametrize(
    "words", [[], ["server"], ["client"], ["client", "records"], ["research", "data"]]
)
def test_no_command_shows_the_help(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedtwin.main", *words], capture_output=True, text=True, check=False
    )
    shown = done.stdout + done.stderr
    assert "Commands:" in shown
    assert "Example: fedtwin" in shown
    assert not re.search(r"\\\[|Traceback", shown)


def test_the_checker_finds_what_is_wrong() -> None:
    assert faults("fedtwin client import fhir EXPORT", whole=False)
    assert faults("fedtwin client enrol --invitations x", whole=False)
    assert faults("fedtwin client enrol", whole=True)
    assert faults("fedtwin server release NAME EXTRA --key k", whole=True)
    assert faults("fedtwin clients run", whole=False)
    assert faults("fedtwin client enrol", whole=False) == []
    assert faults("fedtwin server studies add PLAN --key a.key --key b.key", whole=True) == []


def test_the_tree_was_walked() -> None:
    assert isinstance(TREE["fedtwin client"], click.Group)
    assert len(TREE) > 25
