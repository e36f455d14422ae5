#!/usr/bin/env python
"""Write performance.md and performance.svg from the performance.json that run.py left in the same directory (default: docs).

What stands between the two marks in performance.md is written by hand, and stays.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- by hand: begin -->", "<!-- by hand: end -->"
SMALL_CALLS = ["get experiment", "log metric", "create run"]
GOALS = {"get experiment": 2.5, "log metric": 2, "create run": 1.6, "log batch of 100": 1.3}  # requests per second, times the tutorial's


@dataclass
class Target:
    what: str
    goal: float
    found: list[float]
    unit: str = "×"
    at_most: bool = False

    @property
    def reached(self):
        return all(value <= self.goal if self.at_most else value >= self.goal for value in self.found)

    @property
    def worst(self):
        return max(self.found) if self.at_most else min(self.found)

    def row(self):
        values = " / ".join(f"{number(value)}" for value in self.found)
        sign = "at most" if self.at_most else "at least"
        return [self.what, f"{sign} {number(self.goal)} {self.unit}", f"{values} {self.unit}", "reached" if self.reached else "**not reached**"]


def number(value):
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2}f}".rstrip("0").rstrip(".") if value else "0"


def table(head, *rows):
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell if isinstance(cell, str) else number(cell) for cell in row)} |" for row in cells) + "\n"


class Results:
    def __init__(self, data):
        self.data = data

    def api(self, call, clients, server, key):
        """The median of the rounds of one server: its "rate", "p50", "p95" or "cpu" per request."""
        for cell in self.data["cells"]:
            if (cell["call"], cell["clients"]) == (call, clients) and server in cell["rounds"]:
                found = [{**it, "rate": it["requests"] / it["seconds"], "cpu": it["cpu"] / it["requests"] * 1000} for it in cell["rounds"][server]]
                return statistics.median(it[key] for it in found)
        raise KeyError(f"{call}, {clients} clients: {server} was not measured")

    def counts(self, call):
        return sorted({cell["clients"] for cell in self.data["cells"] if cell["call"] == call and "tutorial" in cell["rounds"]})

    def artifact(self, server, what):
        return statistics.median(result["seconds"] for result in self.data["artifacts"][server][what])

    def assets(self, server):
        return statistics.median(result["seconds"] for result in self.data["assets"][server]) * 1000

    def asset_bytes(self, server):
        return self.data["assets"][server][0]["bytes"]

    def browser(self, server, measure):
        return statistics.median(measure(result) for result in self.data["browser"][server])


def last_asset(result):
    return max(asset["end"] for asset in result["assets"])


def targets(results):
    """The targets as far as this run has measured them."""
    idle = results.data["memory"]["idle"]
    found = [
        Target("memory of the service, idle: times smaller than the tutorial's", 8, [idle["tutorial"]["mb"] / idle["ours"]["mb"]]),
        Target("memory of everything on the host, PostgreSQL and nginx included, idle", 700, [idle["host"]], "MB", at_most=True),
    ]

    def compare(call, clients, key, other="tutorial"):
        ours, theirs = (results.api(call, clients, server, key) for server in ("ours", other))
        return ours / theirs if key in ("rate", "cpu") else theirs / ours

    names = ", ".join(SMALL_CALLS)
    found += [
        Target(f"median latency, one client, of {names}: times lower than the tutorial's", 2, [compare(call, 1, "p50") for call in SMALL_CALLS]),
        Target(f"the same ({names}), against the tutorial's with kept upstream connections", 6, [compare(call, 1, "p50", "keepalive") for call in SMALL_CALLS]),
    ]
    found.append(Target("requests per second behind bcrypt 12, a file of the interface", 500, [compare("static file", 8, "rate", "bcrypt")]))
    for call, goal in GOALS.items():
        counts = [clients for clients in results.counts(call) if clients > 1]
        label = f"{call}, {' and '.join(map(str, counts))} clients"
        found += [
            Target(f"requests per second, {label}", goal, [compare(call, clients, "rate") for clients in counts]),
            Target(f"CPU per request, {label}", 0.5, [compare(call, clients, "cpu") for clients in counts], at_most=True),
        ]
    time_of = results.artifact
    found += [
        Target("download of the large file", 10, [time_of("tutorial", "large down") / time_of("ours", "large down")]),
        Target("the same, against nginx alone", 60, [100 * time_of("raw", "large down") / time_of("ours", "large down")], "%"),
        Target("upload of the large file", 3, [time_of("tutorial", "large up") / time_of("ours", "large up")]),
        Target("files of the interface, first load", 5, [results.assets("tutorial") / results.assets("ours")]),
    ]
    if deploy := results.data.get("deploy"):
        typed, cold, second = deploy["tutorial"], deploy["cold"], deploy["second"]
        found += [
            Target("cold deployment, times faster than the typed commands", 1, [typed["seconds"] / cold["seconds"]]),
            Target("virtual environment, times faster", 3, [typed["steps"]["venv"] / cold["roles"]["mlflow_venv"]]),
            Target("second run", 30, [second["seconds"]], "s", at_most=True),
            Target("changes in the second run", 0, [second["changed"]], "", at_most=True),
        ]
    return found


def api_table(results):
    rows = []
    for call in dict.fromkeys(cell["call"] for cell in results.data["cells"] if cell["call"] != "static file"):
        for clients in results.counts(call):
            ours, theirs = ({key: results.api(call, clients, name, key) for key in ("rate", "p50", "p95", "cpu")} for name in ("ours", "tutorial"))
            rows.append([call, clients, *(cell for key in ("rate", "p50", "p95", "cpu") for cell in (ours[key], theirs[key])),
                         ours["rate"] / theirs["rate"], ours["cpu"] / theirs["cpu"]])
    head = ["call", "clients", "requests/s", "tutorial", "p50 ms", "tutorial", "p95 ms", "tutorial", "CPU ms per request", "tutorial", "requests ×", "CPU ×"]
    return table(head, *([str(cell) if index == 1 else cell for index, cell in enumerate(row)] for row in rows))


def markdown(results, by_hand):
    data, idle, loaded = results.data, results.data["memory"]["idle"], results.data["memory"]["loaded"]
    it = data["machine"]
    versions = ", ".join(f"{name} {it[name]}" for name in ("MLflow", "Python", "nginx", "PostgreSQL", "systemd", "ansible-core"))
    parts = [f"""# Performance

