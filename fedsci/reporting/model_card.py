"""``model_card.md``: what a released model is, for whom, and how good (Mitchell et al. 2019), as model hubs read it.

The card's YAML front matter holds every figure; the text says the same in words. A check works both out again from the
run folder and names the first field that differs, so a card with a better metric is found.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import yaml

from fedsci.audit.statement import open_statement, peek, sign_statement
from fedsci.config.loading import NOT_YAML, parse_value
from fedsci.errors import InputError, VerificationFailed
from fedsci.names import Digest, digest
from fedsci.reporting.agreement import first_difference, first_line
from fedsci.reporting.card_facts import card_values, licence_of
from fedsci.reporting.card_text import card_text
from fedsci.reporting.run_folder import count, mapping
from fedsci.reporting.whole_file import write_whole
from fedsci.secagg.keys import SigningKey

CARD, SIGNATURE = "model_card.md", "model_card.sig.json"
KIND = "model_card"
_TASKS = {
    "binary": "tabular-classification",
    "multiclass": "tabular-classification",
    "regression": "tabular-regression",
}


def write_model_card(folder: Path, *, signer: SigningKey | None = None) -> Digest:
    """Write the card of the run in ``folder``, sign it if there is a ``signer``, and return its digest.

    The same files give the same card; one that is written again stands on the checkpoint that it stood on before.

    Raises:
        InputError: a part could not be stated truthfully, a signature of another card is there, or the disk is full.
    """
    values = card_values(folder, log_size=_log_size(folder))
    content = render_card(values)
    sidecar, about = folder / SIGNATURE, _about(values, content)
    if signer is None and sidecar.exists() and _signed(sidecar) != about:
        raise InputError(f"{sidecar} is of another card than this run's", hint="restore the folder, or remove the file")
    try:
        write_whole(folder / CARD, content)
        if signer is not None:
            write_whole(sidecar, sign_statement(KIND, about, [signer]).decode())
    except OSError as error:
        raise InputError(f"cannot write {folder / CARD}: {error.strerror}", hint="check the folder's rights") from None
    return digest(content.encode())


def render_card(values: dict[str, Any]) -> str:
    """Return the card as text."""
    front = yaml.safe_dump(
        front_matter(values), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    return f"---\n{front}---\n\n{card_text(values)}"


def front_matter(values: dict[str, Any]) -> dict[str, Any]:
    """Return what model hubs read, and below ``fedsci`` every figure."""
    results, licence, task = values["results"], licence_of(values), values["model"]["task"]
    arrays = any("shape" in column for column in values["data"]["columns"].values())
    kind = "image-classification" if arrays and task != "regression" else _TASKS[task]
    figures = results["overall"].get("federated", {})
    records = sorted({lab["record"] for lab in values["data"]["labs"].values() if lab["record"]})
    tags = ["federated-learning", values["training"]["strategy"]]
    tags += ["secure-aggregation"] if values["secure_aggregation"]["enabled"] else []
    tags += ["differential-privacy"] if values["privacy"]["mechanism"] != "none" else []
    front: dict[str, Any] = {"library_name": "fedsci", "pipeline_tag": kind, "tags": tags}
    if licence:
        front["license"] = licence.lower()
    if records:
        front["datasets"] = records
    front["metrics"] = list(figures)
    if figures:
        dataset = {
            "type": values["data"]["name"],
            "name": f"{values['data']['name']} at {values['training']['labs']} labs",
        }
        measured = [{"type": name, "value": figure["value"]} for name, figure in figures.items()]
        result = {"task": {"type": kind}, "dataset": dataset, "metrics": measured}
        front["model-index"] = [{"name": values["study"], "results": [result]}]
    return {**front, "fedsci": values}


def check_model_card(folder: Path, *, key: bytes | None = None) -> Digest:
    """Return the card's digest if every figure and word of it follows from the run's files.

    Args:
        folder: the run folder.
        key: the coordinator's public key; the card must then be signed by it. Without, a signature that is there must
            be of this card, and whose it is stays open.

    Raises:
        VerificationFailed: names the card or its signature, and the first field that differs.
    """
    card = folder / CARD
    try:
        content = card.read_bytes().decode()
    except (OSError, ValueError):
        raise VerificationFailed(f"{card} is missing or no text", file=CARD) from None
    try:
        values = card_values(folder, log_size=_log_size(folder))
    except InputError as error:
        raise VerificationFailed(
            f"{card} cannot be held against its run: {error.message}", hint=error.hint, file=CARD
        ) from None
    right = render_card(values)
    line = first_line(content, right)
    if line is not None:
        field, what = _what_differs(content, values, line)
        raise VerificationFailed(f"{card}: {what}", hint="fedsci model-card writes it again", file=CARD, field=field)
    _check_signature(folder, _about(values, content), key)
    return digest(content.encode())


def _what_differs(content: str, values: dict[str, Any], line: int) -> tuple[str, str]:
    """Return the first field that differs, and how."""
    found = _front(content)
    difference = None if found is None else first_difference(found, front_matter(values))
    if difference is None:
        lines = render_card(values).split("\n")
        heading = next((each for each in reversed(lines[:line]) if each.startswith("#")), "its front matter")
        where = f"line {line} ({heading.strip('# ')})"
        return where, f"{where} is not what the run's files say"
    return difference.field, str(difference)


def _front(content: str) -> Any:
    """Return the front matter as it reads; None if it does not."""
    head, _, rest = content.partition("---\n")
    try:
        return None if head else parse_value(rest.split("\n---\n")[0])
    except (yaml.YAMLError, *NOT_YAML):
        return None


def _log_size(folder: Path) -> int | None:
    """Return the size of the checkpoint that the card says it stands on; None if there is no card, or it says none."""
    with contextlib.suppress(OSError, ValueError):
        return count(mapping(_front((folder / CARD).read_bytes().decode()), "fedsci", "log").get("size"))
    return None


def _about(values: dict[str, Any], content: str) -> dict[str, Any]:
    """Return what is signed."""
    return {
        "file": CARD,
        "digest": digest(content.encode()),
        "plan": values["plan"],
        "model": values["model"]["digest"],
    }


def _signed(sidecar: Path) -> Any:
    try:
        return dict(peek(sidecar.read_bytes())[1])
    except (OSError, VerificationFailed):
        return None


def _check_signature(folder: Path, about: dict[str, Any], key: bytes | None) -> None:
    sidecar = folder / SIGNATURE
    if key is None and not sidecar.exists():
        return
    try:
        content = sidecar.read_bytes()
        kind, body = peek(content)
        if key is not None:
            open_statement(KIND, content, [key])
    except OSError:
        raise VerificationFailed(f"{sidecar} is missing: the card is not signed", file=SIGNATURE) from None
    except VerificationFailed as error:
        raise VerificationFailed(f"{sidecar}: {error.message}", file=SIGNATURE) from None
    if kind != KIND:
        raise VerificationFailed(f"{sidecar}: this is a {json.dumps(kind)}, not a {KIND}", file=SIGNATURE)
    difference = first_difference(dict(body), about)
    if difference is not None:
        raise VerificationFailed(f"{sidecar}: {difference}", file=SIGNATURE, field=difference.field)
