"""Keys on disk: for their owner only, and never half replaced."""

import stat
from pathlib import Path

import pytest

from fedsci.identity import files
from fedsci.identity.files import replace_pair, replace_private, settle_pair, write_private


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_read_what_is_written(tmp_path):
    write_private(tmp_path / "new" / "a", b"1")
    replace_private(tmp_path / "new" / "a", b"2")
    replace_private(tmp_path / "new" / "b", b"3")
    assert {mode_of(path) for path in (tmp_path / "new").iterdir()} == {0o600}
    assert (mode_of(tmp_path / "new"), (tmp_path / "new" / "a").read_bytes()) == (0o700, b"2")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"a", "b"}


def test_the_first_of_two_writers_counts(tmp_path):
    write_private(tmp_path / "key", b"first")
    write_private(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"


class CrashError(Exception):
    pass


@pytest.mark.parametrize("survived", range(5))
def test_a_crash_leaves_the_old_pair_or_the_new_one(tmp_path, monkeypatch, survived):
    """Four renames replace a pair; the process dies after ``survived`` of them."""
    key, certificate = tmp_path / "site.key", tmp_path / "site.crt"
    replace_pair(key, b"old key", certificate, b"old certificate")
    done, rename = 0, Path.replace

    def replace(self, target):
        nonlocal done
        if done == survived:
            raise CrashError
        done += 1
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "replace", replace)
        try:
            replace_pair(key, b"new key", certificate, b"new certificate")
        except CrashError:
            assert survived < 4
        else:
            assert survived == 4
    settle_pair(key, certificate)
    age = b"old" if survived < 2 else b"new"
    assert (key.read_bytes(), certificate.read_bytes()) == (age + b" key", age + b" certificate")
    replace_pair(key, b"newer key", certificate, b"newer certificate")
    assert (key.read_bytes(), certificate.read_bytes()) == (b"newer key", b"newer certificate")
