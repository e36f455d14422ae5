# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each boolean and number of each role, given as a string, makes what its typed value makes, by real Ansible."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import COLLECTIONS, ROOT

TYPES = ("bool", "int", "float")
WORDS = {True: ["yes", "true", "on", "True", "1"], False: ["no", "false", "off", "False", "0"]}
NUMBER = 31  # a port, a percentage, a count, and rounds of bcrypt
WRONG = {"bool": ["maybe", "8443"], "int": ["8_443", "1e3", "true", "0x50", "-1", ""], "float": ["8_443", "1e3", "true", "-1", ""]}
FACTS = {
    "all_ipv4_addresses": ["192.0.2.7"],
    "distribution": "Ubuntu",
    "distribution_major_version": "22",
    "fqdn": "mlflow.test",
    "hostname": "mlflow",
    "memtotal_mb": 7900,
    "processor_vcpus": 4,
    "systemd": {"version": 249},
}
# What tasks would have registered.
REGISTERED: dict[str, t.Any] = {
    "__mlflow_firewall_host": {"paths": {}},
    "__mlflow_nginx_found": {"version": "1.18.0", "openssl": "3.0.2", "user": "www-data", "group": "www-data", "hash_bucket_size": 0, "server_names": []},
    "__mlflow_nginx_host": {"paths": {}},
    "__mlflow_postgres_asked": {"stdout": '{"others": [], "sized": false}'},
    "__mlflow_systemd_host": {"paths": {}},
}
# What no template shows.
CHECKS = {"mlflow_postgres": ["(__mlflow_postgres_wanted_version in __mlflow_postgres_supported_versions)"]}
KEEP = """
from pathlib import Path

class FilterModule:
    def filters(self):
        return {"keep": lambda text, path: Path(path).write_text(str(text)) and ""}
"""


def options_of(role: Path) -> dict[str, t.Any]:
    return yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]


VARIABLES = {
    role.name: {name: option["type"] for name, option in options_of(role).items() if option["type"] in TYPES} for role in sorted((ROOT / "roles").iterdir())
}


def play(role: str, hosts: str) -> dict[str, t.Any]:
    templates = sorted(str(path) for path in (ROOT / "roles" / role / "templates").glob("*.j2"))
    shown = [f"__{role}_typed | to_json", *CHECKS.get(role, []), *(f"lookup('ansible.builtin.template', {path!r})" for path in templates)]
    return {
        "hosts": "{{ [%r] | join }}" % hosts,  # a filter, as in the playbook site: Ansible then loads its filters once
        "gather_facts": False,
        "vars": {**REGISTERED, "ansible_facts": FACTS, "item": "mlflow.socket"},
        "tasks": [
            {
                "block": [
                    {"ansible.builtin.import_role": {"name": f"mlops.mlflow.{role}", "tasks_from": "types"}},
                    {"ansible.builtin.debug": {"msg": "{{ (%s) | keep(made) }}" % " ~ '\\n' ~ ".join(shown)}},
                ],
                "rescue": [{"ansible.builtin.debug": {"msg": "{{ ('Refused: ' ~ ansible_failed_result.msg) | keep(made) }}"}}],
            }
        ],
    }


