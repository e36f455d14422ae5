# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module does to real files."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import resource
import stat
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import ansible
import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.htpasswd import Hashing, identify
from ansible_collections.mlops.mlflow.tests.unit.plugins.htpasswd_helpers import QUICK, four_ways, run, snapshot
from ansible_collections.mlops.mlflow.tests.unit.plugins.module_helpers import COLLECTIONS, RUN_MODULE

SECRET = "correct horse"
HASH = Hashing("bcrypt", 4).hash(SECRET).decode()
OTHER_HASH = Hashing("sha512_crypt", 1000).hash(SECRET).decode()
UNMANAGED = b"# staff\n\n  \t\n#old:$apr1$x\nbob:{SHA}x:a comment\r\nca\xffrol:\n"
ROOT = os.geteuid() == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


def hashes(path: Path) -> dict[str, str]:
    entries = [line.split(":")[:2] for line in path.read_text().splitlines()]
    assert len(entries) == len(dict(entries))
    return dict(entries)


def changes(answer: dict[str, t.Any]) -> tuple[list[str], list[str], list[str]]:
    return answer["added"], answer["updated"], answer["removed"]


# One user


def test_creates_the_file(path: Path) -> None:
    done = four_ways(path, name="alice", password=SECRET, **QUICK)
    assert changes(done) == (["alice"], [], [])
    assert (done["path"], done["scheme"], done["rounds"]) == (str(path), "bcrypt", 4)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes() == f"alice:{hashes(path)['alice']}\n".encode()
    assert Hashing("bcrypt", 4).matches(SECRET, hashes(path)["alice"].encode())
    assert hashes(path)["alice"].startswith("$2y$04$")


def test_defaults_are_strong(path: Path) -> None:
    done = four_ways(path, name="alice", password=SECRET)
    assert (done["scheme"], done["rounds"]) == ("bcrypt", 12)
    assert identify(hashes(path)["alice"].encode()) == ("bcrypt", 12)


def test_another_password_is_an_update(path: Path) -> None:
    path.write_bytes(UNMANAGED + f"alice:{HASH}:note\r\n".encode() + b"dave:x")
    done = four_ways(path, name="alice", password="another", **QUICK)
    assert changes(done) == ([], ["alice"], [])
    start, end = path.read_bytes().split(b"alice:")
    assert (start, end[60:]) == (UNMANAGED, b":note\r\ndave:x")
    assert Hashing("bcrypt", 4).matches("another", end[:60])


def test_the_same_password_is_no_change(path: Path) -> None:
    path.write_text(f"alice:{HASH}")
    assert not run(path, name="alice", password=SECRET, **QUICK)["changed"]
    assert path.read_text() == f"alice:{HASH}"


@pytest.mark.parametrize("old", ["bcrypt", "sha512_crypt", "sha256_crypt", "apr_md5_crypt"])
@pytest.mark.parametrize("new", ["bcrypt", "sha512_crypt", "sha256_crypt", "apr_md5_crypt"])
def test_another_scheme_is_an_update(path: Path, old: str, new: str) -> None:
    rounds = {"bcrypt": 4, "sha512_crypt": 1000, "sha256_crypt": 1000, "apr_md5_crypt": None}
    path.write_bytes(b"alice:" + Hashing(old, rounds[old]).hash(SECRET))
    options = {"name": "alice", "password": SECRET, "hash_scheme": new, "rounds": rounds[new]}
    if old == new:
        assert not run(path, **options)["changed"]
    else:
        assert changes(four_ways(path, **options)) == ([], ["alice"], [])
        assert identify(hashes(path)["alice"].encode()) == (new, rounds[new])


@pytest.mark.parametrize(
    "scheme, old, new",
    [("bcrypt", 4, 5), ("bcrypt", 5, 4), ("sha512_crypt", 5000, 1000), ("sha256_crypt", 1000, 5000)],
)
def test_other_rounds_are_an_update(path: Path, scheme: str, old: int, new: int) -> None:
    path.write_bytes(b"alice:" + Hashing(scheme, old).hash(SECRET))
    done = four_ways(path, name="alice", password=SECRET, hash_scheme=scheme, rounds=new)
    assert (changes(done), done["rounds"]) == (([], ["alice"], []), new)
    assert identify(hashes(path)["alice"].encode()) == (scheme, new)


