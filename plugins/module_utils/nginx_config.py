# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads a configuration of nginx as nginx does, with all that it includes."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import typing as t

WORD = re.compile(
    r"""\s*(?:
        \#[^\n]*                                   # a comment
      | (?P<mark>[;{}])
      | "(?P<double>(?:\\.|[^"\\])*)"
      | '(?P<single>(?:\\.|[^'\\])*)'
      | (?P<bare>(?:\\.|\$\{|[^\s;{}"'\\\#])(?:\\.|\$\{[^}]*\}?|[^\s;{\\])*)
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclasses.dataclass
class Directive:
    """One directive with its words, where it stands, and what is in its block."""

    words: list[str]
    file: str
    inside: list[Directive] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> str:
        return self.words[0]


def words(text: str) -> t.Iterator[tuple[str, bool]]:
    """The words of a configuration, each with whether it is a mark (; { or })."""
    at = 0
    while at < len(text):
        found = WORD.match(text, at)
        if not found:  # white space at the end, or what nginx would refuse
            at += 1
            continue
        at = found.end()
        kind = found.lastgroup
        if kind == "mark":
            yield found["mark"], True
        elif kind:
            yield re.sub(r"""\\(["'\\])""", r"\1", found[kind]), False
            if kind == "bare" and found[kind].endswith("_by_lua_block"):
                at = skip_block(text, at)
                yield ";", True


def skip_block(text: str, at: int) -> int:
    """Where a block of another language ends."""
    depth = 0
    for found in re.compile("[{}]").finditer(text, at):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            return found.end()
    return len(text)


class Config:
    """All that nginx reads, beginning with one file."""

    def __init__(self, path: str) -> None:
        self.top = os.path.dirname(path)
        self.directives = self.read(path, frozenset())

    def read(self, path: str, outer: frozenset[str]) -> list[Directive]:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            return []
        return self.block(words(text), path, outer | {path})

    def block(self, stream: t.Iterator[tuple[str, bool]], file: str, outer: frozenset[str]) -> list[Directive]:
        found: list[Directive] = []
        current: list[str] = []
        for word, mark in stream:
            if not mark:
                current.append(word)
            elif word == "}":
                break
            else:
                inside = self.block(stream, file, outer) if word == "{" else []
                if current:
                    found.append(Directive(current, file, inside))
                    if current[0] == "include" and len(current) == 2:
                        found += self.included(current[1], outer)
                current = []
        return found

    def included(self, pattern: str, outer: frozenset[str]) -> list[Directive]:
        paths = sorted(glob.glob(os.path.join(self.top, pattern)))
        return [directive for path in paths if path not in outer for directive in self.read(path, outer)]

    def of(self, *blocks: str) -> list[Directive]:
        """The directives in all blocks of these names, one in another, such as "http" and "server"; without names those in none."""
        found = self.directives
        for name in blocks:
            found = [inner for directive in found if directive.name == name for inner in directive.inside]
        return found

    def last(self, name: str, *blocks: str) -> list[str]:
        """The words after a directive; none where it is not there."""
        return next((directive.words[1:] for directive in reversed(self.of(*blocks)) if directive.name == name), [])


def walk(directives: list[Directive]) -> t.Iterator[Directive]:
    for directive in directives:
        yield directive
        yield from walk(directive.inside)


def port_of(listen: str) -> int:
    """The port of a listen directive; 0 for a unix socket."""
    if listen.startswith("unix:"):
        return 0
    found = re.search(r"(?:^|:)([0-9]+)$", listen)
    return int(found[1]) if found else 80
