"""Certificates that live for seconds: nodes and coordinator renew them while a study goes on."""

import csv
import random
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import yaml
from cryptography import x509

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.credentials import Credentials, load_credentials, save_credentials
from fedtwin_protocol.identity import certificates_from_pem
from fedtwin_server.coordinator import Home

POLICY = [("when_allowed", "accept"), ("epsilon_lifetime", "100"), ("rounds_largest", "3000")]
LIFE_S = 12.0
ROUNDS = 3000  # more than are waited for
SITES = ("north", "south")
STUDY = "renewal"
PLAN = {
    "study": STUDY,
    "consortium": "demo",
    "title": "Whether a value is raised",
    "purpose": "Shows that a study goes on while certificates are renewed",
    "cohort": {"index": {"codes": ["TEST//index"]}, "holdout_fraction": 0},
    "features": [
        {"name": name, "kind": "number", "codes": [f"TEST//{name}"], "plausible": [-9, 9]}
        for name in ("a", "b")
    ],
    "endpoint": {
        "name": "y",
        "kind": "value_above",
        "codes": ["TEST//y"],
        "threshold": 0.5,
        "horizon_days": 2,
    },
    "model": {"family": "logistic_regression", "l2": 0.03},
    "training": {"rounds": ROUNDS, "learning_rate": 0.1},
    "privacy": {
        "mode": "local",
        "epsilon": 1,
        "delta": 1e-5,
        "clipping_norm": 1,
        "noise_multiplier": 4 * ROUNDS**0.5,
        "cohort_count_noise": 20,
        "hospitals_per_patient": 1,
    },
    "sites": {"quorum": 2, "deadline_s": 60},
}
MAPPING = {
    "name": "test",
    "subject": {"row_number": True},
    "time": {"date": "2020-01-01"},
    "birth": {"age_column": "age"},
    "sex": {"column": "sex", "male": [1], "female": [0]},
    "events": [{"code": "TEST//index"}],
    "columns": {
        "a": {"code": "TEST//a", "unit": "1"},
        "b": {"code": "TEST//b", "unit": "1"},
        "y": {"code": "TEST//y", "unit": "1", "offset_days": 1},
    },
}


def read_records(consortium: LocalConsortium, site: str) -> None:
    chance = random.Random(site)
    table, mapping = consortium.folder / f"{site}.csv", consortium.folder / "mapping.yaml"
    mapping.write_text(yaml.safe_dump(MAPPING))
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["age", "sex", "a", "b", "y"])
        for _ in range(100):
            a, b = chance.gauss(0, 1), chance.gauss(0, 1)
            rows.writerow([60, 1, f"{a:.3f}", f"{b:.3f}", int(a + chance.gauss(0, 1) > 0)])
    home = ("--home", str(consortium.site(site)))
    consortium.run("client", "records", "table", str(table), "--mapping", str(mapping), *home)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalConsortium]:
    """Two nodes with records; a node is started as soon as it is enrolled, for its certificate."""
    with LocalConsortium(folder=tmp_path_factory.mktemp("renewal") / "consortium") as made:
        made.open("--certificate-hours", str(LIFE_S / 3600))
        for site in SITES:
            made.enrol(site, POLICY)
            made.start_site(site)
            read_records(made, site)
        yield made


def identity_of(consortium: LocalConsortium, site: str) -> Credentials:
    return load_credentials(consortium.site(site) / "identity")


def certificate_of_the_coordinator(consortium: LocalConsortium) -> x509.Certificate:
    """What it shows to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("localhost", consortium.port), 5) as plain,
        context.wrap_socket(plain) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown)


def log_of(consortium: LocalConsortium, name: str) -> str:
    return (consortium.folder / f"{name}.log").read_text()


def renewals(consortium: LocalConsortium, site: str) -> int:
    return log_of(consortium, site).count("the certificate was renewed; the link moves to it")


def test_a_study_goes_on_while_every_certificate_is_replaced(
    running: LocalConsortium, wait_until: Callable
) -> None:
    nodes = running.processes[:]
    old = {site: identity_of(running, site) for site in SITES}
    coordinator = certificate_of_the_coordinator(running)
    plan_file = running.folder / "plan.yaml"
    plan_file.write_text(yaml.safe_dump(PLAN))
    home = ("--home", str(running.server))
    running.run("server", "studies", "add", str(plan_file), *home, *running.keys)
    store = Home(folder=running.server).store()

    def rounds_closed() -> int:
        return len(store.rounds(STUDY))

    wait_until(lambda: rounds_closed() >= 20, 60, "the study's first rounds")
    begun = {site: renewals(running, site) for site in SITES}
    for site in SITES:
        wait_until(lambda site=site: renewals(running, site) > begun[site], 60, "a renewal")
    goal = rounds_closed() + 20
    wait_until(lambda: rounds_closed() >= goal, 60, "rounds after the renewals")
    record, rounds, journal = store.study(STUDY), store.rounds(STUDY), store.journal(STUDY)
    running.run("server", "studies", "stop", STUDY, *home)
    store.close()

    assert (record.status, record.reason) == ("running", "")
    assert [item.round for item in rounds] == list(range(1, len(rounds) + 1))
    assert {tuple(sorted(item.sites)) for item in rounds} == {SITES}
    assert not [event.text for event in journal if "refused" in event.text]
    assert {process.poll() for process in nodes} == {None}
    for site in SITES:
        new = identity_of(running, site)
        assert new.identity.uri == old[site].identity.uri
        assert new.identity.serial != old[site].identity.serial
        assert public_key(new) != public_key(old[site])
        assert (running.site(site) / "identity" / "credentials.pem").stat().st_mode & 0o777 == 0o600
    shown = certificate_of_the_coordinator(running)
    assert shown.serial_number != coordinator.serial_number
    assert shown.public_key() != coordinator.public_key()


def public_key(credentials: Credentials) -> object:
    return certificates_from_pem(credentials.chain_pem)[0].public_key()


def test_a_node_renews_at_two_thirds_of_its_certificate_s_life(
    running: LocalConsortium, wait_until: Callable
) -> None:
    before = identity_of(running, "north")
    wait_until(lambda: identity_of(running, "north") != before, 3 * LIFE_S, "a renewal")
    after = identity_of(running, "north").identity
    made_s = after.not_before.timestamp() - before.identity.not_before.timestamp()
    assert 0.5 * LIFE_S <= made_s < LIFE_S


def test_a_node_that_missed_its_renewal_says_that_it_needs_an_invitation(
    running: LocalConsortium, issue: Callable
) -> None:
    running.enrol("late")
    brief = issue(running.server, "site", "late", lifetime=timedelta(seconds=1))
    save_credentials(running.site("late") / "identity", brief)
    time.sleep(1.1)
    process = running.start_site("late")
    assert process.wait(20) == 2
    said = log_of(running, "late")
    assert "fedtwin: the certificate of spiffe://demo/site/late expired at" in said
    assert "enrol again with a new invitation" in said
    assert "Traceback" not in said
