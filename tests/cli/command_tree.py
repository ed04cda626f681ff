"""The real command tree, and whether a written line fits it."""

import re
import shlex
from collections.abc import Iterator
from importlib import import_module

import click
import typer.main

from fedtwin.main import PARTIES, build

_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*(\.\w+)?|…|\.\.\.|\|")


def party(name: str) -> click.Command:
    """`fedtwin NAME` with everything below it."""
    root = typer.main.get_command(build([name]))
    assert isinstance(root, click.Group)
    return root.commands[name]


def everything() -> Iterator[tuple[str, click.Command]]:
    """Every command and group, by what is typed."""
    for name in PARTIES:
        import_module(PARTIES[name][0])
        yield from _below(f"fedtwin {name}", party(name))


def _below(typed: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield typed, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _below(f"{typed} {name}", inner)


def faults(line: str, *, whole: bool) -> list[str]:
    """What is wrong with a line that begins with `fedtwin`.

    Args:
        line: as it stands in a text; words in capitals and `…` stand for something.
        whole: it is meant to be typed as it is, so that nothing required may be absent.
    """
    words = shlex.split(line.partition(" #")[0])[1:]
    if not words or words[0] not in PARTIES:
        return [] if words in (["--help"], []) else [f"no party '{' '.join(words[:1])}'"]
    command, rest = party(words[0]), words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        if rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        elif _PLACEHOLDER.fullmatch(rest[0]):
            return []
        else:
            return [f"'{command.name}' has no command '{rest[0]}'"]
    return _fit(command, rest, whole=whole)


def _fit(command: click.Command, words: list[str], *, whole: bool) -> list[str]:
    options = {
        name: one
        for one in command.params
        if isinstance(one, click.Option)
        for name in (*one.opts, *one.secondary_opts)
    }
    places = [one for one in command.params if isinstance(one, click.Argument)]
    found, given, seen = [], 0, set()
    rest = [word for word in words if word not in {"…", "..."}]
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            given += 1
        elif word == "--help":
            return []
        elif word not in options:
            found.append(f"'{command.name}' has no option {word}")
        else:
            seen.add(options[word].name)
            if not options[word].is_flag and rest:
                rest.pop(0)
            elif not options[word].is_flag and whole:
                found.append(f"{word} of '{command.name}' needs a value")
    most = sum(1000 if one.nargs == -1 else one.nargs for one in places)
    if given > most:
        found.append(f"'{command.name}' takes {most} words, given {given}")
    if whole and len(words) == len([w for w in words if w not in {"…", "..."}]):
        found += _absent(command, places, given, seen)
    return found


def _absent(
    command: click.Command, places: list[click.Argument], given: int, seen: set[str | None]
) -> list[str]:
    needed = [one.name for one in places if one.required][given:]
    needed += [
        one.name
        for one in command.params
        if isinstance(one, click.Option) and one.required and one.name not in seen
    ]
    return [f"'{command.name}' lacks {name}" for name in needed]
