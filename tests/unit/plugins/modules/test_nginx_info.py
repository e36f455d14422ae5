# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else serves a name, by what is configured; molecule asks a real nginx."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.nginx_config import Config
from ansible_collections.mlops.mlflow.plugins.modules.nginx_info import rivals

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
