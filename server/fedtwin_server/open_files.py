"""How many connections the coordinator's process may hold at once.

A process starts with the system's soft limit, often 1,024 open files. A thousand connections that
say nothing would use it up, and while they are borne (ten seconds each) no site is let in and no
file can be opened. The hard limit is the administrator's own, and is taken whole.
"""

import logging
import resource

log = logging.getLogger("fedtwin.coordinator")


def take_the_hard_limit() -> None:
    """Raise the soft limit of open files to the hard one; where that fails, say so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.warning(
            "this process may hold %d files and connections and cannot raise that (%s): many "
            "silent connections at once would keep sites out",
            soft,
            error,
        )