This deployment against that of the tutorials, side by side on one host in one run: `make bench` measures and writes this page.

**The tutorial's** is set up by hand as tutorials describe ([bench/tutorial.sh](../bench/tutorial.sh)): `pip install`, `mlflow server` with its four workers and
its job workers, nginx with `auth_basic` (apr1) and a plain `proxy_pass`. **This one** is what `site.yml` deploys, here without TLS as the tutorial's is, and
with its default password hash (bcrypt, cost 12). Both have the same MLflow, 10,000 runs in a database of the same PostgreSQL, and the same nginx. The
load comes from the same host over its loopback interface (wrk, curl), so it uses part of the cores. Rounds are interleaved, figures are medians.

Absolute figures are from one machine: {it["cores"]} cores ({it["cpu"]}), {it["memory_gib"]} GiB of RAM, Linux {it["kernel"]}; {it["system"]} in a container
that boots systemd; {versions}; {it["date"]}, revision {it["revision"]}. Ratios carry over better.

## Targets
""", table(["what", "wanted", "found", ""], *(target.row() for target in targets(results))), """
Several figures are in the order of the calls or numbers of clients named. CPU is that of the service, nginx and PostgreSQL together.

![How many times better than the tutorial's](performance.svg)
""", f"\n{BEGIN}\n{by_hand}\n{END}\n", """
## Memory
PSS in MB: shared memory counts once.

""", table(["", "this deployment", "tutorial", "×"], *(
        [f"MLflow, {when} ({of['ours']['processes']} and {of['tutorial']['processes']} processes)", of["ours"]["mb"], of["tutorial"]["mb"],
         of["tutorial"]["mb"] / of["ours"]["mb"]] for when, of in (("idle", idle), ("after the load", loaded))),
        *([f"everything on the host, {when}", of["host"], "", ""] for when, of in (("idle", idle), ("after the load", loaded))),
    ), "\n## API\n", api_table(results)]

    rows = [[call, *(results.api(call, 1, name, "p50") for name in ("ours", "keepalive", "tutorial"))] for call in SMALL_CALLS]
    parts += ["""
With kept connections between nginx and the tutorial's server (`keepalive`), each request waits for a delayed acknowledgement. Median latency in ms,
one client:

""", table(["call", "this deployment", "tutorial, keepalive", "tutorial"], *rows)]

    rows = [
        [f"{call}, 8 clients", *(results.api(call, 8, name, "rate") for name in ("ours", "tutorial", "bcrypt"))]
        for call in ("static file", "get experiment")
    ]
    parts += ["""
## Password check
Requests per second. nginx computes the hash for each request unless it remembers the result.

""", table(["", "this deployment (bcrypt 12)", "tutorial (apr1)", "tutorial (bcrypt 12)"], *rows), """
## Upper bound of writes
Single-row commits per second that PostgreSQL makes on this disk (pgbench), beside the calls that commit:

""", table(["clients", "pgbench", "log metric", "create run"], *(
        [str(it["clients"]), statistics.median(it["rounds"]), *(results.api(call, it["clients"], "ours", "rate") for call in ("log metric", "create run"))]
        for it in data["commits"])), """
## Artifacts
Seconds, one client for the large file, eight for the small ones. "nginx alone" sends the same file without a password; its "upload" is `cp`.

"""]
    wanted = next(iter(data["artifacts"]["ours"]["large down"]))["bytes"]
    names = {"large up": f"{number(wanted / 2**30)} GiB up", "large down": f"{number(wanted / 2**30)} GiB down",
             "small up": "1,000 of 100 KB up", "small down": "1,000 of 100 KB down"}
    rows = []
    for what, label in names.items():
        ours, theirs = results.artifact("ours", what), results.artifact("tutorial", what)
        raw = number(results.artifact("raw", what)) if data["artifacts"]["raw"][what] else ""
        rows.append([label, ours, theirs, raw, theirs / ours])
    parts += [table(["", "this deployment", "tutorial", "nginx alone", "×"], *rows), f"""
## Interface
First load: Chromium with an empty cache, from a second host;
and the {len({asset["path"] for asset in data["browser"]["tutorial"][0]["assets"]})} files that it asks for,
fetched over six connections with its Accept-Encoding.

"""]

    rows = [[label, *(results.browser(name, of) for name in ("ours", "tutorial"))] for label, of in (
        ("Chromium: load event, ms", lambda result: result["load"]), ("Chromium: first paint with content, ms", lambda result: result["paint"]),
        ("Chromium: last file arrived, ms", last_asset))]
    rows += [["the files alone, ms", results.assets("ours"), results.assets("tutorial")],
             ["bytes of the files, MB", results.asset_bytes("ours") / 1e6, results.asset_bytes("tutorial") / 1e6]]
    parts.append(table(["", "this deployment", "tutorial", "×"], *([*row, row[2] / row[1]] for row in rows)))

    secure = Results(data["https"])
    rows = [[f"{call}, {cell['clients']} client{'s' if cell['clients'] > 1 else ''}, requests/s", secure.api(call, cell["clients"], "ours", "rate"),
             *(results.api(call, cell["clients"], name, "rate") for name in ("ours", "tutorial"))]
            for cell in data["https"]["cells"] for call in [cell["call"]]]
    rows += [[f"{label}, s", secure.artifact("ours", what), results.artifact("ours", what), results.artifact("tutorial", what)]
             for what, label in names.items()]
    rows += [["Chromium: last file arrived, ms", secure.browser("ours", last_asset), *(results.browser(name, last_asset) for name in ("ours", "tutorial"))],
             ["files of the interface, ms", secure.assets("ours"), results.assets("ours"), results.assets("tutorial")]]
    parts += ["""
## HTTPS
By default this deployment serves HTTPS. The same calls right after the others, beside both over HTTP:

""", table(["", "this deployment, HTTPS", "HTTP", "tutorial, HTTP"], *rows)]

    if deploy := data.get("deploy"):
        typed, cold, second = deploy["tutorial"], deploy["cold"], deploy["second"]
        parts += ["""
## Deployment
Seconds on a bare host with fresh package lists, everything downloaded, by `site.yml` with its defaults (end-to-end check included) and by the typed commands,
which a script runs without a pause.

""", table(["", "this deployment", "tutorial", "×"],
           ["cold, all of it", cold["seconds"], typed["seconds"], typed["seconds"] / cold["seconds"]],
           ["of it the virtual environment", cold["roles"]["mlflow_venv"], typed["steps"]["venv"], typed["steps"]["venv"] / cold["roles"]["mlflow_venv"]],
           [f"second run (changed={second['changed']})", second["seconds"], "", ""])]
    return "".join(parts)


def svg(results):
    """A bar for each target that is a ratio, on a logarithmic scale, and a mark where it should end."""
    bars = [(target, 1 / target.worst if target.at_most else target.worst, 1 / target.goal if target.at_most else target.goal)
            for target in targets(results) if target.unit == "×"]
    top, left, right, height = 46, 400, 60, 22
    width = 900
    low, high = min(0.5, *(value for _name, value, _goal in bars)), 2 * max(max(value, goal) for _name, value, goal in bars)

    def place(value):
        return left + (width - left - right) * math.log(value / low) / math.log(high / low)

    def label(target):
        text = target.what.replace(": times smaller than the tutorial's", "").replace(": times lower than the tutorial's", "")
        text = text.replace(", times faster than the typed commands", "").replace(", times faster", "").replace(", ".join(SMALL_CALLS), "small calls")
        text = text.replace(", against the tutorial's with kept upstream connections", "")
        return text.replace("the same (small calls)", "the same, tutorial with keepalive")

    bottom = top + height * len(bars)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 34}" font-family="sans-serif" font-size="12" fill="#222">',
             f'<rect width="{width}" height="{bottom + 34}" fill="#fff"/>',
             '<text x="12" y="22" font-size="15" font-weight="bold">How many times better than the tutorial\'s</text>',
             '<text x="12" y="38" fill="#666">worst of the cases of each target, logarithmic; black: the target; green: reached, orange: not</text>']
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        x = place(10**power)
        lines += [f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#{"888" if power == 0 else "ddd"}"/>',
                  f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#666">{10**power:,} ×</text>']
    for index, (target, value, goal) in enumerate(bars):
        y, start, end = top + height * index, place(min(1, value)), place(max(1, value))
        beside = place(goal) if end < place(goal) < end + 40 else end  # where the figure finds room
        colour = "#2a7f62" if target.reached else "#c8762b"
        lines += [f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{label(target)}</text>',
                  f'<rect x="{start:.1f}" y="{y + 4}" width="{end - start:.1f}" height="{height - 8}" fill="{colour}"/>',
                  f'<line x1="{place(goal):.1f}" y1="{y + 1}" x2="{place(goal):.1f}" y2="{y + height - 1}" stroke="#222" stroke-width="2"/>',
                  f'<text x="{beside + 5:.1f}" y="{y + 15}">{number(value)}</text>']
    return "\n".join([*lines, "</svg>"]) + "\n"


def render(directory):
    results, page = Results(json.loads((directory / "performance.json").read_text())), directory / "performance.md"
    kept = re.search(f"{BEGIN}\n(.*)\n{END}", page.read_text(), re.DOTALL) if page.exists() else None
    page.write_text(markdown(results, kept[1] if kept else "## Where the time goes"))
    (directory / "performance.svg").write_text(svg(results))


if __name__ == "__main__":
    render(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "docs")
