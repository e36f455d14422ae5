# SPDX-License-Identifier: GPL-3.0-or-later
"""Put uv in the place of pip for ansible-test.

sanity_pip.py CACHE

ansible-test downloads pip for each of its environments, and pip then fetches every package anew. What this puts into the cache of
downloads calls uv instead: it needs no such download, shares one cache, and trusts the authorities that this machine trusts.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import ansible_test

PIP = """
import os, subprocess, sys
command, *words = [word for word in sys.argv[1:] if word not in ("--disable-pip-version-check", "-y")]
command = [{uv!r}, "pip", command, "--quiet", "--python", sys.executable, *words]
sys.exit(subprocess.call(command, env={{**os.environ, **{environment!r}}}))
"""
GET_PIP = """
import pathlib, sysconfig
pip = pathlib.Path(sysconfig.get_path("purelib"), "pip")
pip.mkdir()
(pip / "__init__.py").touch()
(pip / "__main__.py").write_text({pip!r})
"""

cache = Path(sys.argv[1])
source = Path(*ansible_test.__path__, "_internal/python_requirements.py").read_text()
version = re.search(r"\bpip='(.+)'", source)[1].replace(".", "_")
# ansible-test passes on little more than PATH and HOME: these are what uv needs to reach an index.
wanted = re.compile(r"UV_\w+|SSL_CERT_\w+|\w+_proxy", re.IGNORECASE)
environment = {name: value for name, value in os.environ.items() if wanted.fullmatch(name)}
# Uncompiled, docutils complains when it is first loaded, and the test fails.
environment["UV_COMPILE_BYTECODE"] = "1"
cache.mkdir(parents=True, exist_ok=True)
(cache / f"get_pip_{version}.py").write_text(GET_PIP.format(pip=PIP.format(uv=shutil.which("uv"), environment=environment)))
