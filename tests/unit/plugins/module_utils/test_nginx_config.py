# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A configuration is read as the real nginx reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.nginx_config import Config, port_of, walk

MAIN = r"""# user nobody; a comment
user "www-data" www-data; error_log stderr; pid TOP/pid;
events { worker_connections 16; } # }
http {
  access_log off;
  client_body_temp_path TOP/t1; proxy_temp_path TOP/t2; fastcgi_temp_path TOP/t3; uwsgi_temp_path TOP/t4; scgi_temp_path TOP/t5;
  map $uri $a{x} { default "a;b{c}\"d"; 'e f' g\ h; "~^/[0-9]{2}$" two; }
  map $uri $b { default ${uri}x;# no comment
  }
  include sites/*;
}
"""
SITE = """server { listen 127.0.0.1:8081; listen [::1]:8082; listen unix:TOP/sock;
  server_name one.test "two.test"
    three.test; satisfy# part of the word
 "any"; }
"""


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "sites").mkdir()
    (tmp_path / "nginx.conf").write_text(MAIN.replace("TOP", str(tmp_path)).replace("$a{x}", "$a"))
    (tmp_path / "sites" / "a").write_text(SITE.replace("TOP", str(tmp_path)).replace("satisfy#", "satisfy #"))
    return tmp_path


def test_what_nginx_accepts_is_read(top: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert nginx, "apt install nginx"
    run = subprocess.run([nginx, "-t", "-c", top / "nginx.conf"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr

    config = Config(str(top / "nginx.conf"))
    assert config.last("user") == ["www-data", "www-data"]
    maps = [directive for directive in config.of("http") if directive.name == "map"]
    assert [[inner.words for inner in one.inside] for one in maps] == [
        [["default", 'a;b{c}"d'], ["e f", "g\\ h"], ["~^/[0-9]{2}$", "two"]],
        [["default", "${uri}x"]],
    ]
    assert [(one.words[1:], one.file) for one in config.of("http", "server") if one.name == "server_name"] == [
        (["one.test", "two.test", "three.test"], str(top / "sites" / "a"))
    ]
    assert config.last("satisfy", "http", "server") == ["any"]
    assert [port_of(one.words[1]) for one in walk(config.directives) if one.name == "listen"] == [8081, 8082, 0]


@pytest.mark.parametrize("listen, port", [("443", 443), ("*:8080", 8080), ("[::]:80", 80), ("[::1]", 80), ("localhost", 80), ("unix:/run/a:80", 0)])
def test_port_of_listen(listen: str, port: int) -> None:
    assert port_of(listen) == port


@pytest.mark.parametrize("text", ["", "}", "a {", "a { b", 'a "b', "include nginx.conf;", "include */nowhere;", "x_by_lua_block { a = '}' }"])
def test_what_nginx_would_refuse_ends_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "nginx.conf").write_text(f"user one;\n{text}")
    assert Config(str(tmp_path / "nginx.conf")).last("user") == ["one"]
