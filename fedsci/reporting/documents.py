"""All that people read of a finished run, written in one place whatever engine ran it, and checked again."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from fedsci.coordinator.summary import SCALING
from fedsci.errors import FedsciError, InputError, VerificationFailed
from fedsci.reporting.bom import check_bom, write_bom
from fedsci.reporting.card_facts import released_model
from fedsci.reporting.evidence import checked_plan
from fedsci.reporting.model_card import CARD, check_model_card, write_model_card
from fedsci.reporting.report import REPORT, write_report
from fedsci.reporting.run_folder import RunFolder, mapping, read_run_folder, text
from fedsci.reporting.statement import STATEMENT, check_statement, write_statements
from fedsci.secagg.keys import SigningKey
from fedsci.strategies import is_module


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Where they lie; None for what a run does not have.

    Attributes:
        report: for everybody who takes part.
        statement: of a private run: what it promises.
        card: of a run that released a model: what that is. A bill of materials lies beside it.
    """

    report: Path | None = None
    statement: Path | None = None
    card: Path | None = None


def write_documents(folder: Path, *, signer: SigningKey | None = None) -> Documents:
    """Write the report, the privacy statement, the model card and the bill of materials of a run that is over.

    Args:
        folder: the run folder.
        signer: the coordinator's key, which signs the card.

    Raises:
        InputError: one of them could not be made truthfully; those before it are written.
    """
    report = write_report(folder)
    run = read_run_folder(folder)
    private = mapping(run.summary, "privacy").get("mechanism") != "none"
    statement = write_statements(folder) if private else None
    card = write_card_and_bom(folder, signer=signer) if released_model(folder) and not _foreign(run) else None
    return Documents(report=report, statement=statement, card=card)


def documents_of(folder: Path) -> Documents:
    """Return those that are there."""
    report, statement, card = (
        file if file.exists() else None for file in (folder / REPORT, folder / STATEMENT, folder / CARD)
    )
    return Documents(report=report, statement=statement, card=card)


def write_card_and_bom(folder: Path, *, signer: SigningKey | None = None) -> Path:
    """Write the model card and the bill of materials that names it, and return the card's path.

    Raises:
        InputError: one of them could not be made truthfully.
    """
    write_model_card(folder, signer=signer)
    write_bom(folder)
    return folder / CARD


def write_what_there_is(folder: Path) -> None:
    """Write as many of them as a run that failed allows, without a complaint: its own error is the one to show."""
    with contextlib.suppress(FedsciError, OSError):
        write_report(folder)
    with contextlib.suppress(FedsciError, OSError):
        write_statements(folder)
    with contextlib.suppress(FedsciError, OSError):
        if released_model(folder):
            write_card_and_bom(folder)


def check_documents(folder: Path, *, key: bytes | None = None) -> None:
    """Pass if the documents that the run must have are there and say what its files say.

    Args:
        folder: the run folder.
        key: the coordinator's public key, which the card must then be signed by.

    Raises:
        VerificationFailed: names the document and the first field that differs.
    """
    try:
        plan = checked_plan(folder, read_run_folder(folder))
    except InputError as error:
        raise VerificationFailed(error.message, hint=error.hint) from None
    released = released_model(folder)
    if released or (folder / CARD).exists():
        check_model_card(folder, key=key)
        check_bom(folder)
    if plan.private and (released or (folder / STATEMENT).exists()):
        for each in (folder / SCALING, folder):
            if each == folder or each.is_dir():
                check_statement(each)


def _foreign(run: RunFolder) -> bool:
    """Whether the plan's strategy is somebody's own module: reading a run folder imports none, so there is no card."""
    return is_module(text(mapping(run.plan, "strategy").get("name")))
