# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a systemd unit runs with something older than what is written."""

from __future__ import annotations

import os
import time
import typing as t

# What times() wants to know of `systemctl show`.
PROPERTIES = (
    "ActiveState",
    "ActiveEnterTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "ReloadResult",
    "StateChangeTimestampMonotonic",
)


class Times(t.NamedTuple):
    """Seconds since 1970, both 0 where the unit does not run."""

    started: float
    read: float


def times(unit: dict[str, str]) -> Times:
    """When a unit last began to start, and when it last read what it reads.

    Not by ExecMainStartTimestamp, as a daemon that forks has read its files before systemd knows its main process. Not by the times of
    ExecReload=, which systemd forgets at each daemon-reload: once a unit is active its state changes by a reload alone. Not by the wall
    clock, which may have been set since.
    """
    if unit["ActiveState"] in ("inactive", "failed"):
        return Times(0, 0)
    started, active, changed = (int(unit[f"{name}TimestampMonotonic"]) for name in ("InactiveExit", "ActiveEnter", "StateChange"))
    # Units of other types have no ReloadResult. One that is being stopped has changed its state by that.
    reloaded = unit["ActiveState"] != "deactivating" and changed > active > started and unit.get("ReloadResult") == "success"
    boot = time.time() - time.monotonic()
    return Times(boot + started / 1e6, boot + (changed if reloaded else started) / 1e6)


def changed_since(when: float, path: str) -> bool:
    """Whether a file, or what a link points to, was changed after `when`.

    By ctime: a file that is restored from a backup, copied with `cp -p` or moved into place keeps the time of its modification.
    """

    def changed(ask: t.Callable[[str], os.stat_result]) -> bool:
        try:
            return ask(path).st_ctime > when
        except OSError:  # it is not there, or leads nowhere
            return False

    return changed(os.lstat) or changed(os.stat)
