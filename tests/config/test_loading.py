"""Reading YAML: what is refused, and that the message names file, line, key, what was found and what is right."""

import contextlib
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from fedsci.config.loading import near_files, parse, parse_value, read_document
from fedsci.config.strict import Strict
from fedsci.errors import ConfigError


class Inner(Strict):
    rounds: int = 1
    rate: float = 0.5


class Outer(Strict):
    name: str
    training: Inner = Inner()
    items: list[Inner] = Field(default_factory=list)


@pytest.fixture
def load(tmp_path):
    def from_text(text: str | bytes) -> Outer:
        file = tmp_path / "study.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return parse(Outer, read_document(file, kind="study"))

    return from_text


@pytest.fixture
def refusal(load):
    def of(text: str | bytes) -> ConfigError:
        with pytest.raises(ConfigError) as refused:
            load(text)
        assert "\n" not in refused.value.message
        return refused.value

    return of


def test_a_good_file_is_read(load):
    assert load("name: x\ntraining: {rounds: 3}\n").training.rounds == 3


def test_an_unknown_key_names_its_line_and_the_nearest_known_key(refusal):
    error = refusal("name: x\ntraining:\n  rounds: 3\n  roundz: 4\n")
    assert "study.yaml line 4: unknown key 'roundz'" in error.message
    assert error.hint == "did you mean 'rounds'?"


def test_an_unknown_key_near_nothing_lists_the_known_ones(refusal):
    assert refusal("name: x\nqqqq: 1\n").hint == "known keys: name, training, items"


def test_a_missing_key_names_the_key(refusal):
    error = refusal("training: {rounds: 1}\n")
    assert "name is missing" in error.message
    assert error.hint == "add 'name'"


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("name: x\ntraining:\n  rounds: many\n", 3, "training.rounds is 'many'"),
        ("name: x\ntraining:\n  rounds: 1.5\n", 3, "training.rounds is 1.5"),
        ("name: x\ntraining:\n  rate: [1]\n", 3, r"training.rate is [1]"),
        ("name: x\ntraining:\n  rate:\n", 3, "training.rate is empty"),
        ("name: x\ntraining: 7\n", 2, "training is 7"),
        ("name: x\nitems:\n  - rounds: 1\n  - rounds: x\n", 4, "items.1.rounds is 'x'"),
        ("name: {a: 1}\n", 1, "name is a section with keys a"),
        ("name: x\ntraining: {rounds: yes}\n", 2, "training.rounds is True"),
        ("name: x\ntraining: {rounds: '3'}\n", 2, "training.rounds is '3'"),
        ("name: x\ntraining: {rate: no}\n", 2, "training.rate is False"),
        ("name: 3\n", 1, "name is 3"),
        ("name: x\ntraining: {rate: .nan}\n", 2, "training.rate is nan"),
        ("name: x\ntraining: {rate: .inf}\n", 2, "training.rate is inf"),
    ],
)
def test_a_wrong_type_names_line_key_and_what_was_found(refusal, text, line, found):
    error = refusal(text)
    assert f"study.yaml line {line}: {found}" in error.message
    assert error.hint.startswith("it should be")


def test_a_long_value_is_cut(refusal):
    assert len(refusal("name: x\ntraining: {rounds: " + "z" * 500 + "}\n").message) < 300


def test_a_key_written_twice_is_refused(refusal):
    assert "line 3: not valid YAML: key 'name' is written twice" in refusal("name: x\ntraining: {}\nname: y\n").message


def test_aliases_are_refused(refusal):
    assert "line 2: not valid YAML: aliases (*name)" in refusal("name: &n x\ntraining: *n\n").message


def test_an_alias_bomb_costs_nothing(refusal):
    bomb = "a: &a [x]\n" + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert "aliases" in refusal(bomb).message


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!!python/name:os.system", "!mine x"])
def test_tags_run_nothing(refusal, tag):
    assert "not valid YAML" in refusal(f"name: {tag}\n").message


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just text\n", "7\n", "null\n"])
def test_a_file_without_keys_is_refused(refusal, text):
    assert "expected keys and values" in refusal(text).message


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        b"name: \xff\xfe\n",
        b"name: \x00\n",
        b"name: [1, 2\n",
        b"name: 'x\n",
        b"\t- x",
        b"name: 2024-13-45\n",
        b"--- {name: x}\n--- {name: y}\n",
        b"? [a, b]\n: c\n",
        b"? {a: b}\n: c\n",
        b"name: !!timestamp x\n",
        b"name: !!bool x\n",
        b"name: !!int x\n",
        b"name: !!int ''\n",
        b"name: !!float x\n",
        b"name: " + b"[" * 5000,
        b"name: " + b"9" * 5000,
        b"%YAML 9.9\n---\nname: x\n",
    ],
)
def test_what_is_not_yaml_is_refused_in_one_line(refusal, text):
    assert "study.yaml" in refusal(text).message


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.binary(max_size=60) | st.text("[]{}:,-?!&*#|>'\"% \nabe01.~<=", max_size=40).map(str.encode))
@example(b"<<: 1")
@example(b"=: 1")
@example(b"name: =")
@example(b"!!set {a, b}")
@example(b"!!omap [1]")
@example(b"!!binary x")
@example(b"!!pairs [1]")
def test_whatever_a_file_holds_only_a_config_error_comes_out(load, text):
    with contextlib.suppress(ConfigError):
        load(text)


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "study.yaml").write_text("x: 1")
    with pytest.raises(ConfigError, match="does not exist") as refused:
        read_document(tmp_path / "studdy.yaml", kind="study")
    assert refused.value.hint == f"did you mean {tmp_path / 'study.yaml'}?"


def test_a_missing_file_in_a_missing_folder_says_so(tmp_path):
    assert near_files(tmp_path / "no" / "x.yaml") == f"the folder {tmp_path / 'no'} does not exist"


def test_a_missing_file_lists_what_the_folder_holds(tmp_path):
    (tmp_path / "qqq.txt").write_text("")
    assert near_files(tmp_path / "study.yaml") == f"{tmp_path} holds qqq.txt"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="is a folder, not a site file"):
        read_document(tmp_path, kind="site")


def test_a_huge_file_is_refused(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        read_document(file, kind="study")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("name: x")
    file.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(file, kind="study")


def test_a_path_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read|does not exist"):
        read_document(tmp_path / "a\0b.yaml", kind="study")


def test_lines_are_known_for_sections_lists_and_values(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a:\n  b:\n    - c: 1\n    - c: 2\n")
    document = read_document(file, kind="study")
    assert document.line_of(["a", "b", 1, "c"]) == 4
    assert document.line_of(["a", "nothing"]) == 1
    assert document.line_of(["nothing"]) is None


@pytest.mark.parametrize(("text", "number"), [("1e-5", 1e-5), ("1E9", 1e9), ("-2.e+3", -2000.0), ("1.0e-5", 1e-5)])
def test_numbers_are_numbers_however_their_exponent_is_written(text, number):
    assert parse_value(text) == number


def test_texts_with_an_e_stay_texts():
    assert parse_value("1e") == "1e"
    assert parse_value("e5") == "e5"
