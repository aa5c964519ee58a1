"""The demonstrations in docs/ do what they say."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "demonstrations"


def test_a_listening_coordinator_opens_flowers_masks_and_not_ours():
    command = [sys.executable, str(FOLDER / "secaggplus_key_search.py"), "--bits", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reduced setting: 6 of 28 seed bits" in done.stdout
    assert "the same search against fedsci   nothing" in done.stdout
