# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/performance.md says what docs/performance.json holds, and judges it rightly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REPORT = ROOT / "bench" / "report.py"


@pytest.fixture
def directory(tmp_path):
    for name in "performance.json", "performance.md", "performance.svg":
        shutil.copy(DOCS / name, tmp_path)
    return tmp_path


def render(directory):
    subprocess.run([sys.executable, REPORT, directory], check=True)


def verdict(directory, what):
    """The cells of the row of one target."""
    return next(line for line in (directory / "performance.md").read_text().splitlines() if line.startswith(f"| {what}")).split(" | ")


def change(directory, act):
    path = directory / "performance.json"
    data = json.loads(path.read_text())
    act(data)
    path.write_text(json.dumps(data))


def test_page_and_plot_are_what_was_measured(directory):
    render(directory)
    for name in "performance.md", "performance.svg":
        assert (directory / name).read_text() == (DOCS / name).read_text(), f"{name} is not what bench/report.py makes of performance.json"


def test_what_is_written_by_hand_stays(directory):
    page = directory / "performance.md"
    page.write_text(page.read_text().replace("<!-- by hand: begin -->\n", "<!-- by hand: begin -->\nWords of mine.\n"))
    render(directory)
    assert "\nWords of mine.\n" in page.read_text()


@pytest.mark.parametrize(("factor", "found", "said"), [(9, "9 ×", "reached"), (7, "7 ×", "**not reached**")])
def test_a_target_is_judged_by_the_figures(directory, factor, found, said):
    def act(data):
        idle = data["memory"]["idle"]
        idle["tutorial"]["mb"] = factor * idle["ours"]["mb"]

    change(directory, act)
    render(directory)
    assert verdict(directory, "memory of the service, idle")[2:] == [found, f"{said} |"]


def test_the_worst_case_decides(directory):
    def act(data):
        for cell in data["cells"]:
            if (cell["call"], cell["clients"]) == ("get experiment", 32):
                for ours, theirs in zip(cell["rounds"]["ours"], cell["rounds"]["tutorial"], strict=True):
                    ours.update(requests=theirs["requests"], seconds=theirs["seconds"])

    change(directory, act)
    render(directory)
    row = verdict(directory, "requests per second, get experiment")
    assert row[2].endswith(" / 1 ×") and row[3] == "**not reached** |"


def test_cpu_is_that_of_one_request(directory):
    def act(data):
        for cell in data["cells"]:
            if cell["call"] == "create run":
                for name, requests in ("ours", 1000), ("tutorial", 250):
                    for result in cell["rounds"].get(name, []):
                        result.update(requests=requests, cpu=2)

    change(directory, act)
    render(directory)
    assert verdict(directory, "CPU per request, create run")[2:] == ["0.25 / 0.25 ×", "reached |"]


def test_the_median_of_the_rounds_counts(directory):
    def act(data):
        data["artifacts"]["ours"]["large up"] = [{"seconds": seconds, "bytes": 0} for seconds in (1, 2, 90)]
        data["artifacts"]["tutorial"]["large up"] = [{"seconds": seconds, "bytes": 0} for seconds in (8, 1, 30)]

    change(directory, act)
    render(directory)
    assert verdict(directory, "upload of the large file")[2:] == ["4 ×", "reached |"]
