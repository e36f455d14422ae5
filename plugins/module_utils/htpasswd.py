# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Password files for HTTP basic authentication, as nginx and Apache read them."""

from __future__ import annotations

import importlib
import re
import sys
import typing as t
import unicodedata


class Refusal(Exception):
    """What was asked for cannot be done; the message says what to do instead."""


class MissingLibrary(Refusal):
    """A Python library that makes hashes is not installed."""


class Scheme(t.NamedTuple):
    """A way to hash passwords that nginx and Apache understand."""

    pattern: re.Pattern[bytes]
    library: str
    longest_password: int
    lowest_rounds: int = 0
    default_rounds: int | None = None
    highest_rounds: int = 0
    implied_rounds: int | None = None
    """The rounds of a hash that names none."""


def _sha_crypt(ident: bytes, size: int, default_rounds: int) -> Scheme:
    pattern = rb"\$%b\$(?:rounds=(?P<rounds>[1-9]\d{3,8})\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{%d}"
    return Scheme(re.compile(pattern % (ident, size)), "passlib", 511, 1000, default_rounds, 999_999_999, 5000)


# The default rounds are those of Ansible's password_hash filter. They are fixed here, because a default that came with
# the library's release would change every hash on an upgrade. Beyond 511 bytes, nginx's crypt() fails.
SCHEMES: dict[str, Scheme] = {
    "bcrypt": Scheme(re.compile(rb"\$2[aby]\$(?P<rounds>0[4-9]|[12]\d|3[01])\$[./0-9A-Za-z]{53}"), "bcrypt", 72, 4, 12, 31),
    "sha512_crypt": _sha_crypt(b"6", 86, 656_000),
    "sha256_crypt": _sha_crypt(b"5", 43, 535_000),
    "apr_md5_crypt": Scheme(re.compile(rb"\$apr1\$[./0-9A-Za-z]{1,8}\$[./0-9A-Za-z]{22}"), "passlib", 511),
}

PACKAGES = {"bcrypt": ("python3-bcrypt", "bcrypt"), "passlib": ("python3-passlib", "passlib or libpass")}


class User(t.NamedTuple):
    """A user as the task describes it."""

    name: str
    password: str | None = None
    password_hash: str | None = None
    state: str = "present"


class Changes(t.NamedTuple):
    """The names that a task touches."""

    added: list[str]
    updated: list[str]
    removed: list[str]
    replaced: list[str]
    """Those of the updated whose password is another, and not only its hash."""


def identify(digest: bytes) -> tuple[str, int | None] | None:
    """Return the scheme and the rounds of a hash, or None for one that is not ours."""
    for name, scheme in SCHEMES.items():
        match = scheme.pattern.fullmatch(digest)
        if match:
            rounds = match.groupdict().get("rounds")
            return name, int(rounds) if rounds else scheme.implied_rounds
    return None


def portable(digest: bytes) -> bytes:
    """Name bcrypt $2y$, the only name for today's algorithm that Apache knows."""
    return b"$2y$" + digest[4:] if digest.startswith(b"$2b$") else digest


