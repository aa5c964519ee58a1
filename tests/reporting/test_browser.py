"""The report in a real Chromium: nothing is asked of a network, nothing goes wrong, all can be seen and read."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fedsci_test_chromium import Browser, running
from fedsci_test_logged import add_log
from fedsci_test_pages import SUMMARY, written

from fedsci.errors import VerificationFailed
from fedsci.reporting import write_report
from fedsci.reporting.verify import verify_run

VIEWS = ("coordinator", "officer", "operator")
ROOT = Path(__file__).parents[2]
# texts of a plot that reach beyond it, or lie on each other by more than a hair
UNREADABLE = """
[...document.querySelectorAll('svg')].filter(svg => svg.getClientRects().length).flatMap(svg => {
  const frame = svg.getBoundingClientRect(), found = [];
  const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  texts.forEach(([words, box], index) => {
    const across = box.left < frame.left - 1 || box.right > frame.right + 1;
    if (across || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
      found.push('cut off: ' + words);
    texts.slice(index + 1).forEach(([others, other]) => {
      const wide = Math.min(box.right, other.right) - Math.max(box.left, other.left);
      const tall = Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top);
      if (wide > 2 && tall > 4) found.push(words + ' on ' + others);
    });
  });
  return found;
})
"""
SEEN = "[...document.querySelectorAll('.view')].filter(each => each.getClientRects().length).map(each => each.id)"
LONG = "a-hospital-with-a-name-that-is-as-long-as-names-may-be-01"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports: of real runs with and without privacy, and of written ones: logged, spoilt, with long names."""
    out = tmp_path_factory.mktemp("runs")
    study = ROOT / "examples" / "breast_cancer" / "study.yaml"
    command = [
        sys.executable,
        "-m",
        "fedsci.cli.main",
        "run",
        str(study),
        "--out",
        str(out),
        "--state",
        str(out / "state"),
    ]
    for more in (["--set", "privacy.mechanism=none", "--weather", "uneven"], []):
        done = subprocess.run(
            [*command, "--quiet", "--set", "training.rounds=5", *more], check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    weather, private = sorted(path for path in out.iterdir() if (path / "summary.json").exists())
    logged = add_log(written(out / "logged"))
    spoilt = add_log(written(out / "spoilt"))
    found = {
        "weather": weather,
        "private": private,
        "logged": logged,
        "spoilt": spoilt,
        "names": long_names(out / "names"),
    }

    def judge(run: Path) -> None:
        """The made-up logs are signed by nobody; real ones are verified."""
        if run == spoilt:
            raise VerificationFailed("summary.json: digest: it is another file", file="summary.json", field="digest")
        if run not in (logged, found["names"]):
            verify_run(run)

    return {name: write_report(run, verified=judge) for name, run in found.items()}


def long_names(folder: Path) -> Path:
    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): renamed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [renamed(each) for each in value]
        return LONG if value == "lab-02" else value

    summary = renamed(SUMMARY)
    summary["secure_aggregation"]["dropped"] = [[LONG, number] for number in range(1, 4)]
    summary["secure_aggregation"]["dropped_because"] = ["late: no answer within 60 s" + " and more" * 20] * 3
    return written(folder, summary=summary)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("name", ["weather", "private", "logged", "spoilt", "names"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_view_is_whole_quiet_and_within_the_window(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, name: str, width: int, dark: bool
) -> None:
    browser.said.clear()
    browser.asked.clear()
    for view in VIEWS:
        browser.show(pages[name], view=view, width=width, dark=dark)
        assert browser.run(SEEN) == [view]
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(UNREADABLE) == []
        shot = tmp_path / f"{name}-{view}-{width}.png"
        browser.screenshot(shot)
        assert shot.stat().st_size > 10_000
    assert browser.said == []
    assert {address.partition("#")[0] for address in browser.asked} <= {pages[name].as_uri(), "about:blank"}


def test_a_click_on_a_tab_shows_its_view_and_one_on_a_lab_that_lab_alone(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.show(pages["private"])
    assert browser.run(SEEN) == ["coordinator"]
    for view in reversed(VIEWS):
        browser.run(f"document.querySelector('.tabs a[href=\"#{view}\"]').click()")
        browser.wait(f"location.hash === '#{view}'")
        assert browser.run(SEEN) == [view]
    labs = "[...document.querySelectorAll('.lab')].filter(each => each.getClientRects().length).map(each => each.id)"
    browser.show(pages["private"], view="operator")
    assert browser.run(labs) == []
    browser.run("document.querySelector('.all-labs a[href=\"#lab-lab-03\"]').click()")
    browser.wait("location.hash === '#lab-lab-03'")
    assert browser.run(SEEN) == ["operator"]
    assert browser.run(labs) == ["lab-lab-03"]


def test_print_shows_every_view_and_every_lab(browser: Browser, pages: dict[str, Path]) -> None:
    browser.show(pages["private"])
    browser.medium("print")
    assert browser.run(SEEN) == list(VIEWS)
    assert browser.run("[...document.querySelectorAll('.lab')].every(each => each.getClientRects().length)")
    assert browser.run("document.querySelector('.tabs').getClientRects().length") == 0
    browser.medium("")


def test_the_banner_is_red_and_a_page_that_asked_a_network_would_be_noticed(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    browser.show(pages["spoilt"], dark=True)
    assert browser.run("getComputedStyle(document.querySelector('.banner')).backgroundColor") == "rgb(163, 22, 29)"
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><img src="http://example.invalid/x.png"><p style="width: 5000px">wide</p>'
        '<svg width="90" height="20"><text y="15">far too long for it</text><text y="15">and another</text></svg>'
    )
    browser.asked.clear()
    browser.said.clear()
    browser.show(bad)
    assert "http://example.invalid/x.png" in browser.asked
    browser.wait("document.images[0].complete")
    assert browser.run("document.documentElement.scrollWidth") > 1280
    assert browser.said
    assert {"cut off: far too long for it", "far too long for it on and another"} <= set(browser.run(UNREADABLE))
