# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else serves a name, by what is configured; molecule asks a real nginx."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.nginx_config import Config
from ansible_collections.mlops.mlflow.plugins.modules.nginx_info import foreign_defaults, rivals

OURS = "server { listen 443 ssl; server_name mlflow.test; }"


@pytest.fixture
def ask(tmp_path: Path) -> t.Callable[..., list[tuple[str, str, int, bool]]]:
    (tmp_path / "sites").mkdir()
    (tmp_path / "nginx.conf").write_text("events {}\nhttp { include sites/*; }\n")
    (tmp_path / "sites/ours").write_text(OURS)

    def answer(**sites: str) -> list[tuple[str, str, int, bool]]:
        for name, content in sites.items():
            (tmp_path / "sites" / name).write_text(content)
        found = rivals(Config(str(tmp_path / "nginx.conf")), {str(tmp_path / "sites/ours")}, {"mlflow.test", "alias.test"}, {80, 443})
        return [(Path(one["file"]).name, one["name"], one["port"], one["alone"]) for one in found]

    return answer


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (OURS, ("mlflow.test", 443, True)),
        ("server { listen 80; server_name mlflow.test; }", ("mlflow.test", 80, True)),
        ("server { server_name MLflow.test alias.test; }", ("alias.test", 80, True)),
        ("server { listen [::]:443 ssl; server_name .mlflow.test; }", ("mlflow.test", 443, False)),
        ("server { server_name mlflow.test shop.test; }", ("mlflow.test", 80, False)),
        ("server { server_name mlflow.test; } server { server_name shop.test; }", ("mlflow.test", 80, False)),
        # a server without a name answers for all that no site has
        ("server { server_name mlflow.test; } server { listen 80 default_server; return 444; }", ("mlflow.test", 80, False)),
        ("gzip on; server { server_name mlflow.test; }", ("mlflow.test", 80, False)),
        ("upstream app { server 127.0.0.1:5000; } server { server_name mlflow.test; location / { proxy_pass http://app; } }", ("mlflow.test", 80, True)),
    ],
)
def test_a_server_for_our_name_is_found(ask: t.Callable[..., list[tuple[str, str, int, bool]]], content: str, expected: tuple[str, int, bool]) -> None:
    assert ask(theirs=content) == [("theirs", *expected)]


@pytest.mark.parametrize(
    "content",
    [
        "server { listen 8443 ssl; server_name mlflow.test; }",
        "server { server_name shop.test; }",
        "server { listen unix:/run/x.sock; server_name mlflow.test; }",
        "# server { server_name mlflow.test; }",
    ],
)
def test_what_is_no_rival_is_left_alone(ask: t.Callable[..., list[tuple[str, str, int, bool]]], content: str) -> None:
    assert ask(theirs=content) == []


@pytest.mark.parametrize(
    ("made", "used"),
    [
        ("upstream app { server 127.0.0.1:5000; }", "location / { proxy_pass http://app; }"),
        ("map $host $place { default a; }", "location / { return 200 $place; }"),
    ],
)
def test_a_file_from_which_another_takes_something_is_not_alone(ask: t.Callable[..., list[tuple[str, str, int, bool]]], made: str, used: str) -> None:
    theirs = f"{made} server {{ server_name mlflow.test; {used} }}"
    assert ask(theirs=theirs, shop=f"server {{ server_name shop.test; {used} }}") == [("theirs", "mlflow.test", 80, False)]