class Hashing:
    """A scheme and its rounds."""

    def __init__(self, scheme: str, rounds: int | None = None) -> None:
        limits = SCHEMES[scheme]
        if rounds is not None:
            if limits.default_rounds is None:
                raise Refusal(f"hash_scheme {scheme} has no rounds: leave rounds out")
            if not limits.lowest_rounds <= rounds <= limits.highest_rounds:
                raise Refusal(f"rounds {rounds} is out of range for {scheme}: choose {limits.lowest_rounds} to {limits.highest_rounds}")
        self.scheme = scheme
        self.rounds = rounds or limits.default_rounds
        self.longest_password = limits.longest_password

    def require_library(self) -> t.Any:
        library = SCHEMES[self.scheme].library
        try:
            return importlib.import_module("passlib.hash" if library == "passlib" else library)
        except ImportError as error:
            debian, pypi = PACKAGES[library]
            raise MissingLibrary(
                f"hash_scheme {self.scheme} needs the Python library {library} for {sys.executable} ({error}): "
                f"install the Debian package {debian}, or {pypi} from PyPI"
            ) from error

    # bcrypt is called without passlib: passlib 1.7.4 cannot load bcrypt 5.0, and prints a traceback with 4.1 and later.

    def hash(self, password: str) -> bytes:
        library = self.require_library()
        if self.scheme == "bcrypt":
            return portable(library.hashpw(password.encode(), library.gensalt(self.rounds)))
        handler = getattr(library, self.scheme)
        text: str = (handler.using(rounds=self.rounds) if self.rounds else handler).hash(password)
        return text.encode()

    @staticmethod
    def is_of(password: str, digest: bytes) -> bool:
        """Tell whether a hash of any scheme is this password's."""
        kind = identify(digest)
        return kind is not None and Hashing(*kind).matches(password, digest)

    def matches(self, password: str, digest: bytes) -> bool:
        """Tell whether a hash has this scheme and these rounds, and is this password's."""
        if identify(digest) != (self.scheme, self.rounds):
            return False
        library = self.require_library()
        try:
            if self.scheme == "bcrypt":
                return bool(library.checkpw(password.encode(), digest))
            return bool(getattr(library, self.scheme).verify(password, digest.decode()))
        except ValueError:  # a salt that the scheme's own tools cannot have made
            return False


def check_users(users: t.Sequence[User], hashing: Hashing) -> None:
    """Refuse what would break the file, lock a user out, or weaken a password in silence."""
    seen: set[str] = set()
    for user in users:
        _check_name(user.name)
        if user.name in seen:
            raise Refusal(f"users lists {user.name!r} more than once: keep one entry")
        seen.add(user.name)
        if user.state == "absent":
            continue
        if user.password_hash is not None:
            if user.password is not None:
                raise Refusal(f"user {user.name!r} has password and password_hash: keep one of them")
            if not identify(user.password_hash.encode("utf-8", "replace")):
                raise Refusal(
                    f"the password_hash of user {user.name!r} is no whole hash of {', '.join(SCHEMES)}: make one with `htpasswd -nB`, or give password instead"
                )
        elif user.password is None:
            raise Refusal(f"user {user.name!r} has no password: give password or password_hash, or set state to absent")
        else:
            _check_password(user.name, user.password, hashing)


