"""Which features of a plan count as missing here now: light, for the agent and its workers."""

from pathlib import Path

from fedtwin_client.readiness.gates import Block, blocked
from fedtwin_client.readiness.kept import FILE, Kept
from fedtwin_client.readiness.thresholds import FILE as THRESHOLDS
from fedtwin_client.readiness.thresholds import load_thresholds


def blocks(folder: Path, plan_hash: str) -> tuple[Block, ...]:
    """The blocked features of a plan, by the last report, the thresholds and persons' words.

    Args:
        folder: the node's.
        plan_hash: of the plan; a report about another version of it says nothing.

    Raises:
        ConfigurationError: a file is damaged; nothing may be decided without it.
    """
    if not (folder / FILE).exists():
        return ()
    with Kept(folder) as kept:
        report, words = kept.last(plan_hash), kept.words(plan_hash)
    return blocked(report, load_thresholds(folder / THRESHOLDS), words)


def mark(folder: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Changes when a report, a word or a threshold was written."""
    found: list[tuple[int, int, int] | None] = []
    for path in (folder / FILE, folder / THRESHOLDS):
        try:
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_size, state.st_ino))
        except FileNotFoundError:
            found.append(None)
    return tuple(found)