class Runs:
    """Runs of Ansible on this machine, with a host for each case."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for name in ("made", "filter_plugins"):
            (top / name).mkdir()
        (top / "filter_plugins/keep.py").write_text(KEEP)

    def run(self, inventories: dict[str, str], *options: str) -> None:
        """Render for each host of the inventories; the first part of its name is that of a role."""
        hosts = [host for text in inventories.values() for host in self.hosts(text)]
        roles = [role for role in VARIABLES if any(host.startswith(f"{role}.") for host in hosts)]
        (self.top / "play.json").write_text(json.dumps([play(role, f"{role}.*") for role in roles]))
        arguments = []
        for name, text in inventories.items():
            (self.top / name).write_text(text)
            arguments += ["--inventory", str(self.top / name)]
        process = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", *arguments, "--extra-vars", f"made={self.top}/made/{{{{ inventory_hostname }}}}"]
            + [*options, "play.json"],
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_LOCAL_TEMP": str(self.top),
                "ANSIBLE_NOCOLOR": "1",
            },
            cwd=self.top,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stdout[-5000:] + process.stderr[-2000:]
        missing = [host for host in hosts if not (self.top / "made" / host).exists()]
        assert hosts and not missing, missing

    @staticmethod
    def hosts(text: str) -> list[str]:
        if text.startswith("{"):
            return list(json.loads(text)["all"]["hosts"])
        return [line for line in text.splitlines() if line.startswith("mlflow_") and "=" not in line]

    def made(self, host: str) -> str:
        return (self.top / "made" / host).read_text()


def in_json(hosts: dict[str, dict[str, t.Any]]) -> str:
    return json.dumps({"all": {"hosts": hosts}})


def in_ini(hosts: dict[str, dict[str, str]]) -> str:
    sections = []
    for host, values in hosts.items():
        sections += [f"[group_{len(sections)}]", host, f"[group_{len(sections)}:vars]", *(f"{name}={value}" for name, value in values.items())]
    return "\n".join(sections) + "\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("values"))


def typed(role: str, choice: bool) -> dict[str, t.Any]:
    """A value for each variable of a role."""
    return {name: choice if kind == "bool" else NUMBER for name, kind in VARIABLES[role].items()}


def text(role: str, choice: bool) -> dict[str, str]:
    """The same, as strings."""
    return {name: WORDS[value][index % 5] if value is choice else str(value) for index, (name, value) in enumerate(typed(role, choice).items())}


def test_there_are_variables_of_every_role() -> None:
    assert len(VARIABLES) >= 6 and all(VARIABLES.values()), VARIABLES


@pytest.mark.parametrize("choice", [True, False])
def test_a_string_makes_what_the_typed_value_makes(runs: Runs, choice: bool) -> None:
    """In an INI inventory, and by --extra-vars NAME=VALUE."""
    values = in_json({f"{role}.typed": typed(role, choice) for role in VARIABLES})
    runs.run({"typed.json": values, "texts.ini": in_ini({f"{role}.ini": text(role, choice) for role in VARIABLES})})
    extra = [f"{name}={value}" for role in VARIABLES for name, value in text(role, choice).items()]
    runs.run({"extra.json": in_json({f"{role}.extra": {} for role in VARIABLES})}, *(option for words in extra for option in ("--extra-vars", words)))
    assert not [role for role in VARIABLES if runs.made(f"{role}.typed").startswith("Refused")]
    assert not [role for role in VARIABLES if runs.made(f"{role}.ini") != runs.made(f"{role}.typed")]
    assert not [role for role in VARIABLES if runs.made(f"{role}.extra") != runs.made(f"{role}.typed")]


def test_a_release_may_be_a_number(runs: Runs) -> None:
    """As it is in YAML, where nobody quotes it."""
    hosts = {"mlflow_postgres.text": {"mlflow_postgres_version": "15"}, "mlflow_postgres.number": {"mlflow_postgres_version": 15}}
    runs.run({"releases.json": in_json(hosts)})
    assert runs.made("mlflow_postgres.text") == runs.made("mlflow_postgres.number")
    assert "True" in runs.made("mlflow_postgres.number")


def test_what_is_none_is_refused_by_the_name_that_was_set(runs: Runs) -> None:
    """In a sentence for each: by the short name, where a person set that one."""
    wrong: dict[str, dict[str, str]] = {}
    for role, variables in VARIABLES.items():
        defaults = (ROOT / "roles" / role / "defaults/main.yml").read_text()
        names = list(variables)
        for kind, chosen in {"own": names, "short": [short(role, name) if f"{short(role, name)} |" in defaults else name for name in names]}.items():
            values = (WRONG[variables[name]][index % len(WRONG[variables[name]])] for index, name in enumerate(names))
            wrong[f"{role}.{kind}"] = dict(zip(chosen, values))
    runs.run({"wrong.json": in_json(wrong)})
    assert "mlflow_port" in wrong["mlflow_nginx.short"] and "mlflow_firewall" in wrong["mlflow_firewall.short"]
    for host, values in wrong.items():
        said = runs.made(host)
        assert said.startswith("Refused: ")
        sentences = re.findall(r'(\w+) is (".*?"): set it to [^.]+\.', said)
        assert sorted(sentences) == sorted((name, json.dumps(value)) for name, value in values.items())


def short(role: str, name: str) -> str:
    return name.replace(role, "mlflow", 1)
