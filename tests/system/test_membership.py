"""Joining, being revoked, coming back, running twice: real processes, what each side says."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_protocol.canonical import sha256_hex
from fedtwin_protocol.channel import grpc, method, open_channel
from fedtwin_protocol.credentials import load_credentials, new_key_and_request
from fedtwin_protocol.invitation import Invitation, read_invitation
from fedtwin_protocol.v1 import exchange_pb2 as pb

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalConsortium]:
    with LocalConsortium(folder=tmp_path_factory.mktemp("members") / "consortium") as made:
        made.open()
        yield made


def log_of(consortium: LocalConsortium, name: str = "coordinator") -> str:
    return (consortium.folder / f"{name}.log").read_text()


def invite(consortium: LocalConsortium, name: str) -> tuple[Path, Invitation]:
    path = consortium.folder / f"{name}.invitation"
    consortium.run("server", "invite", name, "--home", str(consortium.server), "--out", str(path))
    return path, read_invitation(path, datetime.now(UTC))


def refused(*words: str) -> str:
    """Type a command that must fail with one sentence; returns the sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "fedtwin.main", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("fedtwin: ")]
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return sentence


class TestInvitations:
    def test_used_twice_is_refused_with_a_sentence_on_both_sides(
        self, running: LocalConsortium
    ) -> None:
        path, _ = invite(running, "twice")
        words = ("client", "enrol", "--invitation", str(path), "--home")
        running.run(*words, str(running.site("twice")))
        sentence = refused(*words, str(running.site("thief")))
        assert re.search("refused the invitation: the invitation was used already, at 2", sentence)
        assert not (running.site("thief") / "identity" / "credentials.pem").exists()
        assert "refused spiffe://demo/invited/site/twice: the invitation was used" in log_of(
            running
        )

    def test_neither_secret_nor_id_lies_at_the_coordinator(self, running: LocalConsortium) -> None:
        _, invitation = invite(running, "hidden")
        content = b"".join(
            path.read_bytes() for path in running.server.rglob("*") if path.is_file()
        )
        assert sha256_hex(invitation.invitation_id.encode()).encode() in content
        for secret in (invitation.secret, invitation.invitation_id):
            assert secret.encode() not in content

    def test_of_another_site_is_refused(self, running: LocalConsortium, ask: Callable) -> None:
        """Site B shows site A's invitation id with its own certificate."""
        (_, first), (_, second) = invite(running, "site-a"), invite(running, "site-b")
        code, sentence = enrol(running, ask, second, first.invitation_id)
        assert code == Code.PERMISSION_DENIED
        assert "the invitation was made for another name or role" in sentence
        assert "refused spiffe://demo/invited/site/site-b: the invitation was made" in log_of(
            running
        )

    def test_five_guesses_lock_it(self, running: LocalConsortium, ask: Callable) -> None:
        _, invitation = invite(running, "guessed")
        for guess in range(5):
            code, sentence = enrol(running, ask, invitation, f"{guess:064x}")
            assert (code, "unknown here" in sentence) == (Code.PERMISSION_DENIED, True)
        _, sentence = enrol(running, ask, invitation, invitation.invitation_id)
        assert "the invitation is locked after 5 failed tries: ask for a new" in sentence

    def test_files_with_keys_are_for_their_owner_only(self, running: LocalConsortium) -> None:
        running.enrol("tidy")
        found = {
            str(path.relative_to(running.folder)): path.stat().st_mode & 0o777
            for path in running.folder.rglob("*")
            if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
        }
        assert "tidy/identity/credentials.pem" in found
        assert "coordinator/authority/credentials.pem" in found
        assert set(found.values()) == {0o600}

    def test_a_key_file_open_to_others_is_not_used(self, running: LocalConsortium) -> None:
        running.enrol("open-door")
        path = running.site("open-door") / "identity" / "credentials.pem"
        path.chmod(0o644)
        sentence = refused("client", "run", "--home", str(running.site("open-door")))
        assert f"run  chmod 600 {path}" in sentence


