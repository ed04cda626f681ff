"""The loop of every target: seeds, limits on time and memory, and what counts as a fault."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import atheris

from fedtwin_protocol.errors import FedtwinError
from fedtwin_twins.twin.refusals import Refusal

Target = Callable[[bytes], object]


def fuzz(
    targets: Mapping[str, Callable[[Path], Target]], seeds: Mapping[str, Sequence[bytes]]
) -> None:
    """Fuzz one target: the command line says which, how many seconds, and in which folder.

    An input fails that raises anything but a refusal, takes 20 seconds, or 2 GiB of memory.

    Args:
        targets: by name, what makes a target that may write into a folder.
        seeds: of each; the first has to be read as it is.
    """
    name, seconds, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    target = targets[name](folder)
    corpus = folder / "corpus"
    corpus.mkdir()

    def try_one(data: bytes) -> None:
        try:
            target(data)
        except (FedtwinError, Refusal):
            return  # refused, in words

    for number, seed in enumerate(seeds[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
        (try_one if number else target)(seed)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={int(seconds)}",
            "-max_len=8192",
            "-timeout=20",
            "-rss_limit_mb=2048",
            str(corpus),
        ],
        try_one,
    )
    atheris.Fuzz()