def _has_control_characters(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _check_name(name: str) -> None:
    if not name:
        fault = "is empty"
    elif ":" in name:
        fault = "holds a colon, which ends the name in a password file"
    elif _has_control_characters(name):
        fault = "holds a control character, such as a line end"
    elif name.startswith("#"):
        fault = "begins with '#', which makes the line a comment"
    elif name != name.strip():
        fault = "begins or ends with white space"
    elif len(name.encode()) > 255:
        fault = "is longer than 255 bytes"
    else:
        return
    raise Refusal(f"the user name {name!r} {fault}: choose another name")


def _check_password(name: str, password: str, hashing: Hashing) -> None:
    if not password:
        fault = "is empty: choose one"
    elif _has_control_characters(password):
        fault = "holds a control character, such as NUL or a line end at its end, which HTTP forbids: remove it"
    elif len(password.encode()) > hashing.longest_password:
        fault = f"is longer than the {hashing.longest_password} bytes that {hashing.scheme} reads: shorten it"
        if hashing.scheme == "bcrypt":
            fault += ", or set hash_scheme to sha512_crypt"
    else:
        return
    raise Refusal(f"the password of user {name!r} {fault}")


def _is_comment(text: bytes) -> bool:
    """Tell whether a line names nobody; to nginx, blanks before a '#' belong to a name, which ends with a colon."""
    indented = text.lstrip().startswith(b"#") and (b":" not in text or text.startswith(b"\r"))
    return indented or text.startswith(b"#") or not text.strip()


class Line(t.NamedTuple):
    """A line of the file: name, hash, and the rest from a second colon or a CR on. Without a name, rest is all."""

    name: bytes | None
    digest: bytes
    rest: bytes

    @classmethod
    def parse(cls, text: bytes, number: int) -> Line:
        if _is_comment(text):
            return cls(None, b"", text)
        match = re.fullmatch(rb"([^:\s](?:[^:]*[^:\s])?):([^:\r]*)(.*)", text, re.DOTALL)
        if not match:
            fault = "is no comment for nginx, as it does not begin with '#'" if text.lstrip().startswith(b"#") else "is not `name:hash`"
            raise Refusal(f"line {number} of the file {fault}: mend or delete it")
        return cls(*match.groups())

    def __bytes__(self) -> bytes:
        return self.rest if self.name is None else self.name + b":" + self.digest + self.rest


class PasswordFile:
    """The content of a file; whatever is not changed comes out byte for byte as it went in."""

    def __init__(self, content: bytes) -> None:
        self._last_line_ends = not content or content.endswith(b"\n")
        texts = content.split(b"\n")
        if self._last_line_ends:
            texts.pop()
        self._lines = {number: Line.parse(text, number) for number, text in enumerate(texts, 1)}
        self._numbers: dict[bytes, list[int]] = {}
        for number, line in self._lines.items():
            if line.name is not None:
                self._numbers.setdefault(line.name, []).append(number)

    def __bytes__(self) -> bytes:
        lines = [bytes(line) for line in self._lines.values()]
        # An empty line is one by its end alone.
        ends = lines and (self._last_line_ends or not lines[-1])
        return b"\n".join(lines) + (b"\n" if ends else b"")

    def names(self) -> list[bytes]:
        return [line.name for line in self._lines.values() if line.name is not None]

    def get(self, name: bytes) -> bytes | None:
        """Return the hash of a user, or None for one that is not there."""
        numbers = self._numbers.get(name, [])
        if len(numbers) > 1:
            raise Refusal(f"the file holds user {show(name)!r} {len(numbers)} times: keep one of the lines")
        return self._lines[numbers[0]].digest if numbers else None

    def set(self, name: bytes, digest: bytes) -> None:
        if name not in self._numbers:
            number = next(reversed(self._lines), 0) + 1
            self._numbers[name] = [number]
            self._lines[number] = Line(name, digest, b"")
        for number in self._numbers[name]:
            self._lines[number] = self._lines[number]._replace(digest=digest)

    def remove(self, name: bytes) -> None:
        for number in self._numbers.pop(name, []):
            del self._lines[number]


def show(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def apply(
    file: PasswordFile,
    users: t.Iterable[User],
    hashing: Hashing,
    *,
    exclusive: bool = False,
    keep_existing: bool = False,
    make_hash: t.Callable[[str], bytes] | None = None,
) -> Changes:
    """Bring the file to what the task describes, and return what that changes."""
    changes = Changes([], [], [], [])
    wanted = {user.name.encode(): user for user in users}
    for name in dict.fromkeys(file.names()):
        goes = wanted[name].state == "absent" if name in wanted else exclusive
        if goes:
            file.remove(name)
            changes.removed.append(show(name))
    for name, user in wanted.items():
        if user.state == "absent":
            continue
        current = file.get(name)
        if current is not None and keep_existing:
            continue
        if user.password_hash is not None:
            digest = portable(user.password_hash.encode())
        elif current is not None and hashing.matches(t.cast(str, user.password), current):
            digest = portable(current)
        else:
            digest = (make_hash or hashing.hash)(t.cast(str, user.password))
        if digest != current:
            (changes.added if current is None else changes.updated).append(user.name)
            if current is not None and (user.password is None or not Hashing.is_of(user.password, current)):
                changes.replaced.append(user.name)
            file.set(name, digest)
    return changes
