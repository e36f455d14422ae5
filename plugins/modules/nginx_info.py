#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_info
short_description: Ask which nginx a host has, and what its configuration says
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Reads the configuration as nginx does, with all that it includes, and tells what a site needs to know that is put beside others.
  - It answers also where nginx itself would refuse the configuration.
extends_documentation_fragment:
  - mlops.mlflow.attributes
  - mlops.mlflow.attributes.info
options:
  sites:
    description: The files of the site that asks, and links to them, by path or pattern. All other files are those of others.
    type: list
    elements: path
    default: []
  files:
    description: Files and links that the site that asks consists of.
    type: list
    elements: path
    default: []
  prefix:
    description: How names of the site that asks begin; empty for no question.
    type: str
    default: ""
  names:
    description: The host names that the site that asks is to answer for.
    type: list
    elements: str
    default: []
  ports:
    description: The ports that it is to answer on.
    type: list
    elements: int
    default: []
"""

EXAMPLES = r"""
- name: Ask whether nginx runs with something older
  mlops.mlflow.nginx_info:
    files: [/etc/nginx/sites-available/example, /etc/nginx/example.pem]
  register: found

- name: Reload it
  ansible.builtin.service:
    name: nginx
    state: reloaded
  when: found.newer | length > 0

- name: Ask which nginx it is
  mlops.mlflow.nginx_info:
    sites: [/etc/nginx/sites-available/mlflow.conf, /etc/nginx/sites-enabled/zz-mlflow.conf]
    prefix: mlops_mlflow
  register: found

- name: Let the user of nginx read a file
  ansible.builtin.file:
    path: /etc/nginx/example.htpasswd
    owner: root
    group: "{{ found.group }}"
    mode: "0640"
"""

RETURN = r"""
installed:
  description: Whether nginx is there; nothing else is returned where it is not.
  returned: always
  type: bool
version:
  description: Its version.
  returned: where it is installed
  type: str
  sample: 1.22.1
openssl:
  description: The version of OpenSSL that it runs with; empty without any.
  returned: where it is installed
  type: str
  sample: 3.0.17
user:
  description: The user that its workers run as.
  returned: where it is installed
  type: str
  sample: www-data
group:
  description: The group that its workers run as.
  returned: where it is installed
  type: str
  sample: www-data
problem:
  description: Why nginx would refuse the configuration as it is; empty where it would not.
  returned: where it is installed
  type: str
modules:
  description: The modules that the configuration loads, and those that are built in though nginx leaves them out by default.
  returned: where it is installed
  type: list
  elements: str
  sample: [modules/ngx_http_perl_module.so, http_ssl_module]
without:
  description: The modules that nginx has by default, and that it was built without.
  returned: where it is installed
  type: list
  elements: str
  sample: [http_limit_req_module]
includes:
  description: The patterns of what is included at the top, and in the block http.
  returned: where it is installed
  type: dict
  sample: {main: ["/etc/nginx/modules-enabled/*.conf"], http: ["/etc/nginx/conf.d/*.conf", "/etc/nginx/sites-enabled/*"]}
hash_bucket_size:
  description: The server_names_hash_bucket_size that others set; 0 where nobody does.
  returned: where it is installed
  type: int
server_names:
  description: The names of O(sites) as they are.
  returned: where it is installed
  type: list
  elements: str
  sample: [mlflow.example.com, 192.0.2.7]
ports:
  description: The ports of others' sites, without the one that the package nginx brings and nobody changed.
  returned: where it is installed
  type: list
  elements: int
  sample: [80, 443]
newer:
  description: Which of O(files), or of what they lead to, changed since the nginx that runs read its configuration; none where it does not run.
  returned: where it is installed
  type: list
  elements: str
clashes:
  description: Files of others that use a name that begins with O(prefix), with the name.
  returned: where it is installed
  type: list
  elements: str
  sample: ["/etc/nginx/sites-enabled/copy: mlops_mlflow_auth"]
rivals:
  description: Files of others that have a server for one of O(names) on one of O(ports).
  returned: where it is installed
  type: list
  elements: dict
  contains:
    file:
      description: The file, by the path that nginx reads it by.
      type: str
    name:
      description: The name.
      type: str
    port:
      description: The port.
      type: int
    alone:
      description: Whether the file has nothing but what O(names) need, so that others miss nothing without it.
      type: bool
  sample: [{file: /etc/nginx/sites-enabled/mlflow, name: mlflow.example.com, port: 80, alone: true}]
