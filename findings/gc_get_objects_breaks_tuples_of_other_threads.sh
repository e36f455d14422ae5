#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
#
# CPython 3.10.13, 3.12.1 and 3.13.0: while one thread loops over gc.get_objects(), as memory profilers and searches for all instances of a
# class do, about one call in twenty of sqlparse.parse() (sqlparse 0.6.1, PyPI) in another thread fails:
#
#   SystemError: Objects/tupleobject.c:911: bad argument to internal function
#
# tuple(generator) makes a tuple that it lengthens, and lengthening wants to hold the only reference: the list of gc.get_objects() has another.
# CPython 3.14.8: none in 13,600 calls. One would guess that looking at objects changes nothing for the code that makes them; the documentation
# warns of objects "under construction" at gc.get_referrers() alone. Why it matters: MLflow parses each list's order with sqlparse, takes any
# exception for bad input, and answers 400 "Error on parsing order_by clause", which no client sends again. A server that looked for its
# SQLAlchemy engines this way at the end of each worker lost one request in some dozens of restarts; SQLAlchemy's event engine_connect names them too.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sqlparse==0.6.1
cat >race.py <<'PY'
import gc
import sys
import threading
import time

import sqlparse

stop = threading.Event()


def walk():
    while not stop.is_set():
        sum(isinstance(found, threading.Thread) for found in gc.get_objects())


walker = threading.Thread(target=walk)
walker.start()
good, errors = 0, []
end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        sqlparse.parse("creation_time DESC")
        good += 1
    except SystemError as error:
        errors.append(str(error))
stop.set()
walker.join()
print(f"Python {sys.version.split()[0]}: {good} calls passed, {len(errors)} failed", *errors[:1])
fails = sys.version_info < (3, 14)
sys.exit(0 if good and bool(errors) == fails and all("tupleobject.c" in error for error in errors) else 1)
PY
venv/bin/python race.py
