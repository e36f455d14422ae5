#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_health
short_description: Wait until an MLflow server is healthy, and check it end to end
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Asks an MLflow tracking server whether it lives, whether its database answers, or whether a whole run with an
    artifact can be written, read and removed.
  - Waits while the server starts, and stops at once on what waiting can't mend, such as a refused password, a host name
    that MLflow does not accept, a bad certificate or another version. The message names the likely cause and the
    setting that mends it.
  - Needs nothing but Python on the host that it runs on.
extends_documentation_fragment:
  - mlops.mlflow.attributes
attributes:
  check_mode:
    support: full
    details: As nothing may be written, O(depth=roundtrip) then checks as O(depth=database).
  diff_mode:
    support: none
    details: Changes nothing that lasts.
  idempotent:
    support: full
    details: Never reports a change. With O(depth=roundtrip), what is written is also removed; see the notes.
options:
  url:
    description:
      - Address of the server, such as V(https://mlflow.example.com) or V(https://example.com:8443/mlflow).
      - The server is asked at exactly this address. Redirects are not followed, and proxies in the environment are not
        used, so that credentials reach no other place.
      - One of O(url) and O(unix_socket) is required. With O(unix_socket) alone it is V(http://localhost).
    type: str
  address:
    description:
      - Connect to this host name or IP address instead of the one that the host name in O(url) resolves to.
      - Port, C(Host) header, TLS server name and certificate check stay with O(url). This reaches one certain server
        behind a name, and works before the name is in the DNS.
    type: str
  unix_socket:
    description: Connect to this socket instead of a TCP port. An absolute path.
    type: path
  host_header:
    description: Value of the C(Host) header. Host name and port in O(url) by default.
    type: str
  username:
    description: User name for basic authentication. Sent with every request.
    type: str
  password:
    description: Password of O(username).
    type: str
  ca_path:
    description: File (PEM) or directory with the certificates to trust, instead of those that the host trusts.
    type: path
  validate_certs:
    description: Whether to check the server's certificate.
    type: bool
    default: true
  depth:
    description:
      - How deep the check goes. Each value includes the ones before it.
      - V(liveness) asks C(/health), which says that the server process answers, and nothing about its database.
      - V(database) makes MLflow read from its database, as O(username).
      - V(roundtrip) logs a parameter, metrics and a tag, uploads an artifact of 2 MiB and a small compressed one through
        the server, reads all of it back, compares it, and removes it. MLflow must serve the artifacts itself
        (C(--serve-artifacts), its default). Where it tells its clients to download from the store, the check does both.
    type: str
    choices: [liveness, database, roundtrip]
    default: database
  timeout:
    description:
      - Seconds that all of it may take, waiting included. A single attempt may take half of what is left.
      - With O(depth=roundtrip), a quarter of it, but at most 10 seconds, is kept for cleaning up.
    type: float
    default: 60
  delay:
    description: Seconds between two attempts.
    type: float
    default: 1
  expect_version:
    description: Fail unless the server runs exactly this version of MLflow, such as V(3.17.2).
    type: str
notes:
  - "B(What stays after a round trip.) One experiment named C(mlflow-health), followed by C(-) and O(username) if there is
    one, with one run: MLflow's API deletes neither for good, so each round trip uses them again, and adds no row to the
    database. The experiment is marked as deleted: only a search for deleted ones finds it. C(mlflow gc) may remove it."
  - A round trip that fails removes what it wrote as well. What can't be removed even then, as when the server no longer
    answers, is named in the message and in RV(left_behind), and removed by the first round trip after an hour.
  - Any number of round trips can run at the same time; each writes under a name of its own.
"""

EXAMPLES = r"""
- name: Wait until MLflow has started and reaches its database
  mlops.mlflow.mlflow_health:
    unix_socket: /run/mlflow/mlflow.sock
    timeout: 120

- name: Log a run and an artifact the way that users do
  mlops.mlflow.mlflow_health:
    url: https://mlflow.example.com
    username: alice
    password: "{{ alice_password }}"
    depth: roundtrip
    expect_version: "3.17.2"

- name: Check this host through its public name, before the DNS knows it
  mlops.mlflow.mlflow_health:
    url: https://mlflow.example.com
    address: 127.0.0.1
    ca_path: /etc/ssl/certs/company-ca.pem
    depth: liveness
"""

RETURN = r"""
version:
  description: Version that the server says it runs. Null when it does not tell, as before a login.
  returned: always
  type: str
  sample: 3.17.2
depth:
  description: Depth that was checked. In check mode V(database) instead of V(roundtrip).
  returned: always
  type: str
  sample: database
steps:
  description: The steps in their order. After a failure, the failed one is the last, or the last before V(cleanup).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description:
        - V(liveness), V(version) with O(expect_version), V(database), and for a round trip V(experiment), V(run),
          V(log), V(read), V(upload), V(download), V(cleanup).
      type: str
      sample: database
    status:
      description: V(ok) or V(failed).
      type: str
      sample: ok
    milliseconds:
      description: How long the step took, all attempts and the waiting between them included.
      type: int
      sample: 12
    attempts:
      description: How often it was tried.
      type: int
      sample: 1
left_behind:
  description: What could not be removed. Empty unless the cleanup failed.
  returned: always
  type: list
  elements: str
  sample: [artifacts in 12/b2c96031869845ee88a9997e3b22441b/artifacts/1764021600-0c9f1b7f3f6c4d0d8a4b0f6a3f0e7f11]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.mlflow_health import (
    VERSION,
    Failure,
    HealthCheck,
    parse_target,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str"},
            "address": {"type": "str"},
            "unix_socket": {"type": "path"},
            "host_header": {"type": "str"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "ca_path": {"type": "path"},
            "validate_certs": {"type": "bool", "default": True},
            "depth": {"type": "str", "choices": ["liveness", "database", "roundtrip"], "default": "database"},
            "timeout": {"type": "float", "default": 60},
            "delay": {"type": "float", "default": 1},
            "expect_version": {"type": "str"},
        },
        required_one_of=[("url", "unix_socket")],
        required_together=[("username", "password")],
        mutually_exclusive=[("address", "unix_socket")],
        supports_check_mode=True,
    )
    params = module.params
    if "@" in (params["url"] or ""):
        # Refused below, but Ansible shows the arguments even then.
        module.no_log_values.add(params["url"].rpartition("@")[0].split("//", 1)[-1])
    try:
        if not 0 < params["timeout"] <= 86400:
            raise ValueError("timeout must be more than 0 and at most 86400 seconds")
        if not 0 <= params["delay"] <= params["timeout"]:
            raise ValueError("delay must not be negative, and not longer than timeout")
        if params["expect_version"] is not None and not VERSION.fullmatch(params["expect_version"]):
            raise ValueError("expect_version must look like 3.17.2")
        target = parse_target(params)
    except ValueError as error:
        module.fail_json(msg=str(error))

    depth = "database" if module.check_mode and params["depth"] == "roundtrip" else params["depth"]
    check = HealthCheck(target, params["timeout"], params["delay"])
    try:
        check.run(depth, params["expect_version"])
    except Failure as failure:
        module.fail_json(msg=str(failure), depth=depth, **check.result())
    module.exit_json(changed=False, depth=depth, **check.result())


if __name__ == "__main__":
    main()