@pytest.mark.parametrize("old", ["", "x", "{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=", "$6$rounds=9$$", "$2b$99$", "\xff", "$2y$04$" + "9" * 53])
def test_an_unknown_hash_is_an_update(path: Path, old: str) -> None:
    path.write_text(f"alice:{old}\n", "latin-1")
    assert changes(four_ways(path, name="alice", password=SECRET, **QUICK)) == ([], ["alice"], [])


def test_bcrypt_gets_the_name_that_apache_knows(path: Path) -> None:
    path.write_text(f"alice:{HASH.replace('$2y$', '$2b$')}\n")
    assert changes(four_ways(path, name="alice", password=SECRET, **QUICK)) == ([], ["alice"], [])
    assert path.read_text() == f"alice:{HASH}\n"


def test_password_hash(path: Path) -> None:
    assert changes(four_ways(path, name="alice", password_hash=OTHER_HASH)) == (["alice"], [], [])
    assert hashes(path) == {"alice": OTHER_HASH}
    assert changes(four_ways(path, name="alice", password_hash=HASH.replace("$2y$", "$2b$"))) == ([], ["alice"], [])
    assert hashes(path) == {"alice": HASH}


def test_update_password_on_create(path: Path) -> None:
    options = {"name": "alice", "update_password": "on_create", **QUICK}
    assert changes(four_ways(path, password=SECRET, **options)) == (["alice"], [], [])
    before = snapshot(path.parent)
    for other in {"password": "another"}, {"password_hash": OTHER_HASH}, {"password": SECRET, "rounds": 5}:
        assert not run(path, **{**options, **other})["changed"]
        assert snapshot(path.parent) == before


def test_absent(path: Path) -> None:
    path.write_bytes(UNMANAGED + f"alice:{HASH}\ndave:x".encode())
    assert changes(four_ways(path, name="alice", state="absent")) == ([], [], ["alice"])
    assert path.read_bytes() == UNMANAGED + b"dave:x"
    assert changes(four_ways(path, name="dave", state="absent")) == ([], [], ["dave"])
    assert path.read_bytes() == UNMANAGED.rstrip(b"\n")


def test_absent_removes_every_line_of_a_user(path: Path) -> None:
    path.write_text("alice:x\nbob:y\nalice:z\n")
    assert changes(four_ways(path, name="alice", state="absent")) == ([], [], ["alice"])
    assert path.read_text() == "bob:y\n"


def test_absent_without_a_file_is_no_change(path: Path) -> None:
    for missing in path, path / "deeper":
        assert not run(missing, name="alice", state="absent", create=False, mode="0600")["changed"]
    assert not path.exists()


@pytest.mark.parametrize("name", ["a b", "bob@example.test", "Ünï çødé", "漢字", "n" * 255, "a#b", "-n", "$2y$"])
@pytest.mark.parametrize("password", ["pä:ss wörd", "漢字!", "'\"\\$&", " a ", "#1", "w" * 72])
def test_unusual_names_and_passwords(path: Path, name: str, password: str) -> None:
    assert changes(run(path, name=name, password=password, **QUICK)) == ([name], [], [])
    assert not run(path, name=name, password=password, **QUICK)["changed"]
    assert run(path, name=name, password=password[:-2] + "ê", **QUICK, check=True)["updated"] == [name]


# Many users


def test_users(path: Path) -> None:
    path.write_bytes(UNMANAGED + b"dave:x\nerin:y")
    users = [
        {"name": "alice", "password": SECRET},
        {"name": "dave", "password_hash": OTHER_HASH},
        {"name": "erin", "state": "absent"},
        {"name": "frank", "state": "absent"},
    ]
    assert changes(four_ways(path, users=users, **QUICK)) == (["alice"], ["dave"], ["erin"])
    content = path.read_bytes()
    assert content.startswith(UNMANAGED + f"dave:{OTHER_HASH}\nalice:$2y$".encode())
    assert not content.endswith(b"\n")


