"""Why a TLS handshake was refused, in our log: grpcio tells it only to its own.

The library's core writes handshake failures to standard error, in its own words. That stream is
read here: such lines become sentences of ours, everything else passes through unchanged.
"""

import logging
import os
import re
import sys
import threading
from typing import Final

from fedtwin_protocol.refusals import cause_of

log = logging.getLogger("fedtwin.handshake")
_FAILURE: Final = re.compile(r"[Hh]andshake (failed|error)|HANDSHAKE")


def sentence_for(line: str) -> str | None:
    """Our sentence for a line of the core's log, if it tells of a failed handshake."""
    if not _FAILURE.search(line):
        return None
    cause = cause_of(line)
    reason = line.strip()[-200:] if cause is None else cause.caller
    return f"refused a connection while it was set up: {reason}"


def translate_handshake_failures() -> None:
    """Read the core's log from now on; GRPC_VERBOSITY must be INFO since before grpc's import.

    Only what the core writes goes through the pipe. Python's own last words, such as the sentence
    with which a command fails, are written directly: a pipe would be read too late for them.
    """
    reader, writer = os.pipe()
    true_error = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    sys.stderr = os.fdopen(true_error, "w", buffering=1, closefd=False)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    threading.Thread(target=_pass_on, args=(reader, true_error), daemon=True).start()


def _pass_on(reader: int, true_error: int) -> None:
    with os.fdopen(reader, "rb") as stream:
        for data in stream:
            line = data.decode("utf-8", "replace")
            sentence = sentence_for(line)
            if sentence is not None:
                log.warning(sentence)
            elif not _core_chatter(line):
                os.write(true_error, data)


def _core_chatter(line: str) -> bool:
    return bool(re.match(r"[IW]\d{4} ", line)) or line.startswith("WARNING: All log messages")