def test_a_server_in_the_main_file_is_not_alone(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("events {}\nhttp { server { server_name mlflow.test; } }\n")
    (found,) = rivals(Config(str(tmp_path / "nginx.conf")), set(), {"mlflow.test"}, {80})
    assert not found["alone"]


@pytest.fixture
def decides(tmp_path: Path) -> t.Callable[..., list[tuple[str, int, dict[str, str]]]]:
    """By file, port and settings: who decides, where the port is shared with what is given."""
    (tmp_path / "sites").mkdir()
    settings = "ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519:prime256v1:secp384r1; ssl_session_timeout 1d; ssl_session_cache shared:ours:10m;"
    ours = f"listen 443 ssl; listen [::]:443 ssl; {settings}"
    (tmp_path / "sites/zz-ours").write_text(f"server {{ {ours} server_name x.invalid; }} server {{ listen 80; {ours} server_name mlflow.test; }}")

    def answer(http: str = "", version: str = "1.22.1", **sites: str) -> list[tuple[str, int, dict[str, str]]]:
        (tmp_path / "nginx.conf").write_text(f"events {{}}\nhttp {{ {http} include sites/*; }}\n")
        for name, content in sites.items():
            (tmp_path / "sites" / name).write_text(content)
        found = foreign_defaults(Config(str(tmp_path / "nginx.conf")), {str(tmp_path / "sites/zz-ours")}, version)
        return [(Path(one["file"]).name, one["port"], one["settings"]) for one in found]

    return answer


SAME = "ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519:P-256:P-384; ssl_session_timeout 86400; ssl_session_cache shared:theirs:1m;"


@pytest.mark.parametrize(
    "listen",
    ["443 ssl", "443 ssl default_server", "*:443 ssl", "0.0.0.0:443 default ssl", "[::]:443 ssl", "443", "443 ssl; listen [::]:443 ssl"],
)
def test_the_default_server_of_our_port_is_told(decides: t.Callable[..., t.Any], listen: str) -> None:
    theirs = f"server {{ listen {listen}; server_name shop.test; {SAME.replace('TLSv1.2 ', '')} }}"
    assert decides(shop=theirs) == [("shop", 443, {"ssl_protocols": "TLSv1.3"})]


@pytest.mark.parametrize("listen", ["8443 ssl default_server", "192.0.2.1:443 ssl default_server", "[::1]:443 ssl", "443 quic", "80", "unix:/run/x ssl", ""])
def test_the_default_server_of_another_socket_decides_nothing(decides: t.Callable[..., t.Any], listen: str) -> None:
    assert decides(shop=f"server {{ {f'listen {listen};' if listen else ''} ssl_protocols TLSv1.3; }}") == []


def test_who_comes_after_us_decides_only_as_default_server(decides: t.Callable[..., t.Any]) -> None:
    assert decides(zzz="server { listen 443 ssl; ssl_protocols TLSv1.3; }") == []
    assert [one[0] for one in decides(zzz="server { listen 443 default_server ssl; ssl_protocols TLSv1.3; }")] == ["zzz"]
    assert [one[0] for one in decides(shop="server { listen [::]:443 ssl; }")] == ["shop", "zzz"], "on IPv6, and on IPv4"


DEFAULTS = {"ssl_ecdh_curve": "auto", "ssl_session_timeout": "5m", "ssl_session_cache": "none"}


@pytest.mark.parametrize(
    ("http", "server", "version", "expected"),
    [
        ("", SAME, "1.22.1", {}),
        (SAME, "", "1.22.1", {}),
        (SAME, "ssl_ecdh_curve P-384; ssl_session_timeout 1440m;", "1.22.1", {"ssl_ecdh_curve": "P-384"}),
        (SAME, "ssl_session_timeout 1d 1s;", "1.22.1", {"ssl_session_timeout": "1d 1s"}),
        (SAME, "ssl_session_cache off;", "1.22.1", {"ssl_session_cache": "off"}),
        # with our ciphers nobody gets them anyway
        (SAME, "ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;", "1.22.1", {}),
        (SAME, "ssl_protocols TLSv1.2; ssl_protocols TLSv1.3;", "1.22.1", {}),
        (SAME, "ssl_protocols TLSv1.2;", "1.22.1", {"ssl_protocols": "TLSv1.2"}),
        ("ssl_protocols TLSv1.3;", SAME, "1.22.1", {}),
        # what nginx has where nobody says anything
        ("", "", "1.22.1", {"ssl_protocols": "TLSv1 TLSv1.1 TLSv1.2", **DEFAULTS}),
        ("", "", "1.26.3", DEFAULTS),
        # from there on each server has its own protocols
        ("", SAME.replace("TLSv1.2 ", ""), "1.29.1", {"ssl_protocols": "TLSv1.3"}),
        ("", SAME.replace("TLSv1.2 ", ""), "1.29.2", {}),
        ("", "ssl_protocols TLSv1.3;", "1.31.5", DEFAULTS),
    ],
)
def test_what_differs_from_ours_is_told(decides: t.Callable[..., t.Any], http: str, server: str, version: str, expected: dict[str, str]) -> None:
    assert decides(http, version, shop=f"server {{ listen 443 ssl; {server} }}") == ([("shop", 443, expected)] if expected else [])


def test_a_server_in_the_main_file_may_decide(decides: t.Callable[..., t.Any]) -> None:
    assert decides("server { listen 443 ssl; }", "1.26.3") == [("nginx.conf", 443, DEFAULTS)]


def test_no_default_server_decides_for_plain_http(tmp_path: Path) -> None:
    (tmp_path / "nginx.conf").write_text("events {}\nhttp { server { listen 80; } include ours; }\n")
    (tmp_path / "ours").write_text("server { listen 80; server_name mlflow.test; }")
    assert foreign_defaults(Config(str(tmp_path / "nginx.conf")), {str(tmp_path / "ours")}, "1.22.1") == []
