"""``fedsci``: commands, errors as one line and a hint, exit codes."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from fedsci import __version__
from fedsci.errors import FedsciError

_INTERRUPTED = 130

app = typer.Typer(
    name="fedsci",
    help="Train one scientific model across labs whose data never moves.",
    epilog="Example: fedsci demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedsci {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Train one scientific model across labs whose data never moves."""


def report_error(error: FedsciError) -> None:
    """Print the error as one line, and its hint as a second."""
    sys.stderr.write(f"fedsci: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line and exit with its code: see the table in the README."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    signal.signal(signal.SIGTERM, _interrupt)
    from fedsci.cli import (
        compare,
        coordinator,
        data,
        decide,
        documents,
        privacy,
        redteam,
        run,
        site,
        strategies,
        tune,
        verify,
    )

    groups = (run, decide, tune, compare, documents, verify, data, privacy, redteam, strategies, coordinator, site)
    for commands in groups:
        commands.register(app)
    try:
        code = app(prog_name="fedsci", standalone_mode=False)
    except FedsciError as error:
        report_error(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is not None:  # click's own errors: unknown option, missing argument
            said = usage()
            if said:  # empty where the command's help was shown instead
                first, _, more = said.partition(" Did you mean ")  # two libraries suggest the same
                said = f"{first} Did you mean {more.split(' Did you mean ')[0]}" if more else first
                context = getattr(error, "ctx", None)
                command = context.command_path if context is not None else "fedsci"
                sys.stderr.write(f"fedsci: {said}\nhint: {command} --help\n")
            sys.exit(2)
        _bug(error)
    if code == _INTERRUPTED:
        sys.stderr.write("fedsci: interrupted\n")
    sys.exit(code if isinstance(code, int) else 0)  # typer returns the code of an Exit or a KeyboardInterrupt


def _bug(error: Exception) -> NoReturn:
    import traceback

    if os.environ.get("FEDSCI_DEBUG"):
        traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    name = os.path.basename(where.filename)  # noqa: PTH119
    sys.stderr.write(f"fedsci: internal error: {type(error).__name__}: {error} ({name} line {where.lineno})\n")
    sys.stderr.write("hint: this is a fault in fedsci; FEDSCI_DEBUG=1 shows where\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
