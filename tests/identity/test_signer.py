"""A signer's key is one person's: made once, read by its owner, replaced by nobody."""

import pytest

from fedsci.errors import InputError, PolicyRefused
from fedsci.identity.signer import new_signer, read_signer


def test_a_key_is_made_once_and_read_back(tmp_path):
    path = tmp_path / "folder" / "officer.key"
    made = new_signer(path)
    assert read_signer(path).public == made.public
    assert path.stat().st_mode & 0o777 == 0o600
    assert new_signer(tmp_path / "other.key").public != made.public
    with pytest.raises(InputError, match="exists already"):
        new_signer(path)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "officer.key"
    new_signer(path)
    path.chmod(0o640)
    with pytest.raises(PolicyRefused, match="open to other users"):
        read_signer(path)


def test_what_is_no_key_is_refused(tmp_path):
    path = tmp_path / "officer.key"
    with pytest.raises(InputError, match="No such file"):
        read_signer(path)
    path.write_bytes(b"secret")
    path.chmod(0o600)
    with pytest.raises(InputError, match="is not a signer's key"):
        read_signer(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="File exists"):
        new_signer(tmp_path / "file" / "officer.key")