def enrol(
    consortium: LocalConsortium, ask: Callable, invitation: Invitation, shown: str
) -> tuple[Code, str]:
    """Ask for a first certificate, showing some invitation id."""
    _, request = new_key_and_request()
    message = pb.EnrolRequest(request=request, software="test", invitation_id=shown)
    credentials = invitation.bootstrap_credentials()
    address = f"localhost:{consortium.port}"
    return ask(address, credentials, "Enrol", message.SerializeToString())


class TestRevocation:
    def test_it_cuts_a_live_stream_within_a_second(
        self, running: LocalConsortium, raw_site: type, ask: Callable
    ) -> None:
        running.enrol("cut")
        running.enrol("kept")
        crl = running.server / "revoked.crl"

        async def hold_and_revoke() -> tuple[float, grpc.aio.AioRpcError]:
            async with raw_site(running, "cut") as site, raw_site(running, "kept") as other:
                await site.greet()
                await other.greet()
                command = await asyncio.create_subprocess_exec(
                    *revoke_command(running, "cut"), stdout=subprocess.DEVNULL
                )
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await site.receive("received")
                cut_at = time.time()
                assert await command.wait() == 0
                await other.send(pb.FromSite(pulse=pb.Pulse()))
                await other.receive("pulse")
                return cut_at - crl.stat().st_mtime, caught.value

        waited_s, error = asyncio.run(hold_and_revoke())
        assert waited_s < 1.0
        assert error.code() == Code.UNAUTHENTICATED
        assert "of spiffe://demo/site/cut was revoked at" in error.details()
        assert re.search(
            "ended the link of spiffe://demo/site/cut: .* was revoked", log_of(running)
        )

    def test_a_node_stays_out_and_a_new_invitation_lets_it_in_again(
        self, running: LocalConsortium, wait_until: Callable
    ) -> None:
        running.enrol("back")
        node = running.start_site("back")
        wait_until(lambda: "link to the coordinator is up" in log_of(running, "back"), 20)
        running.run("server", "revoke", "back", "--home", str(running.server))
        wait_until(lambda: log_of(running, "back").count("refuses this party: the cert") > 1, 20)
        assert node.poll() is None
        assert re.search(
            "revoked 20", running.run("server", "sites", "--home", str(running.server))
        )
        ups = log_of(running).count("the link of site back is up")
        old = (running.site("back") / "identity" / "credentials.pem").read_bytes()
        running.enrol("back")
        wait_until(lambda: log_of(running).count("the link of site back is up") > ups, 60)
        assert (running.site("back") / "identity" / "credentials.pem").read_bytes() != old
        node.terminate()

    def test_expiry_ends_an_open_link(
        self, running: LocalConsortium, raw_site: type, issue: Callable
    ) -> None:
        life = timedelta(seconds=3)
        credentials = issue(running.server, "site", "brief", lifetime=life)

        async def outlive() -> grpc.aio.AioRpcError:
            async with raw_site(running, "brief", credentials) as site:
                await site.greet()
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await site.receive("received")
                return caught.value

        error = asyncio.run(outlive())
        late_s = (datetime.now(UTC) - credentials.identity.not_after).total_seconds()
        assert 0 <= late_s < 2
        assert error.code() == Code.UNAUTHENTICATED
        assert "spiffe://demo/site/brief expired at" in error.details()
        assert "ended the link of spiffe://demo/site/brief: the certificate" in log_of(running)

    def test_a_call_on_an_open_connection_is_refused_after_expiry(
        self, running: LocalConsortium, issue: Callable
    ) -> None:
        """TLS has let the connection in while the certificate held, and does not look again."""
        life = timedelta(seconds=3)
        credentials = issue(running.server, "site", "short", lifetime=life)
        address = f"localhost:{running.port}"

        async def outlive() -> tuple[bytes, grpc.aio.AioRpcError]:
            async with open_channel(address, credentials) as channel:
                call = channel.unary_unary(method("ListReleases"))
                first = await call(b"", timeout=10)
                left_s = (credentials.identity.not_after - datetime.now(UTC)).total_seconds()
                await asyncio.sleep(left_s + 0.2)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(b"", timeout=10)
                return first, caught.value

        first, error = asyncio.run(outlive())
        assert first == b""
        assert error.code() == Code.UNAUTHENTICATED
        assert "spiffe://demo/site/short expired at" in error.details()