def test_exclusive(path: Path) -> None:
    path.write_bytes(UNMANAGED + f"dave:x\nalice:{HASH}\ndave:x\n".encode())
    users = [{"name": "erin", "password_hash": OTHER_HASH}, {"name": "alice", "password": SECRET}]
    assert changes(four_ways(path, users=users, exclusive=True, **QUICK)) == (
        ["erin"],
        [],
        ["bob", "ca\\xffrol", "dave"],
    )
    assert path.read_text() == f"# staff\n\n  \t\n#old:$apr1$x\nalice:{HASH}\nerin:{OTHER_HASH}\n"


def test_exclusive_with_nobody(path: Path) -> None:
    assert not run(path, users=[], exclusive=True)["changed"]
    assert not path.exists()
    path.write_text("bob:x\n")
    assert not run(path, users=[])["changed"]
    assert changes(four_ways(path, users=[], exclusive=True)) == ([], [], ["bob"])
    assert path.read_bytes() == b""


def test_a_thousand_users(path: Path) -> None:
    users = [{"name": f"user{number}", "password_hash": HASH} for number in range(1000)]
    assert len(four_ways(path, users=users, exclusive=True)["added"]) == 1000


def test_tells_a_new_password_from_a_new_hash(path: Path) -> None:
    def replaced(**options: t.Any) -> list[str]:
        answers = [run(path, check=check, name="alice", **options) for check in (True, False)]
        assert answers[0]["replaced"] == answers[1]["replaced"] and answers[1]["changed"], answers
        return answers[1]["replaced"]

    assert replaced(password="one", hash_scheme="apr_md5_crypt") == []
    assert replaced(password="one", rounds=4) == []
    assert replaced(password="one", rounds=5) == []
    assert replaced(password="two", rounds=5) == ["alice"]
    assert replaced(password_hash=HASH) == ["alice"]
    path.write_text("alice:{SHA}x\n")
    assert replaced(password="two", rounds=4) == ["alice"]


# The file


def test_create_false(path: Path) -> None:
    path.write_text("bob:x\n")
    assert changes(four_ways(path, name="alice", password_hash=HASH, create=False)) == (["alice"], [], [])


def test_backup(path: Path) -> None:
    assert "backup_file" not in four_ways(path, name="alice", password_hash=HASH, backup=True)
    path.chmod(0o600)
    before = path.read_bytes()
    copy = Path(four_ways(path, name="alice", password_hash=OTHER_HASH, backup=True)["backup_file"])
    assert copy.read_bytes() == before
    assert (copy.parent, stat.S_IMODE(copy.stat().st_mode)) == (path.parent, 0o600)
    assert len(snapshot(path.parent)) == 2
    assert "backup_file" not in four_ways(path, name="alice", password_hash=OTHER_HASH, backup=True, mode="0640")


@pytest.mark.parametrize("mode", ["0600", 0o644, "u=rw,g=r,o="])
def test_mode(path: Path, mode: t.Any) -> None:
    done = four_ways(path, name="alice", password_hash=HASH, mode=mode)
    assert done["mode"] == {"0600": "0600", 0o644: "0644"}.get(mode, "0640")
    path.chmod(0o666)
    assert changes(four_ways(path, name="alice", password_hash=HASH, mode=mode)) == ([], [], [])


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_owner_and_group(path: Path) -> None:
    four_ways(path, name="alice", password_hash=HASH, owner="daemon", group="www-data", mode="0640")
    seen = path.stat()
    assert (path.owner(), path.group(), stat.S_IMODE(seen.st_mode)) == ("daemon", "www-data", 0o640)
    assert changes(four_ways(path, name="alice", password_hash=HASH, owner="root")) == ([], [], [])
    assert (path.owner(), path.group()) == ("root", "www-data")


def test_an_existing_file_keeps_what_is_not_given(path: Path) -> None:
    path.write_text("")
    path.chmod(0o604)
    if ROOT:
        os.chown(path, 1, 2)
    four_ways(path, name="alice", password_hash=HASH)
    seen = path.stat()
    assert stat.S_IMODE(seen.st_mode) == 0o604
    assert not ROOT or (seen.st_uid, seen.st_gid) == (1, 2)


