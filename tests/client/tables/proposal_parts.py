"""What tests of proposed mappings share: tables that are drawn, and what is proposed for them."""

import random
from collections.abc import Callable
from pathlib import Path

from fedtwin_client.records.tables.proposals.proposing import Proposal, propose
from fedtwin_client.records.tables.proposals.sniffing import read_start


def lines_of(header: str, row: Callable[[random.Random, int], str], count: int = 120) -> str:
    """A table of made-up patients; the same at every run."""
    drawn = random.Random(7)
    return "\n".join([header, *(row(drawn, number) for number in range(count))]) + "\n"


def proposed(folder: Path, text: str | bytes, name: str = "visits.csv") -> Proposal:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    return propose(read_start(folder / name))
