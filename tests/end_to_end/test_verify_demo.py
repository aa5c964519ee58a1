"""``fedsci verify`` on the demonstration's run folder, then on a copy with one byte changed, as README.md shows it."""

import re
import shutil
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.slow
def test_verify_says_what_the_readme_shows_and_finds_the_changed_byte(fedsci):
    good, bad = re.findall(r"^    \$ .venv/bin/fedsci verify .*\n((?:    (?!\$).*\n)+)", README, flags=re.MULTILINE)
    made = fedsci("demo", "--set", "training.rounds=3", "--quiet")
    assert made.code == 0, made.err
    run = fedsci.folder / made.folder
    verified = fedsci("verify", made.folder)
    assert (verified.code, verified.err) == (0, "")
    assert says(verified.out, good), verified.out
    assert "\n  3 rounds: " in verified.out

    changed = fedsci.folder / "changed"
    shutil.copytree(run, changed)
    model = bytearray((changed / "model.safetensors").read_bytes())
    model[-1] ^= 1
    (changed / "model.safetensors").write_bytes(model)
    refused = fedsci("verify", "changed")
    assert says(f"{refused.err}{refused.code}\n", bad), refused.err
    assert (refused.out, refused.code) == ("", 6)
    packed = fedsci("export", "changed", "--out", "changed.zip")
    assert (packed.code, packed.error_line) == (6, refused.error_line)
    assert not (fedsci.folder / "changed.zip").exists()
    assert fedsci("verify", made.folder).code == 0


def says(found, shown):
    """Compare with the README's lines; … is any text in a line."""
    pattern = ".*".join(map(re.escape, re.sub("^    ", "", shown, flags=re.MULTILINE).split("…")))
    return re.fullmatch(pattern, found) is not None
