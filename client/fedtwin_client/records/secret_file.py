"""A secret in a file: a password, or the token that senders show."""

import os
import stat
from pathlib import Path

from fedtwin_protocol.errors import ConfigurationError

_LONGEST = 4096


def read_secret(path: Path, what: str) -> str:
    """The one line of a file that nobody else can read.

    Args:
        path: of the file.
        what: it holds, for messages.

    Raises:
        ConfigurationError: it cannot be read, others can read it, or it holds no line of text.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {what} in {path}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigurationError(f"others can read {what} in {path}: run 'chmod 600 {path}'")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > _LONGEST or not text.isprintable():
        raise ConfigurationError(f"expected one line of text as {what} in {path}")
    return text