foreign_defaults:
  description: Files of others with the default server of a port on which O(sites) speak TLS, where some of its settings count in place of theirs.
  returned: where it is installed
  type: list
  elements: dict
  contains:
    file:
      description: The file, by the path that nginx reads it by.
      type: str
    port:
      description: The port.
      type: int
    settings:
      description: The directives that count and say something else than those of O(sites), with what they say.
      type: dict
  sample: [{file: /etc/nginx/sites-enabled/shop, port: 443, settings: {ssl_protocols: TLSv1.3, ssl_ecdh_curve: auto}}]
"""

import glob
import hashlib
import os
import re
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.nginx_config import Config, Directive, port_of, walk
from ansible_collections.mlops.mlflow.plugins.module_utils.unit_times import PROPERTIES, changed_since, times

DEFAULT_SITE = "/etc/nginx/sites-available/default"


def untouched(module: AnsibleModule, path: str) -> bool:
    """Whether a file is as its package brought it."""
    query = module.get_bin_path("dpkg-query")
    if not query:
        return False
    _code, out, _err = module.run_command([query, "--showformat=${Conffiles}\n", "--show", "nginx-common", "nginx"])
    try:
        with open(path, "rb") as file:
            digest = hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
    except OSError:
        return False
    return f"{path} {digest}" in out


def read_at(module: AnsibleModule) -> float:
    """When the nginx that runs read its configuration, in seconds since 1970; 0 where none runs.

    systemd knows of its own reloads, and not whether nginx took the configuration then; the oldest worker is as old as what all of them
    have, but for one that took a dead one's place.
    """
    systemctl = module.get_bin_path("systemctl", required=True)
    show = [systemctl, "show", "nginx.service", f"--property=MainPID,{','.join(PROPERTIES)}"]
    unit = dict(line.split("=", 1) for line in module.run_command(show, check_rc=True)[1].splitlines())
    read = [times(unit).read]
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{process}/cmdline", encoding="utf-8", errors="replace") as file:
                title = file.read().strip("\0 ")
        except OSError:  # it ended
            continue
        if fields[1] == unit["MainPID"] and title == "nginx: worker process":
            started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
            read.append(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + started)
    return min(read)


def ports_of(server: Directive) -> set[int]:
    return {port_of(one.words[1]) for one in server.inside if one.name == "listen" and len(one.words) > 1} or {80}


def names_of(server: Directive) -> set[str]:
    """A server without a name has the empty one."""
    return {name.lower() for one in server.inside if one.name == "server_name" for name in one.words[1:]} or {""}


def shared(config: Config, file: str, directives: list[Directive]) -> bool:
    """Whether another file uses an upstream or a variable that these directives make."""
    made = [directive.words[-1] for directive in directives if directive.name in ("upstream", "map")]
    return any(name in word for other in walk(config.directives) if other.file != file for word in other.words for name in made)


def rivals(config: Config, mine: set[str], names: set[str], ports: set[int]) -> t.Iterator[dict[str, t.Any]]:
    """Servers of others that nginx may choose in place of those in mine."""
    inside = config.of("http")
    for file in sorted({directive.file for directive in inside} - mine):
        directives = [directive for directive in inside if directive.file == file]
        servers = [directive for directive in directives if directive.name == "server"]
        alone = (
            {directive.name for directive in directives} <= {"server", "upstream", "map"}
            and set().union(*map(names_of, servers)) <= names
            and all(directive.file != file for directive in config.directives)
            and not shared(config, file, directives)
        )
        # .example.com is example.com, too
        found = [
            (name, port) for server in servers for name in {name.removeprefix(".") for name in names_of(server)} & names for port in ports_of(server) & ports
        ]
        if found:
            name, port = min(found)
            yield {"file": file, "name": name, "port": port, "alone": alone}


def protocols(words: list[str]) -> frozenset[str]:
    """Without those that AEAD ciphers rule out."""
    return frozenset(words) & {"TLSv1.2", "TLSv1.3"}


def curves(words: list[str]) -> frozenset[str]:
    names = {"P-256": "prime256v1", "secp256r1": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
    return frozenset(names.get(name, name).lower() for name in words[0].split(":"))


def seconds(words: list[str]) -> int:
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"([0-9]+)([smhdwMy]?)", " ".join(words)))


def cached(words: list[str]) -> bool:
    return not {"none", "off"} & set(words)


def foreign_defaults(config: Config, mine: set[str], version: str) -> list[dict[str, t.Any]]:
    """OpenSSL begins a handshake, and keeps sessions, with the settings of a socket's default server; certificate and ciphers are chosen later."""
    number = tuple(map(int, version.split(".")))
    readers: dict[str, tuple[str, t.Callable[[list[str]], t.Any]]] = {
        "ssl_protocols": ("TLSv1 TLSv1.1 TLSv1.2" + (" TLSv1.3" if number >= (1, 23, 4) else ""), protocols),
        "ssl_ecdh_curve": ("auto", curves),
        "ssl_session_timeout": ("5m", seconds),
        "ssl_session_cache": ("none", cached),
    }
    if number >= (1, 29, 2):  # nginx chooses the server first
        del readers["ssl_protocols"]
    http = config.of("http")
    sockets: dict[tuple[str, int], list[tuple[Directive, list[str]]]] = {}
    for server in (directive for directive in http if directive.name == "server"):
        for one in server.inside:
            if one.name == "listen" and len(one.words) > 1 and port_of(one.words[1]) and "quic" not in one.words:
                address = re.sub(r"^(\*|0\.0\.0\.0)$", "", re.sub(r"(^|:)[0-9]+$", "", one.words[1].lower()))
                sockets.setdefault((address, port_of(one.words[1])), []).append((server, one.words[2:]))

    def said(server: Directive, name: str) -> list[str]:
        for directives in (server.inside, http):
            words = [word for one in directives if one.name == name for word in one.words[1:]]
            if words:
                return words
        return readers[name][0].split()

    found: list[dict[str, t.Any]] = []
    for (_address, port), servers in sockets.items():
        default = next((server for server, options in servers if {"default_server", "default"} & set(options)), servers[0][0])
        ours = next((server for server, options in servers if server.file in mine and "ssl" in options), None)
        if ours and default.file not in mine:
            settings = {
                name: " ".join(said(default, name)) for name, (_default, read) in readers.items() if read(said(default, name)) != read(said(ours, name))
            }
            told = {"file": default.file, "port": port, "settings": settings}
            if settings and told not in found:
                found.append(told)
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sites": {"type": "list", "elements": "path", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "prefix": {"type": "str", "default": ""},
            "names": {"type": "list", "elements": "str", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    nginx = module.get_bin_path("nginx", opt_dirs=["/usr/sbin"])
    if not nginx:
        module.exit_json(changed=False, installed=False)
    build = module.run_command([nginx, "-V"], check_rc=True)[2]

    def built(pattern: str, default: str) -> str:
        found = re.search(pattern, build)
        return found[1] if found else default

    config = Config(built(r"--conf-path=(\S+)", "/etc/nginx/nginx.conf"))
    code, _out, err = module.run_command([nginx, "-t", "-q"])
    user = config.last("user") or [built(r"--user=(\S+)", "nobody"), built(r"--group=(\S+)", "nogroup")]
    mine = {path for pattern in module.params["sites"] for path in glob.glob(pattern)}
    default = {DEFAULT_SITE, "/etc/nginx/sites-enabled/default"} if untouched(module, DEFAULT_SITE) else set()
    servers = [directive for directive in config.of("http") if directive.name == "server"]
    ports = {port for server in servers if server.file not in mine | default for port in ports_of(server)}
    prefix = re.compile(re.escape(module.params["prefix"]) + r"\w*")
    clashes = {
        f"{directive.file}: {found[0]}"
        for directive in walk(config.directives)
        if module.params["prefix"] and directive.file not in mine
        for found in map(prefix.search, directive.words)
        if found
    }
    modules = [one.words[1] for one in config.of() if one.name == "load_module"] + re.findall(r"--with-(http_\w+_module)(?!=dynamic)", build)
    running = read_at(module) if module.params["files"] else 0
    bucket = [one.words[1] for one in config.of("http") if one.name == "server_names_hash_bucket_size" and one.file not in mine]
    module.exit_json(
        changed=False,
        installed=True,
        version=built(r"nginx/([0-9.]+)", ""),
        openssl=built(r"running with OpenSSL ([0-9.]+)", "") or built(r"built with OpenSSL ([0-9.]+)", ""),
        user=user[0],
        group=user[-1],
        problem=err.strip() if code else "",
        modules=modules,
        without=re.findall(r"--without-(http_\w+_module)", build),
        includes={name: [one.words[1] for one in config.of(*blocks) if one.name == "include"] for name, blocks in {"main": (), "http": ("http",)}.items()},
        hash_bucket_size=int(bucket[0]) if bucket else 0,
        server_names=sorted(
            {name for server in servers if server.file in mine for one in server.inside if one.name == "server_name" for name in one.words[1:]}
        ),
        ports=sorted(ports - {0}),
        newer=[path for path in module.params["files"] if running and changed_since(running, path)],
        clashes=sorted(clashes),
        rivals=list(rivals(config, mine, {name.lower() for name in module.params["names"]}, set(module.params["ports"]))),
        foreign_defaults=foreign_defaults(config, mine, built(r"nginx/([0-9.]+)", "0")),
    )


if __name__ == "__main__":
    main()
