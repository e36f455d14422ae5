#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_config_check
short_description: Refuse a configuration that a PostgreSQL cluster of Debian or Ubuntu would not start with
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - For a file of settings beside the package's own, and a block of lines in C(pg_hba.conf) and in C(pg_ident.conf), before they are written.
  - Where they differ from what the cluster has, PostgreSQL is started with them on an empty data directory that is removed afterwards. Where
    that fails, the module fails with what PostgreSQL said. It does so in check mode as well.
  - The trial has no connection to anything outside of it; it listens on no port, archives nothing and needs about 60 MB in C(/var/tmp).
extends_documentation_fragment:
  - mlops.mlflow.attributes
  - mlops.mlflow.attributes.info
options:
  version:
    description: The PostgreSQL release, such as V(14).
    type: str
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    default: main
  settings:
    description: The text of C(conf.d/mlflow.conf).
    type: str
    required: true
  hba:
    description:
      - Lines for C(pg_hba.conf), before all others, as the first line that matches decides. Where C(# BEGIN mlops.mlflow) and
        C(# END mlops.mlflow) stand, the lines between them are replaced instead, as M(ansible.builtin.blockinfile) does.
    type: list
    elements: str
    default: []
  ident:
    description: Lines for C(pg_ident.conf), after all others, or between such marks.
    type: list
    elements: str
    default: []
  source:
    description: What the message of a refusal tells to correct.
    type: str
    default: the settings
notes:
  - Huge pages are left out of the trial, and where the kernel does not overcommit memory the size of the shared buffers is too, as the
    server that runs holds what the trial would need.
"""

EXAMPLES = r"""
- name: Refuse settings that PostgreSQL would not start with
  mlops.mlflow.postgres_config_check:
    version: "14"
    settings: |
      max_connections = 200
    hba: [local mlflow mlflow peer map=mlflow]
    ident: [mlflow mlflow mlflow]
    source: mlflow_postgres_settings
"""

RETURN = r"""
paths:
  description: The files that differ from what is described.
  returned: always
  type: list
  elements: str
  sample: [/etc/postgresql/14/main/conf.d/mlflow.conf]
"""

import os
import re
import shutil
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule

BLOCK = re.compile(r"^# BEGIN mlops\.mlflow\n.*?^# END mlops\.mlflow(?:\n|\Z)", re.MULTILINE | re.DOTALL)
# A trial's server says these when all is well.
USUAL = re.compile(r"LOG: +(starting PostgreSQL|listening on|ending log output|redirecting log output|database system|received)")
# Before any setting is read, lines begin with the usual prefix.
LEVEL = re.compile(r"^(?:.*? )?(LOG|WARNING|ERROR|FATAL|PANIC|DETAIL|HINT|CONTEXT): +")


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def with_block(text: str, lines: list[str], first: bool) -> str:
    """The text as blockinfile leaves it: our block where it stands already, else as the first or last of all."""
    block = "".join(f"{line}\n" for line in ["# BEGIN mlops.mlflow", *lines, "# END mlops.mlflow"])
    if BLOCK.search(text):
        return BLOCK.sub(lambda _found: block, text, count=1)
    if first:
        return block + text
    return text + ("" if text.endswith("\n") or not text else "\n") + block


def words(log: str, trial: str, directory: str) -> str:
    """What PostgreSQL said that is not usual, in one line."""
    found = [LEVEL.sub("", line).strip() for line in log.splitlines() if LEVEL.match(line) and not USUAL.search(line)]
    return "; ".join(found or log.split("\n")[-3:]).replace(trial, directory)


class Trial:
    """A server of its own in a directory of its own, as the user postgres."""

    def __init__(self, module: AnsibleModule, version: str, directory: str):
        self.module, self.directory = module, directory
        self.programs = f"/usr/lib/postgresql/{version}/bin"
        self.version = int(version)
        self.root = tempfile.mkdtemp(prefix="mlflow-postgres-", dir="/var/tmp")
        self.etc, self.data, self.log = (os.path.join(self.root, name) for name in ("etc", "data", "log"))
        shutil.chown(self.root, "postgres", "postgres")

    def run(self, *words_: str) -> tuple[int, str]:
        code, out, err = self.module.run_command(["runuser", "-u", "postgres", "--", *words_], cwd=self.root)
        return code, out + err

    def prepare(self, files: dict[str, str]) -> None:
        """The configuration as it would be, and an empty database."""
        self.module.run_command(["cp", "--archive", "--dereference", self.directory, self.etc], check_rc=True)
        main = os.path.join(self.etc, "postgresql.conf")
        for path, text in {main: read(main).replace(self.directory, self.etc), **files}.items():
            path = path.replace(self.directory, self.etc)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
            shutil.chown(path, "postgres", "postgres")
        code, said = self.run(f"{self.programs}/initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--pgdata", self.data)
        if code:
            self.module.fail_json(msg=f"PostgreSQL cannot try its new configuration in {self.root}: {' '.join(said.split())[-500:]}")
        # What ALTER SYSTEM has set.
        conftool = ["pg_conftool", "--short", str(self.version), os.path.basename(self.directory), "show", "data_directory"]
        data = self.module.run_command(conftool)[1].strip()
        if data and os.path.exists(f"{data}/postgresql.auto.conf"):
            with open(f"{self.data}/postgresql.auto.conf", "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(read(f"{data}/postgresql.auto.conf"))

    def refusal(self) -> str:
        """Start the server; return what it says where it does not start."""
        options = {
            "config_file": f"{self.etc}/postgresql.conf",
            "data_directory": self.data,
            "hba_file": f"{self.etc}/pg_hba.conf",
            "ident_file": f"{self.etc}/pg_ident.conf",
            "external_pid_file": f"{self.root}/pid",
            "unix_socket_directories": self.root,
            "listen_addresses": "",
            "archive_mode": "off",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_line_prefix": "",
            "huge_pages": "off",
            "fsync": "off",
        }
        if self.version < 15:
            options["stats_temp_directory"] = "pg_stat_tmp"
        if read("/proc/sys/vm/overcommit_memory").strip() == "2":
            options["shared_buffers"] = "16MB"
        arguments = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        control = [f"{self.programs}/pg_ctl", "--silent", "--wait", "--pgdata", self.data]
        code, said = self.run(*control, "--timeout=120", "--log", self.log, "--options", arguments, "start")
        if code:
            return words(read(self.log) or said, self.etc, self.directory)
        return ""

    def remove(self) -> None:
        if os.path.exists(f"{self.data}/postmaster.pid"):
            self.run(f"{self.programs}/pg_ctl", "--silent", "--mode=immediate", "--pgdata", self.data, "stop")
        shutil.rmtree(self.root, ignore_errors=True)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "cluster": {"type": "str", "default": "main"},
            "settings": {"type": "str", "required": True},
            "hba": {"type": "list", "elements": "str", "default": []},
            "ident": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "str", "default": "the settings"},
        },
        supports_check_mode=True,
    )
    params: dict[str, t.Any] = module.params
    directory = f"/etc/postgresql/{params['version']}/{params['cluster']}"
    settings, hba, ident = (f"{directory}/{name}" for name in ("conf.d/mlflow.conf", "pg_hba.conf", "pg_ident.conf"))
    before = {path: read(path) for path in (settings, hba, ident)}
    after = {
        settings: params["settings"],
        hba: with_block(before[hba], params["hba"], first=True),
        ident: with_block(before[ident], params["ident"], first=False),
    }
    paths = [path for path in after if after[path] != before[path]]
    if paths:
        trial = Trial(module, params["version"], directory)
        try:
            trial.prepare(after)
            refusal = trial.refusal()
        finally:
            trial.remove()
        if refusal:
            module.fail_json(msg=f"PostgreSQL {params['version']} would not start with {params['source']} as set now, so correct this: {refusal}.")
    module.exit_json(changed=False, paths=paths)


if __name__ == "__main__":
    main()