def test_a_link_stays_a_link(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    path.symlink_to("elsewhere/htpasswd")
    for target_exists in False, True:
        password = {"password_hash": OTHER_HASH if target_exists else HASH}
        assert run(path, name="alice", **password, mode="0600", backup=True)["changed"]
        assert os.readlink(path) == "elsewhere/htpasswd"
        assert (elsewhere / "htpasswd").read_text() == f"alice:{password['password_hash']}\n"
        assert stat.S_IMODE((elsewhere / "htpasswd").stat().st_mode) == 0o600
    assert len(snapshot(path.parent)) == 2
    assert len(snapshot(elsewhere)) == 2


def test_diff_shows_names_and_no_hash(path: Path) -> None:
    path.write_bytes(UNMANAGED + f"alice:{HASH}\ndave:x\n".encode())
    path.chmod(0o644)
    users = [{"name": "alice", "password_hash": OTHER_HASH}, {"name": "erin", "password": SECRET}]
    users.append({"name": "dave", "state": "absent"})
    content, attributes = four_ways(path, users=users, mode="0640", **QUICK)["diff"]
    assert content == {
        "before_header": str(path),
        "after_header": str(path),
        "before": "bob\nca\\xffrol\nalice\ndave\n",
        "after": "bob\nca\\xffrol\nalice (new hash)\nerin\n",
    }
    assert attributes == {"before": {"mode": "0644"}, "after": {"mode": "0640"}}


def test_no_secret_in_any_answer(path: Path) -> None:
    path.write_text(f"bob:{OTHER_HASH}\n# {OTHER_HASH}\n")
    for user in {"password": SECRET}, {"password_hash": HASH}, {"password": SECRET * 99}, {"password_hash": HASH[:-1]}:
        for options in {"name": "alice", **user}, {"users": [{"name": "alice", **user}]}:
            answer = json.dumps(run(path, **options, **QUICK))
            assert SECRET not in answer and HASH[7:-1] not in answer and OTHER_HASH not in answer


# At every moment


def steps(directory: Path, act: t.Callable[[int], None]) -> t.Callable[[str, tuple], None]:
    """Make a hook that acts on each step that the module takes in a directory, before the step."""
    inside = False
    number = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal inside, number
        if not inside and str(directory) in str(args):
            inside = True
            number += 1
            act(number)
            inside = False

    return hook


def end_at(last: int) -> t.Callable[[int], None]:
    def act(number: int) -> None:
        if number == last:
            os._exit(1)

    return act


ONLY_ALICE = {"users": [{"name": "alice", "password_hash": OTHER_HASH}], "exclusive": True, "backup": True}


@pytest.mark.parametrize("existing", [False, True])
def test_no_moment_is_readable_by_the_world(path: Path, existing: bool, tmp_path: Path) -> None:
    if existing:
        path.write_text(f"alice:{HASH}\n")
        path.chmod(0o640)
    log = tmp_path.with_suffix(".log")

    def look(number: int) -> None:
        with log.open("a") as stream:
            for file in path.parent.iterdir():
                print(number, oct(file.stat().st_mode & 0o007), file.name, file=stream)

    old_umask = os.umask(0)
    try:
        answer = run(path, hook=steps(path.parent, look), **ONLY_ALICE)
    finally:
        os.umask(old_umask)
    assert answer["changed"]
    seen = [line.split() for line in log.read_text().splitlines()]
    assert {name.split("_")[0] for number, mode, name in seen} >= {"htpasswd", ".htpasswd"}
    assert {mode for number, mode, name in seen} == {"0o0"}, seen


@pytest.mark.parametrize("existing", [False, True])
def test_cut_off_at_every_step(path: Path, existing: bool) -> None:
    old = f"alice:{HASH}\nbob:x\n"
    new = f"alice:{OTHER_HASH}\n"
    for cut in range(1, 1000):
        for file in path.parent.iterdir():
            file.unlink()
        if existing:
            path.write_text(old)
            path.chmod(0o640)
        answer = run(path, hook=steps(path.parent, end_at(cut)), **ONLY_ALICE)
        assert path.exists() or not existing
        assert not path.exists() or path.read_text() in (old, new)
        assert all(stat.S_IMODE(file.stat().st_mode) & 0o007 == 0 for file in path.parent.iterdir())
        assert not run(path, **ONLY_ALICE).get("failed")
        assert path.read_text() == new
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        if answer:
            break
    assert cut > 5


def test_a_disk_that_is_full(path: Path) -> None:
    """A limit on the size of files stands for it: the write fails in its middle."""
    path.write_text(f"bob:{HASH}\n")
    before = snapshot(path.parent)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80, limits[1]))
    try:
        answer = run(path, name="alice", password_hash=HASH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answer["failed"] and answer["msg"].startswith(f"cannot replace {path}: ")
    assert snapshot(path.parent) == before


def test_two_writers_at_the_same_time(path: Path) -> None:
    """Each finds what the other wrote, so that no user gets lost."""
    names = [f"user{number}" for number in range(24)]
    with multiprocessing.get_context("fork").Pool(8) as writers:
        answers = writers.map(functools.partial(add, path), names)
    assert all(answer["changed"] for answer in answers), answers
    assert sorted(hashes(path)) == sorted(names)


def add(path: Path, name: str) -> dict[str, t.Any]:
    return run(path, name=name, password=SECRET, rounds=6)


def test_a_large_file(path: Path) -> None:
    path.write_text("".join(f"user{number}:{HASH}\n" for number in range(50_000)))
    users = [{"name": f"user{number}", "state": "absent"} for number in range(0, 50_000, 10)]
    begin = time.monotonic()
    assert len(run(path, users=users)["removed"]) == 5000
    assert len(run(path, users=[{"name": f"user{number}", "password_hash": HASH} for number in range(5000)])["added"]) == 500
    assert time.monotonic() - begin < 10


# What is refused


def user_faults() -> t.Iterator[tuple[dict[str, t.Any], str]]:
    for name, message in {
        "": "is empty",
        "a:b": "holds a colon",
        "a\nb": "control character",
        "a\0b": "control character",
        "a\x1bb": "control character",
        "a\x7f": "control character",
        "a\x85b": "control character",
        "a\ud800": "control character",
        "#alice": "begins with '#'",
        " alice": "white space",
        "alice ": "white space",
        "n" * 256: "longer than 255 bytes",
        "é" * 128: "longer than 255 bytes",
    }.items():
        yield {"name": name, "password": SECRET}, message
        yield {"name": name, "state": "absent"}, message
    for password, message in {
        "": "is empty",
        "a\0b": "control character",
        "line\n": "control character",
        "a\ud800": "control character",
        "w" * 73: "longer than the 72 bytes that bcrypt reads: shorten it, or set hash_scheme to sha512_crypt",
        "é" * 37: "longer than the 72 bytes that bcrypt reads",
    }.items():
        yield {"name": "alice", "password": password}, message
    yield {"name": "alice"}, "has no password: give password or password_hash, or set state to absent"
    yield {"name": "alice", "password": SECRET, "password_hash": HASH}, "keep one of them"
    for password_hash in "", SECRET, HASH[:-1], HASH + "x", HASH + "\n", "{SHA}x", "$1$a$b", "ü", "\ud800":
        yield {"name": "alice", "password_hash": password_hash}, "is no whole hash of bcrypt, sha512_crypt,"
    for password_hash in HASH.replace("$04$", "$03$"), OTHER_HASH.replace("=1000", "=999"):
        yield {"name": "alice", "password_hash": password_hash}, "is no whole hash of bcrypt, sha512_crypt,"


@pytest.mark.parametrize("user, message", list(user_faults()))
@pytest.mark.parametrize("many", [False, True])
def test_refuses_users(path: Path, user: dict[str, t.Any], message: str, many: bool) -> None:
    refuses(path, message, **({"users": [{"name": "bob", "password": SECRET}, user]} if many else user), **QUICK)


ALICE = {"name": "alice", "password": SECRET}


@pytest.mark.parametrize(
    "options, message",
    [
        ({**ALICE, "rounds": 3}, "rounds 3 is out of range for bcrypt: choose 4 to 31"),
        ({**ALICE, "rounds": 32}, "choose 4 to 31"),
        ({**ALICE, "rounds": 999, "hash_scheme": "sha512_crypt"}, "choose 1000 to 999999999"),
        ({**ALICE, "rounds": 10**9, "hash_scheme": "sha256_crypt"}, "choose 1000 to 999999999"),
        ({**ALICE, "rounds": 0}, "choose 4 to 31"),
        ({**ALICE, "rounds": 5, "hash_scheme": "apr_md5_crypt"}, "hash_scheme apr_md5_crypt has no rounds"),
        ({"name": "a", "password": "w" * 512, "hash_scheme": "sha256_crypt"}, "longer than the 511 bytes"),
        ({**ALICE, "hash_scheme": "des_crypt"}, "value of hash_scheme must be one of: bcrypt, sha512_crypt"),
        ({"users": [ALICE, {"name": "alice", "state": "absent"}]}, "users lists 'alice' more than once"),
        ({"users": [ALICE], "state": "absent"}, "state goes with name"),
        ({"users": [ALICE], "name": "bob"}, "mutually exclusive: name|users"),
        ({"users": [ALICE], "password": SECRET}, "mutually exclusive: password|users"),
        ({"users": [ALICE], "password_hash": HASH}, "mutually exclusive: password_hash|users"),
        ({**ALICE, "exclusive": True}, "exclusive is True but all of the following are missing: users"),
        ({}, "one of the following is required: name, users"),
        ({"users": [{"password": SECRET}]}, "missing required arguments: name"),
    ],
)
def test_refuses_options(path: Path, options: dict[str, t.Any], message: str) -> None:
    refuses(path, message, **options)


def refuses(path: Path, message: str, **options: t.Any) -> None:
    if not os.path.lexists(path):
        path.write_text("bob:x\n")
    before = snapshot(path.parent)
    for check in True, False:
        answer = run(path, check=check, **options)
        assert answer.get("failed") and not answer.get("changed"), answer
        assert message in answer["msg"] and "\n" not in answer["msg"], answer["msg"]
        assert "exception" not in answer
        assert SECRET not in json.dumps(answer)
    assert snapshot(path.parent) == before


@pytest.mark.parametrize("content", ["bob", "bob $2y$x", ":x", " bob:x", "bob :x", " :x", "\tbob:x", "\0", "# a\n\nbob"])
def test_refuses_broken_lines(path: Path, content: str) -> None:
    path.write_text(f"alice:x\n{content}\ncarol:x\n")
    number = 4 if content.startswith("#") else 2
    message = f"line {number} of the file is not `name:hash`: mend or delete it"
    refuses(path, message, **ALICE)
    refuses(path, message, name="alice", state="absent")


@pytest.mark.parametrize("content", ["  #bob:x", "\t# note: x", "\v#bob:x"])
def test_refuses_an_indented_comment_that_nginx_takes_for_a_user(path: Path, content: str) -> None:
    path.write_text(f"alice:x\n{content}\ncarol:x\n")
    refuses(path, "line 2 of the file is no comment for nginx, as it does not begin with '#': mend or delete it", **ALICE)


def test_refuses_a_user_who_is_there_twice(path: Path) -> None:
    path.write_text(f"alice:{HASH}\nbob:x\nalice:y\nbob:x\n")
    refuses(path, "the file holds user 'alice' 2 times: keep one of the lines", **ALICE)
    assert changes(run(path, name="carol", password_hash=HASH)) == (["carol"], [], [])


def test_refuses_what_is_no_file(path: Path) -> None:
    (path.parent / "loop").symlink_to("loop")
    os.mkfifo(path.parent / "pipe")
    for name in "loop", "pipe", ".":
        refuses(path.parent / name, "is not a regular file: give the path of a password file", **ALICE)
    for name in f"{path}/", f"{path.parent}/new/", "", "a\0b":
        answer = run(name, **ALICE)
        assert answer["failed"] and answer["msg"].endswith("is not a regular file: give the path of a password file"), answer


def test_refuses_to_create(path: Path) -> None:
    answer = run(path, **ALICE, create=False)
    assert (answer["failed"], answer["msg"]) == (True, f"path {path} does not exist: create it, or set create to true")


def test_refuses_a_missing_directory_but_only_warns_in_check_mode(path: Path) -> None:
    message = f"the directory {path} does not exist: create it first"
    checked = run(path / "deeper", check=True, **ALICE)
    assert (checked["changed"], checked["added"]) == (True, ["alice"])
    assert message in str(checked["warnings"])
    answer = run(path / "deeper", **ALICE)
    assert (answer["failed"], answer["msg"]) == (True, message)
    assert not path.exists()


def test_refuses_a_directory_that_takes_no_files() -> None:
    answer = run(Path("/proc/htpasswd"), **ALICE, **QUICK)
    assert answer["failed"] and answer["msg"].startswith("cannot replace /proc/htpasswd: ")


@pytest.mark.parametrize("fault", [{"owner": "no-such-user"}, {"group": "no-such-group"}, {"mode": "rwx"}])
@pytest.mark.parametrize("existing", [False, True])
def test_a_wrong_attribute_leaves_the_content(path: Path, fault: dict[str, str], existing: bool) -> None:
    if existing:
        path.write_text("bob:x\n")
    before = snapshot(path.parent)
    assert run(path, name="alice", password_hash=HASH, **fault)["failed"]
    assert snapshot(path.parent) == before


# Without the libraries


@pytest.fixture
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Python that has Ansible and nothing else."""
    site = tmp_path_factory.mktemp("site")
    (site / "ansible").symlink_to(Path(ansible.__file__).parent)
    return {"PYTHONPATH": f"{site}{os.pathsep}{COLLECTIONS}", "PATH": os.environ["PATH"]}


def run_bare(environment: dict[str, str], **options: t.Any) -> dict[str, t.Any]:
    command = [sys.executable, "-S", RUN_MODULE, "htpasswd"]
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": options})
    finished = subprocess.run(command, input=arguments, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    return json.loads(finished.stdout)


@pytest.mark.parametrize(
    "scheme, advice",
    [
        ("bcrypt", "install the Debian package python3-bcrypt, or bcrypt from PyPI"),
        ("sha512_crypt", "install the Debian package python3-passlib, or passlib or libpass from PyPI"),
        ("apr_md5_crypt", "install the Debian package python3-passlib, or passlib or libpass from PyPI"),
    ],
)
def test_a_missing_library(path: Path, bare_python: dict[str, str], scheme: str, advice: str) -> None:
    options = {"path": str(path), "hash_scheme": scheme, **ALICE}
    answer = run_bare(bare_python, **options)
    assert answer["failed"] and answer["msg"].endswith(advice) and sys.executable in answer["msg"]
    assert not path.exists()
    checked = run_bare(bare_python, **options, _ansible_check_mode=True)
    assert checked["added"] == ["alice"] and advice in str(checked["warnings"])


def test_a_ready_made_hash_needs_no_library(path: Path, bare_python: dict[str, str]) -> None:
    assert run_bare(bare_python, path=str(path), name="alice", password_hash=HASH)["added"] == ["alice"]
    assert run_bare(bare_python, path=str(path), name="alice", state="absent")["removed"] == ["alice"]


# Through Ansible


def test_through_ansible(path: Path) -> None:
    options = {"path": str(path), "users": [ALICE, {"name": "bob", "password_hash": OTHER_HASH}], "mode": "0600"}
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "--connection", "local", "-vvv", "--diff"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-m", "mlops.mlflow.htpasswd"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_NOCOLOR": "1"}
    for changed in True, False:
        finished = subprocess.run(
            [*command, "-a", json.dumps({**options, **QUICK})],
            env=environment,
            cwd=path.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )
        assert f"localhost | {'CHANGED' if changed else 'SUCCESS'}" in finished.stdout
        assert ("+alice\n+bob" in finished.stdout) is changed
        result = finished.stdout.partition("localhost | ")[2]
        assert SECRET not in result and HASH[7:] not in result and OTHER_HASH not in result
    assert list(hashes(path)) == ["alice", "bob"]
