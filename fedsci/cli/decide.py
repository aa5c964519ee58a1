"""``fedsci decide``, ``fedsci signer``: people's decisions at a study's checkpoints, and the keys that sign them."""

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsci.cli.coordinator import HOME, Folder, who
from fedsci.cli.folders import using
from fedsci.errors import InputError

if TYPE_CHECKING:
    from fedsci.coordinator.decisions import Question
    from fedsci.secagg import SigningKey

KeyFile = Annotated[Path, typer.Argument(help="The key's file; only its owner may read it.", metavar="FILE")]
_MOST_HOURS = 24.0 * 31


class Answer(StrEnum):
    """What is decided."""

    approve = "approve"
    refuse = "refuse"


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("decide", epilog="Example: fedsci decide 3 approve --key officer.key")(decide)
    signer = typer.Typer(
        help="Keys that sign decisions at checkpoints.",
        epilog="Example: fedsci signer new officer.key --role privacy_officer",
        no_args_is_help=True,
    )
    signer.callback()(lambda: None)
    signer.command("new", epilog="Example: fedsci signer new officer.key --role privacy_officer")(new)
    signer.command("show", epilog="Example: fedsci signer show officer.key")(show)
    app.add_typer(signer, name="signer")


def decide(
    run: Annotated[
        str,
        typer.Argument(help="A run folder, a run of --dir by number or name, or a request's file.", metavar="RUN"),
    ],
    answer: Annotated[Answer | None, typer.Argument(help="Left out: show what is asked.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="The key of your role.")] = None,
    role: Annotated[str | None, typer.Option("--role", help="Your role; by default the one whose key it is.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Your name, for the record; by default your login.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="For the record; everybody sees it.")] = "",
    hours: Annotated[
        float, typer.Option("--hours", min=0.01, max=_MOST_HOURS, help="How long the run may wait to see it.")
    ] = 72.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the decision there instead of handing it in.")
    ] = None,
    signed: Annotated[Path | None, typer.Option("--signed", help="Hand in a decision that was signed before.")] = None,
    folder: Folder = HOME,
    as_json: Annotated[bool, typer.Option("--json", help="With no answer: print the request as JSON.")] = False,
) -> None:
    """Show what a run waits for at a checkpoint, and approve or refuse it with a signature.

    Who is not at the coordinator's machine gets the request (RUN/decisions/*.request.json), signs it with --out, and
    sends the file back; --signed hands it in.
    """
    from fedsci.coordinator.deciding import hand_in, open_request
    from fedsci.coordinator.decisions import in_words, question_from, sign_decision
    from fedsci.identity.signer import read_signer

    where = _find(run, folder)
    with using(where):
        if signed is not None:
            if answer is not None:
                raise InputError("--signed holds the answer already", hint="leave approve or refuse out")
            decision = hand_in(_folder(where), _read(signed))
            said = "approved" if decision.approved else "refused"
            typer.echo(f"handed in: {decision.name} ({decision.role}) {said} {in_words(decision.checkpoint)}")
            return
        question = question_from(_read(where)) if where.is_file() else open_request(where)
    if answer is None:
        _show(question, where, as_json=as_json)
        return
    if key is None:
        raise InputError("a decision is signed", hint="--key FILE; fedsci signer new FILE makes a key")
    signing = read_signer(key)
    content = sign_decision(
        question.point,
        role=role or _role(question, signing),
        name=name or who(),
        answer=answer.value,
        key=signing,
        now=time.time(),
        reason=reason,
        hours=hours,
    )
    about = f"{'approved' if answer is Answer.approve else 'refused'} {in_words(question.point.checkpoint)}"
    if out is not None:
        with using(out):
            out.write_bytes(content)
        typer.echo(f"{about}, in {out}; next, at the coordinator: fedsci decide RUN --signed {out}")
        return
    with using(where):
        hand_in(_folder(where), content)
    typer.echo(f"{about}; the run sees it within a second, if it still waits")


def new(
    file: KeyFile,
    role: Annotated[str, typer.Option("--role", help="Whom it is for, as in the study's checkpoints.")] = "ROLE",
) -> None:
    """Make a key, and print what a study writes down to let it decide."""
    from fedsci.identity.signer import new_signer

    public = new_signer(file).public.hex()
    typer.echo(f"made {file}: keep it, keep it to yourself, and keep a copy")
    typer.echo(f'in the study file: signers: {{{role}: ["{public}"]}}')


def show(file: KeyFile) -> None:
    """Print a key's public half."""
    from fedsci.identity.signer import read_signer

    typer.echo(read_signer(file).public.hex())


def _find(run: str, folder: Path) -> Path:
    """Return a run folder or a request's file.

    Raises:
        InputError: there is no such run, or it has no folder yet.
    """
    path = Path(run)
    if path.is_file() or (path.is_dir() and (path / "plan.yaml").exists()):
        return path
    if not folder.is_dir():
        raise InputError(f"{run} is no run folder", hint="give a run's own folder, or --dir with the coordinator's")
    from fedsci.coordinator.queue import StudyQueue

    with using(folder):
        state = StudyQueue(folder).find_going(run).state
    if not state.folder:
        raise InputError(f"run {run} has not begun", hint="fedsci coordinator status says what it waits for")
    return Path(state.folder)


def _folder(where: Path) -> Path:
    """Return a run folder, also where its request was named."""
    return where if where.is_dir() else _refuse_loose(where)


def _refuse_loose(request: Path) -> Path:
    run = request.resolve().parent.parent
    if not (run / "plan.yaml").exists():
        raise InputError(f"{request} does not lie in a run folder", hint="write the decision to a file: --out FILE")
    return run


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="name a file that you can read") from None


def _role(question: "Question", key: "SigningKey") -> str:
    """Return the role whose key this is."""
    for role, keys in question.point.signers.items():
        if key.public.hex() in keys:
            return role
    raise InputError(
        f"this key ({key.public.hex()[:16]}…) decides for no role here",
        hint=f"who decides: {', '.join(question.point.signers)}",
    )


def _show(question: "Question", where: Path, *, as_json: bool) -> None:
    from fedsci.cli.progress import pause_lines

    if as_json:
        typer.echo(json.dumps(json.loads(question.to_bytes()), indent=2))
        return
    typer.echo(f"{question.study}, run {question.point.run[:12]}, plan {question.point.plan}")
    for line in pause_lines(question, tuple(question.point.signers), where):
        typer.echo(line)
