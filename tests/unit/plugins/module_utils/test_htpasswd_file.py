# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for every file: parse, change, write."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils.htpasswd import (
    SCHEMES,
    Hashing,
    PasswordFile,
    Refusal,
    User,
    apply,
    check_users,
    identify,
    portable,
)
from hypothesis import example, given
from hypothesis import strategies as st

QUICK = Hashing("bcrypt", 4)
HASHES = [
    "$2y$04$" + "a" * 53,
    "$2b$31$" + "." * 53,
    "$6$rounds=1000$salt$" + "b" * 86,
    "$5$saltsaltsaltsalt$" + "c" * 43,
    "$apr1$salt$" + "d" * 22,
]

names = st.one_of(
    st.sampled_from(["alice", "bob", "é", "a b", "a#"]),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters=":#"), min_size=1, max_size=60),
)
ends = st.sampled_from([b"", b"\r", b":", b":a comment", b":\r", b":\xff:\r"])
digests = st.one_of(st.sampled_from(HASHES).map(str.encode), st.binary(max_size=9)).filter(lambda digest: not set(digest) & set(b":\r\n"))
entries = st.tuples(names.map(str.encode), digests, ends).map(lambda parts: parts[0] + b":" + parts[1] + parts[2])
comments = st.one_of(
    st.sampled_from([b"", b" ", b"\r", b"\t#x y", b"\r #x:y", b"#alice:x"]),
    st.binary(max_size=9).map(lambda text: b"#" + text.replace(b"\n", b"")),
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(entries, unique_by=lambda line: line.partition(b":")[0], max_size=6))
    for comment in draw(st.lists(comments, max_size=4)):
        lines.insert(draw(st.integers(0, len(lines))), comment)
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]) if lines else st.just(b""))


users = st.lists(
    st.builds(User, names, st.none(), st.sampled_from(HASHES), st.sampled_from(["present", "present", "absent"])),
    unique_by=lambda user: user.name,
    max_size=5,
)


def look_up(content: bytes, name: bytes) -> bytes | None:
    """Find a hash as nginx does: the first line that begins with the name and a colon."""
    for line in content.split(b"\n"):
        if line.startswith(name + b":"):
            return line[len(name) + 1 :].replace(b"\r", b":").partition(b":")[0]
    return None


def split(content: bytes) -> list[tuple[bytes | None, bytes]]:
    lines = content.split(b"\n")
    if content.endswith(b"\n"):
        lines.pop()
    return [(None if not line.strip() or line.lstrip().startswith(b"#") else line.partition(b":")[0], line) for line in lines]


@given(files(), users, st.booleans(), st.booleans())
@example(b"\n\nalice:$2y$04$" + b"a" * 53, [], True, False)
def test_changes_what_is_managed_and_nothing_else(content: bytes, wanted: list[User], exclusive: bool, keep_existing: bool) -> None:
    check_users(wanted, QUICK)
    file = PasswordFile(content)
    apply(file, wanted, QUICK, exclusive=exclusive, keep_existing=keep_existing)
    after = bytes(file)

    managed = {user.name.encode() for user in wanted}
    gone = {name for name, line in split(content) if exclusive and name is not None}

    def others(text: bytes) -> list[bytes]:
        return [line for name, line in split(text) if name not in managed | gone]

    lost_its_lines = not after or content == b""
    assert lost_its_lines or others(after) == others(content)
    assert lost_its_lines or after.endswith(b"\n") == (content.endswith(b"\n") or split(after)[-1][1] == b"")
    for user in wanted:
        found, before = look_up(after, user.name.encode()), look_up(content, user.name.encode())
        if user.state == "absent":
            assert found is None
        elif keep_existing and before is not None:
            assert found == before
        else:
            assert found == portable(t.cast(str, user.password_hash).encode())
    if exclusive:
        present = {user.name.encode() for user in wanted if user.state == "present"}
        assert {name for name, line in split(after) if name is not None} == present


@given(files(), users, st.booleans(), st.booleans())
def test_the_second_time_changes_nothing(content: bytes, wanted: list[User], exclusive: bool, keep_existing: bool) -> None:
    file = PasswordFile(content)
    first = apply(file, wanted, QUICK, exclusive=exclusive, keep_existing=keep_existing)
    after = bytes(file)
    assert any(first) == (after != content)
    assert not any(apply(PasswordFile(after), wanted, QUICK, exclusive=exclusive, keep_existing=keep_existing))


@given(st.one_of(st.binary(), files()))
def test_any_bytes_come_back_or_are_refused(content: bytes) -> None:
    try:
        assert bytes(PasswordFile(content)) == content
    except Refusal as refusal:
        assert "mend or delete it" in str(refusal)


@given(st.one_of(st.binary(), *(st.from_regex(scheme.pattern, fullmatch=True) for scheme in SCHEMES.values())))
def test_any_hash_is_compared_without_a_crash(digest: bytes) -> None:
    kind = identify(digest)
    affordable = kind and (kind[1] or 0) <= (6 if kind[0] == "bcrypt" else 6000)
    assert not (Hashing(*kind) if affordable else QUICK).matches("secret", digest)


@pytest.mark.parametrize("scheme, rounds", [("bcrypt", 4), ("sha512_crypt", 1000), ("sha256_crypt", 5000), ("apr_md5_crypt", None)])
@given(password=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=18))
def test_every_password_matches_its_hash_alone(scheme: str, rounds: int | None, password: str) -> None:
    hashing = Hashing(scheme, rounds)
    check_users([User("alice", password)], hashing)
    digest = hashing.hash(password)
    assert identify(digest) == (scheme, rounds)
    assert hashing.matches(password, digest)
    assert not hashing.matches(password + "x", digest)
    check_users([User("alice", None, digest.decode())], hashing)
