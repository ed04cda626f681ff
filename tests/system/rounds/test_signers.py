"""A signer's key is replaced while the sites are linked; they follow without a new invitation."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedtwin.demo.consortium import SIGNERS, LocalConsortium
from fedtwin_protocol.errors import ConfigurationError, SignatureError
from fedtwin_server.consortium import add_study
from fedtwin_server.coordinator import Home


@pytest.fixture
def others(
    new_hospitals: type, consortium: LocalConsortium, wait_until: Callable[..., None]
) -> Any:
    """Two hospitals, which accept what their policy allows."""
    made = new_hospitals(consortium, wait_until)
    for name in ("aal", "bergen"):
        made.admit(name, 80, ("epsilon_lifetime", "100"))
    made.start("aal", "bergen")
    yield made
    made.store.close()


def test_sites_follow_a_replaced_signer_and_nobody_else(others: Any) -> None:
    consortium, folder = others.consortium, others.consortium.folder
    home = ("--home", str(consortium.server))
    first, second = (str(consortium.server / "offline" / f"{name}.key") for name in SIGNERS)
    for name in ("aal", "bergen"):
        others.wait_until(lambda n=name: others.site(n).root_version() == 1, 30, "the first root")

    new = str(folder / "third.key")
    made = consortium.run("server", "signers", "key", "third-signer", "--out", new)
    public = made.strip().splitlines()[-1]
    replace = ("server", "signers", "replace", "first-signer", "third-signer", "--public", public)
    assert "more must sign" in consortium.run(*replace, *home, "--key", new)
    assert "1 more must sign" in consortium.run(*replace, *home, "--key", second)
    assert "TUF root 2 is published" in consortium.run(*replace, *home, "--key", first)
    assert "third-signer" in consortium.run("server", "signers", *home)

    for name in ("aal", "bergen"):
        others.wait_until(lambda n=name: others.site(n).root_version() == 2, 40, "the second root")
    plan = others.plan("by-the-new-signers", sites__gathering_s=1)
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    place, now = Home(folder=consortium.server), datetime.now(UTC)
    with pytest.raises(SignatureError, match="found 1"):
        add_study(place, file, [Path(first), Path(second)], None, now)
    add_study(place, file, [Path(second), Path(new)], None, now)
    others.wait_end("by-the-new-signers")
    assert others.state("by-the-new-signers") == "finished: "
    with pytest.raises(ConfigurationError, match="is no signer"):
        consortium.run(*replace, *home, "--key", second)
