# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a unit started and read; molecule/repair asks systemd itself."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.unit_times import changed_since, times

START, UP, LATER = "10000000", "12000000", "15000000"


def unit(state: str, changed: str, active: str = UP, result: str | None = "success") -> dict[str, str]:
    """As `systemctl show` answers, with times in microseconds since the boot."""
    answer = {"ActiveState": state, "StateChangeTimestampMonotonic": changed, "ActiveEnterTimestampMonotonic": active}
    answer["InactiveExitTimestampMonotonic"] = START
    return answer if result is None else {**answer, "ReloadResult": result}


@pytest.mark.parametrize(
    ("properties", "started", "read"),
    [
        (unit("active", UP), 10, 10),
        (unit("active", LATER), 10, 15),
        (unit("active", LATER, result="exit-code"), 10, 10),
        (unit("activating", START, active="0"), 10, 10),
        # started again: the old time stands until it is up
        (unit("activating", "11000000", active="5000000"), 10, 10),
        (unit("active", UP, result=None), 10, 10),
        # since the stop began
        (unit("deactivating", LATER), 10, 10),
    ],
    ids=["started", "reloaded", "reload-failed", "starts", "restarts", "socket", "stops"],
)
def test_a_unit_that_runs(properties: dict[str, str], started: int, read: int) -> None:
    boot = time.time() - time.monotonic()
    assert times(properties) == pytest.approx((boot + started, boot + read), abs=0.01)


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_unit_that_does_not_run(state: str) -> None:
    assert times(unit(state, LATER)) == (0, 0)


def test_a_file_that_keeps_its_old_time_of_modification_has_changed(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("of a backup")
    os.utime(tmp_path / "old", (0, 0))
    before = time.time()
    time.sleep(0.05)  # the kernel's clock for files has steps
    shutil.copy2(tmp_path / "old", tmp_path / "copied")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    (tmp_path / "moved").write_text("moved")
    after = time.time()
    assert [changed_since(before, str(tmp_path / name)) for name in ("old", "copied", "link", "none")] == [False, True, True, False]
    time.sleep(0.05)
    assert not changed_since(after, str(tmp_path / "link"))
    (tmp_path / "moved").rename(tmp_path / "old")
    assert changed_since(after, str(tmp_path / "old"))
    assert changed_since(after, str(tmp_path / "link"))
