"""Reading a YAML file into a model, with errors that name file, line, key, what was found and what is right."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fedsci.errors import ConfigError
from fedsci.names import is_unicode

Model = TypeVar("Model", bound=BaseModel)
Key = str | int

#: What PyYAML's safe loader raises, besides YAMLError, on text like ``!!bool x`` or ``2024-13-45``.
NOT_YAML = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

_MAX_BYTES = 4 * 1024 * 1024
_REMEMBERED_BYTES = 64 * 1024
_YAML_HINT = "look there, and at the line before it, for indentation, brackets and quotes; save it as UTF-8"


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, halves of characters and aliases (which can blow up in size)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if not is_unicode(node.value):
            raise yaml.composer.ComposerError(None, None, "half a character (\\ud800 to \\udfff)", node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is not plain text", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is written twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


# YAML 1.1 reads 1e-5 as a text, since it wants 1.0e-5
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class Document:
    """A parsed YAML file that remembers the line of every key.

    Attributes:
        path: the file, for error messages.
        values: the parsed mapping.
    """

    def __init__(self, path: Path, values: dict[str, Any], root: yaml.Node | None) -> None:
        self.path = path
        self.values = values
        self._root = root

    def line_of(self, keys: Sequence[Key]) -> int | None:
        """Return the 1-based line of the deepest part of ``keys`` that the file holds."""
        node, line = self._root, None
        for key in keys:
            child = None
            if isinstance(node, yaml.MappingNode):
                for key_node, value_node in node.value:
                    if key_node.value == str(key):
                        child, line = value_node, key_node.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                child = node.value[key]
                line = child.start_mark.line + 1
            if child is None:
                break
            node = child
        return line


def near_files(path: Path) -> str:
    """Return a hint naming the file nearest to a missing ``path``, or what the folder holds."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    names = sorted(p.name for p in path.parent.iterdir() if p.is_file())
    by_stem = {Path(name).stem: name for name in names}
    near = get_close_matches(path.stem, by_stem, n=1)
    if near:
        return f"did you mean {path.parent / by_stem[near[0]]}?"
    return f"{path.parent} holds {', '.join(names[:5]) or 'no files'}"


def parse_value(text: str) -> Any:
    """Return one YAML value, as it would be read in a file.

    Raises:
        yaml.YAMLError, or one of :data:`NOT_YAML`: it is not valid YAML.
    """
    loader = _UniqueKeyLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_document(path: Path, *, kind: str) -> Document:
    """Return the parsed file.

    Args:
        path: the file.
        kind: what it should be ("study", "site", "strategy"), for messages.

    Raises:
        ConfigError: it is missing, unreadable, not YAML, or not a mapping.
    """
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder, not a {kind} file",
            hint=f"name the YAML file, e.g. {path / (kind + '.yaml')}",
        )
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{kind} file {path} does not exist", hint=near_files(path)) from None
    except OSError as error:
        raise ConfigError(
            f"{kind} file {path} cannot be read: {error.strerror}", hint="check the file's permissions"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{kind} file {str(path)!r} cannot be read: {error}", hint="check the path") from None
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{path} is larger than 4 MiB", hint=f"is this really a {kind} file?")
    try:
        values, root = _composed(raw) if len(raw) <= _REMEMBERED_BYTES else _composed.__wrapped__(raw)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        problem = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise ConfigError(f"{path}{where}: not valid YAML: {problem}", hint=_YAML_HINT) from None
    except NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}", hint=_YAML_HINT) from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: expected keys and values, found {_describe(values)}",
            hint=f"see the {kind} file in the README",
        )
    return Document(path, deepcopy(values), root)  # whoever reads it may change its own


@lru_cache(maxsize=64)
def _composed(raw: bytes) -> tuple[Any, yaml.Node | None]:
    """Return what a file says, and its nodes: of a study of many labs every file is read again and again."""
    loader = _UniqueKeyLoader(raw)
    try:
        root = loader.get_single_node()
        return loader.construct_document(root) if root is not None else None, root
    finally:
        loader.dispose()


def parse(model: type[Model], document: Document, *, origin: Mapping[tuple[Key, ...], str] | None = None) -> Model:
    """Return ``document`` as ``model``.

    Args:
        model: the pydantic model.
        document: the parsed file.
        origin: for values that did not come from the file (command-line overrides): key path to the
            text that names where it came from.

    Raises:
        ConfigError: names the file, line or key, what was found, and what would be right.
    """
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        raise _explain(error, document, dict(origin or {})) from None


_RIGHT = {
    "model_type": "a section with keys and values",
    "model_attributes_type": "a section with keys and values",
    "dict_type": "a section with keys and values",
    "union_tag_not_found": "a section that says its kind",
    "too_short": "longer: something is needed here",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "string_type": "text",
    "list_type": "a list, like [a, b]",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
}
"""What would be right, where pydantic's own words are about Python."""


def _explain(error: ValidationError, document: Document, origin: dict[tuple[Key, ...], str]) -> ConfigError:
    first = sorted(error.errors(include_url=False), key=lambda e: e["type"] == "missing")[0]
    context = first.get("ctx", {})
    loc = first["loc"]
    if loc == ("scaling",) and "scaling" not in document.values:  # where a study file writes it
        loc = ("features", "scaling")
    keys = _file_keys(loc, document.values)
    if first["type"] == "unknown_key":
        keys = (*keys, str(context["key"]))
        return ConfigError(
            f"{_where(document, keys, origin)}: unknown key {str(context['key'])!r}",
            hint=str(context["right"]),
        )
    dotted = ".".join(str(key) for key in keys) or "the file"
    if first["type"] == "missing":
        return ConfigError(
            f"{_where(document, keys, origin)}: {dotted} is missing",
            hint=f"add {str(keys[-1])!r}" + (f" under {'.'.join(map(str, keys[:-1]))!r}" if keys[:-1] else ""),
        )
    if first["type"] == "union_tag_invalid":
        tag = str(context["discriminator"]).strip("'")
        return ConfigError(
            f"{_where(document, (*keys, tag), origin)}: {dotted}.{tag} is {_describe(context['tag'])}",
            hint=f"it should be one of {context['expected_tags']}",
        )
    text = _RIGHT.get(first["type"], first["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] in ("value_error", "refused"):
        message, _, hint = text.partition(" | ")
        return ConfigError(f"{_where(document, keys, origin)}: {message}", hint=hint)
    return ConfigError(
        f"{_where(document, keys, origin)}: {dotted} is {_describe(first.get('input'))}",
        hint=f"it should be {text}",
    )


def _file_keys(loc: tuple[Key, ...], values: Any) -> tuple[Key, ...]:
    """Drop the parts of a pydantic location that are not keys of the file (tags of unions)."""
    keys: list[Key] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(values, dict) and (part in values or last):
            keys.append(part)
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            keys.append(part)
            values = values[part]
    return tuple(keys)


def _where(document: Document, keys: tuple[Key, ...], origin: dict[tuple[Key, ...], str]) -> str:
    for length in range(len(keys), 0, -1):
        if keys[:length] in origin:
            return origin[keys[:length]]
    line = document.line_of(keys)
    return f"{document.path}" + (f" line {line}" if line else "")


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a section with keys " + ", ".join(map(str, list(value)[:4])) if value else "an empty section"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
