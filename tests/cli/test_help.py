"""Help that shows how: every command has an example, and every example is a command that exists."""

import shlex
import sys

import pytest
import typer.main

app = sys.modules["fedsci.cli.main"].app


def commands(command, path=()):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


@pytest.fixture
def program(fedsci):
    """All commands by path; they are added when the program starts."""
    assert fedsci("--help").code == 0
    return typer.main.get_command(app)


@pytest.mark.slow
def test_every_command_shows_an_example(fedsci, program):
    for path, _ in commands(program):
        outcome = fedsci(*path, "--help")
        assert (outcome.code, outcome.err) == (0, ""), path
        assert "Example: fedsci " in outcome.out, path
        assert "\n Usage: " in outcome.out, path


def test_every_example_parses(program):
    for path, command in commands(program):
        words = shlex.split(command.epilog.partition("Example: fedsci ")[2])
        group = program
        while getattr(group, "commands", None):
            name = words.pop(0)
            assert name in group.commands, path
            group = group.commands[name]
        if words != ["--help"]:
            group.make_context(name, words)


@pytest.mark.parametrize("path", [(), ("data",), ("strategy",), ("coordinator",), ("site",)], ids=" ".join)
def test_a_bare_group_shows_its_help_and_no_error(fedsci, path):
    outcome = fedsci(*path)
    assert outcome.code == 2
    assert outcome.err == ""
    assert "Usage: fedsci" in outcome.out
