"""A hostile site against the coordinator: a whole study in which one lab's replies are patched.

The study completes, without the lab where its reply was none, or ends with an error of fedsci's tree; what it leaves
can be read, and what completed verifies.
"""

import json
from base64 import b64decode
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from fedsci.coordinator.admission import read_admission
from fedsci.coordinator.progress import Progress
from fedsci.errors import ConnectionFailed, SiteFailed
from fedsci.names import SiteId
from fedsci.reporting.run_folder import read_run_folder
from fedsci.reporting.verify import verify_run
from fedsci.site.service import SiteService
from fedsci.transport.messages import DTYPES, Reply, Request
from tests.fuzz.engine import Target
from tests.fuzz.world import conduct

_SITE = SiteId("lab-1")
#: What a lab may say of itself in each reply, and what stands there now is what the patch begins from.
_PATCHES: dict[str, tuple[tuple[str, ...], ...]] = {
    "hello": (("site",), ("key",)),
    "prepare": (("records", "train"), ("inputs",), ("advert",), ("key",), ("permit",)),  # others: admission
    "share": (("envelopes",),),
    "train": (("header",), ("metrics",)),
    "unmask": (("answer",),),
    "evaluate": (("own",), ("metrics",)),
    "alone": (("own",),),
    "witness": (("cosignatures",),),
    "finish": (("privacy",), ("spend",)),
}
_VALUES = (None, "\ud800", 1e308, [1e308] * 6, {"\ud800": "\ud800"})


def patched(reply: Reply, patch: Mapping[str, Any]) -> Reply:
    """Return a reply with what a patch puts in it: a field, all fields, an error, or an array."""
    fields = json.loads(json.dumps(dict(reply.fields)))
    path, value = patch.get("path"), patch.get("value")
    if isinstance(path, list) and path:
        inner: Any = fields
        for key in path[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            key = str(path[-1])
            inner[key] = _filled(inner.get(key), patch["fill"]) if "fill" in patch else value
    elif isinstance(value, dict):
        fields = value
    error = patch.get("error")
    return Reply(fields=fields, vector=_vector(reply, patch), error=error if isinstance(error, dict) else reply.error)


def _filled(values: Any, number: Any) -> Any:
    """Return what is there with every number in it replaced."""
    if isinstance(values, list):
        return [_filled(value, number) for value in values]
    if isinstance(values, dict):
        return {name: _filled(value, number) for name, value in values.items()}
    return number if isinstance(values, int | float) else values


def _vector(reply: Reply, patch: Mapping[str, Any]) -> Any:
    said = patch.get("vector")
    if not isinstance(said, dict):
        return reply.vector
    try:
        kind = np.dtype(said["dtype"] if said["dtype"] in DTYPES else "float32")
        array = np.frombuffer(b64decode(said["data"]), kind)
        return array.reshape([int(size) for size in said["shape"]]) if "shape" in said else array
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def study(data: bytes, *, kind: str) -> None:
    """Run a study in which lab-1 answers as the patches say."""
    try:
        patches = json.loads(data)
        assert isinstance(patches, list)
    except (ValueError, RecursionError, AssertionError):
        raise ConnectionFailed("no patches") from None
    at = Counter[str]()

    def handle(service: SiteService, request: Request) -> Reply:
        reply = service.handle(request)
        if service.site.site != _SITE:
            return reply
        number, at[request.action] = at[request.action], at[request.action] + 1
        for patch in patches[:20]:
            if isinstance(patch, dict) and patch.get("action") == request.action and patch.get("nth") in (None, number):
                try:
                    reply = patched(reply, patch)
                except RecursionError:
                    return Reply()
        return reply

    ran = conduct(kind, handle)
    left = read_run_folder(ran.folder)
    assert left.has_summary
    json.dumps(left.summary, allow_nan=False)
    assert (ran.error is None) == (left.summary["status"] == "completed"), left.summary["status"]
    if ran.error is not None:
        raise ran.error
    if kind == "masked":
        verify_run(ran.folder)


def admission(data: bytes) -> None:
    """What a lab says of itself as it lets a study in."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise ConnectionFailed("no fields") from None
    if not isinstance(fields, dict):
        raise ConnectionFailed("no fields")
    said = read_admission(_SITE, fields)
    json.dumps(said.privacy, allow_nan=False)
    bytes.fromhex(said.key)
    for text in (said.schema, said.advert, *said.statements.values()):
        text.encode()
    progress = Progress()
    progress.sites[_SITE] = said


def failure(data: bytes) -> None:
    """The public part of a site's error, as the coordinator shows it to people: one line."""
    try:
        public = json.loads(data)
    except (ValueError, RecursionError):
        raise ConnectionFailed("no error") from None
    if not isinstance(public, dict):
        raise ConnectionFailed("no error")
    error = SiteFailed("lab-1", public)
    assert 1 <= error.exit_code <= 7
    for text in (error.message, error.hint, error.site_code):
        assert text.isprintable(), text
        assert len(text) <= 1100


def _patches(kind: str) -> Mapping[str, bytes]:
    found = {"none": b"[]"}
    for action, paths in _PATCHES.items():
        if kind == "plain" and action in ("share", "unmask", "witness"):
            continue
        found[f"hostile-{action}"] = json.dumps([{"action": action, "path": [], "value": {}}]).encode()
        for number, path in enumerate(paths):
            value = _VALUES[(number + len(action)) % len(_VALUES)]
            patch = {"action": action, "nth": None, "path": list(path), "value": value}
            found[f"hostile-{action}-{'.'.join(path)}"] = json.dumps([patch]).encode()
    for action, name in (("train", "metrics"), ("evaluate", "metrics"), ("evaluate", "own"), ("alone", "own")):
        for fill in (1e308, -5) if kind == "plain" else ():
            patch = {"action": action, "path": [name], "fill": fill}
            found[f"hostile-{action}-{name}-all-{fill}"] = json.dumps([patch]).encode()
    array = {"dtype": "float32", "shape": [3], "data": "AACAfwAAgH8AAIB/"}
    found["hostile-infinite"] = json.dumps([{"action": "train", "vector": array}]).encode()
    error = {"code": "behind", "size": 1, "message": "x"}
    found["hostile-error"] = json.dumps([{"action": "train", "error": error}]).encode()
    return found


def _admissions() -> Mapping[str, bytes]:
    privacy = {"study": 1.0, "total": "inf", "rdp_order": 8, "noise_multiplier": 1.5, "enforced_total": None}
    fields = {"records": {"train": 40, "holdout": 20}, "inputs": 2, "parameters": 3, "schema": "x", "privacy": privacy}
    fields |= {"exact_evaluation": True, "rounds_allowed": 2, "measurements_allowed": 0, "stops": False}
    return {"valid": json.dumps(fields | {"key": "00", "late_key": "", "permit": "{}", "advert": "AAAA"}).encode()}


TARGETS = [
    *(
        Target(
            name=f"replies-{kind}", run=partial(study, kind=kind), seeds=partial(_patches, kind), fresh=True, tries=4
        )
        for kind in ("masked", "plain")
    ),
    Target(name="admission", run=admission, seeds=_admissions, tries=150),
    Target(
        name="site-error",
        run=failure,
        seeds=lambda: {"valid": b'{"code": "input", "exit_code": 2, "message": "no"}'},
        tries=150,
    ),
]