def test_a_damaged_list_of_revoked_certificates_lets_nobody_in(
    running: LocalConsortium, raw_site: type, ask: Callable
) -> None:
    """An open link is cut, and a new one refused, until the list is published again."""
    running.enrol("innocent")
    running.enrol("guilty")
    crl, address = running.server / "revoked.crl", f"localhost:{running.port}"
    reason = "nobody is let in, because the list of revoked certificates revoked.crl"

    async def hold_and_damage() -> grpc.aio.AioRpcError:
        async with raw_site(running, "innocent") as site:
            await site.greet()
            crl.write_bytes(crl.read_bytes()[:-1])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await site.receive("received", 5)
            return caught.value

    error = asyncio.run(hold_and_damage())
    assert (error.code(), reason in error.details()) == (Code.UNAUTHENTICATED, True)
    credentials = load_credentials(running.site("innocent") / "identity")
    code, sentence = ask(address, credentials)
    assert (code, reason in sentence) == (Code.UNAUTHENTICATED, True)
    assert re.search(rf"refused ipv\S+: {reason}", log_of(running))
    running.run("server", "revoke", "guilty", "--home", str(running.server))
    assert ask(address, credentials)[0] == Code.OK


def revoke_command(consortium: LocalConsortium, name: str) -> list[str]:
    words = ["server", "revoke", name, "--home", str(consortium.server)]
    return [sys.executable, "-m", "fedtwin.main", *words]


class TestTwice:
    def test_a_second_coordinator_on_one_home_is_refused(self, running: LocalConsortium) -> None:
        sentence = refused("server", "run", "--home", str(running.server))
        assert "another coordinator runs on" in sentence
        assert "two with one identity would answer for each other" in sentence

    def test_a_second_coordinator_on_one_port_is_refused(self, running: LocalConsortium) -> None:
        """A copy of the home, so with the same certificate and the same port."""
        copy = running.folder / "copied-coordinator"
        shutil.copytree(running.server, copy)
        sentence = refused("server", "run", "--home", str(copy))
        assert f"cannot listen on 127.0.0.1:{running.port}: is another program using" in sentence

    def test_a_second_node_on_one_home_is_refused(
        self, running: LocalConsortium, wait_until: Callable
    ) -> None:
        running.enrol("single")
        node = running.start_site("single")
        wait_until(lambda: "link to the coordinator is up" in log_of(running, "single"), 20)
        sentence = refused("client", "run", "--home", str(running.site("single")))
        assert "another node runs on" in sentence
        node.terminate()

    def test_two_nodes_with_one_certificate(
        self, running: LocalConsortium, wait_until: Callable
    ) -> None:
        """A copied folder: the second link replaces the first, and both sides say so."""
        running.enrol("copied")
        first = running.start_site("copied")
        wait_until(lambda: "link to the coordinator is up" in log_of(running, "copied"), 20)
        shutil.copytree(running.site("copied"), running.site("copy"))
        second = running.start_site("copy")
        sentence = "a second link with this site's name replaced the first"
        wait_until(lambda: f"{sentence}: do two nodes run" in log_of(running, "copied"), 20)
        assert f"copied: {sentence}" in log_of(running)
        shown = running.run("server", "sites", "--home", str(running.server))
        assert f"copied: {sentence}" in shown
        for node in (first, second):
            assert node.poll() is None
            node.terminate()
