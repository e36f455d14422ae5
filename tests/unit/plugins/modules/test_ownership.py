# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was on a host before is named, or moved aside; what is marked belongs to the deployment."""

from __future__ import annotations

import json
import os
import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import run


@pytest.fixture
def options(tmp_path: Path) -> dict[str, t.Any]:
    return {
        "mark": f"{tmp_path}/etc/deployment.json",
        "deployment": {"mlflow_home": f"{tmp_path}/home", "mlflow_database_name": "mlflow"},
        "signs": [{"path": f"{tmp_path}/unit", "pattern": r"^ExecStart=(?P<mlflow_home>\S+)/libexec/serve$"}],
        "paths": [
            {"path": f"{tmp_path}/home", "variable": "mlflow_home", "replaced": False, "overlook": ["artifacts"]},
            {"path": f"{tmp_path}/home/requirements.txt"},
            {"path": f"{tmp_path}/unit"},
        ],
        "variable": "mlflow_take_over",
    }


def claimed(options: dict[str, t.Any]) -> None:
    assert run("ownership", **options, state="claimed")["changed"]


def test_a_bare_host_is_marked_once(tmp_path: Path, options: dict[str, t.Any]) -> None:
    answer = run("ownership", **options)
    assert (answer["changed"], answer["ours"], answer["marked"], answer["there"], os.listdir(tmp_path)) == (False, False, False, [], [])
    assert run("ownership", **options, state="claimed", check=True)["changed"] and os.listdir(tmp_path) == []
    claimed(options)
    assert json.loads(Path(options["mark"]).read_text()) == options["deployment"]
    for check in True, False:
        answer = run("ownership", **options, state="claimed", check=check)
        assert (answer["changed"], answer["ours"], answer["marked"]) == (False, True, True)


@pytest.mark.parametrize("left", ["home", "home/artifacts/0", "home/lost+found", "home/tmp/empty"])
def test_empty_directories_are_nobodys(tmp_path: Path, options: dict[str, t.Any], left: str) -> None:
    (tmp_path / left).mkdir(parents=True)
    assert not run("ownership", **options).get("failed")


@pytest.mark.parametrize("left", ["home/requirements.txt", "home/venv/bin/python", "home/.env"])
def test_what_somebody_made_is_named(tmp_path: Path, options: dict[str, t.Any], left: str) -> None:
    (tmp_path / left).parent.mkdir(parents=True)
    (tmp_path / left).write_text("theirs\n")
    answer = run("ownership", **options)
    name = left.split("/")[1]
    assert answer["msg"] == (
        f"{tmp_path}/home ({name}) was not made by this deployment: move it away, or set mlflow_home to other places; "
        "or set mlflow_take_over to true, and what is replaced is kept beside, with the time in its name."
    )


def test_a_link_is_somebodys(tmp_path: Path, options: dict[str, t.Any]) -> None:
    (tmp_path / "home/tmp").mkdir(parents=True)
    (tmp_path / "home/tmp/link").symlink_to("/var/lib")
    assert "home (tmp) was not made" in run("ownership", **options)["msg"]


def test_what_is_taken_over_is_kept_beside(tmp_path: Path, options: dict[str, t.Any]) -> None:
    (tmp_path / "home/venv").mkdir(parents=True)
    (tmp_path / "home/venv/python").write_text("theirs\n")
    (tmp_path / "home/requirements.txt").write_text("theirs\n")
    (tmp_path / "unit").symlink_to("nowhere")
    (tmp_path / "kept").mkdir()
    options["paths"][-1]["keep_in"] = f"{tmp_path}/kept"
    options["take_over"] = True
    assert not run("ownership", **options)["changed"]
    kept = run("ownership", **options, state="claimed")["kept"]
    assert sorted(kept) == [f"{tmp_path}/home/requirements.txt", f"{tmp_path}/unit"]
    assert all(re.search(r"\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ$", path) for path in kept.values())
    assert Path(kept[f"{tmp_path}/home/requirements.txt"]).read_text() == "theirs\n"
    assert kept[f"{tmp_path}/unit"].startswith(f"{tmp_path}/kept/unit.") and os.readlink(kept[f"{tmp_path}/unit"]) == "nowhere"
    assert (tmp_path / "home/venv/python").exists()
    assert not run("ownership", **options, state="claimed")["changed"]


def test_another_deployment_is_refused_and_named(tmp_path: Path, options: dict[str, t.Any]) -> None:
    claimed(options)
    options["deployment"] = {"mlflow_home": "/srv/mlflow", "mlflow_database_name": "mlflow"}
    assert run("ownership", **options)["msg"] == (
        f"This host has a deployment ({tmp_path}/etc/deployment.json) with mlflow_home {tmp_path}/home, not /srv/mlflow: "
        "set mlflow_home as it is there or take another host; or set mlflow_take_over to true to put this deployment in its place; "
        "what is replaced is kept beside, with the time in its name."
    )
    (tmp_path / "unit").write_text("of the other\n")
    assert list(run("ownership", **options, take_over=True, state="claimed")["kept"]) == [f"{tmp_path}/unit"]
    assert not run("ownership", **options, state="claimed")["changed"]


def test_one_of_the_values_may_change(options: dict[str, t.Any]) -> None:
    options["all_differ"] = True
    claimed(options)
    options["deployment"]["mlflow_home"] = "/srv/mlflow"
    assert not run("ownership", **options).get("failed")
    options["deployment"]["mlflow_database_name"] = "other"
    assert run("ownership", **options)["failed"]


def test_a_sign_of_an_earlier_version_stands_for_the_mark(tmp_path: Path, options: dict[str, t.Any]) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/requirements.txt").write_text("ours\n")
    (tmp_path / "unit").write_text(f"[Service]\nExecStart={tmp_path}/home/libexec/serve\n")
    answer = run("ownership", **options)
    assert (answer["ours"], answer["marked"], answer["there"]) == (True, False, [entry["path"] for entry in options["paths"]])
    (tmp_path / "unit").write_text("[Service]\nExecStart=/srv/mlflow/libexec/serve\n")
    assert "This host has a deployment already with mlflow_home /srv/mlflow, not" in run("ownership", **options)["msg"]
    (tmp_path / "unit").write_text("[Service]\nExecStart=/usr/local/bin/mlflow server\n")
    assert f"home (requirements.txt) and {tmp_path}/unit were not made by this deployment" in run("ownership", **options)["msg"]


def test_a_mark_that_was_cut_off_is_a_mark(options: dict[str, t.Any]) -> None:
    claimed(options)
    Path(options["mark"]).write_text("")
    assert run("ownership", **options)["ours"]
    claimed(options)


def test_a_mark_with_names_of_before_is_read(options: dict[str, t.Any]) -> None:
    options["deployment"]["mlflow_os_user"] = "ml"
    Path(options["mark"]).parent.mkdir(parents=True)
    Path(options["mark"]).write_text(json.dumps({**options["deployment"], "mlflow_os_user": None, "mlflow_user": "ml"}))
    assert not run("ownership", **options).get("failed")
    claimed(options)
    assert json.loads(Path(options["mark"]).read_text()) == options["deployment"]


def test_a_person_is_no_system_user(options: dict[str, t.Any]) -> None:
    for take_over in False, True:
        answer = run("ownership", **options, user="root", group="nogroup", take_over=take_over)
        assert re.match("The user root has the login shell /.*: set mlflow_os_user to another name, such as mlflow-server.$", answer["msg"])
    assert not run("ownership", **options, user="nobody-has-it", group="nobody-has-it").get("failed")


def test_rights_of_a_user_who_was_taken_over_are_told(options: dict[str, t.Any]) -> None:
    """By a version that took whom it found."""
    Path(options["mark"]).parent.mkdir()
    Path(options["mark"]).write_text(json.dumps({**options["deployment"], "mlflow_os_user": "root"}))
    answer = run("ownership", **options, user="root", group="nogroup")
    assert not answer.get("failed")
    sentence = "MLflow runs as root, who is in the group root and so has its rights: take the user out of it (gpasswd --delete root root)."
    assert sentence in json.dumps(answer["warnings"])
