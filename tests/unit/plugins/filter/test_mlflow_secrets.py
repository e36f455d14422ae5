# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import re

import pytest
from ansible_collections.mlops.mlflow.plugins.filter.mlflow_secrets import FilterModule

mlflow_secrets = FilterModule().filters()["mlflow_secrets"]
PASSPHRASE, VERSION, KEY = "MLFLOW_CRYPTO_KEK_PASSPHRASE", "MLFLOW_CRYPTO_KEK_VERSION", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
MINE = 'a passphrase \\ of "mine"'


def values(text: str) -> dict[str, str]:
    return dict(re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE))


def test_a_first_file_begins_at_the_version_after_the_constant_of_mlflow() -> None:
    made = mlflow_secrets("")
    assert (made["previous"], made["rotated"], made["problems"]) == ("", False, [])
    found = values(made["current"])
    assert list(found) == [PASSPHRASE, VERSION, KEY]
    assert (len(found[PASSPHRASE]), found[VERSION], len(base64.urlsafe_b64decode(found[KEY]))) == (48, "2", 32)
    assert values(mlflow_secrets("")["current"])[PASSPHRASE] != found[PASSPHRASE]


def test_what_is_there_stays() -> None:
    made = mlflow_secrets("", label="a")["current"]
    assert mlflow_secrets(made, "before\n") == {"current": made, "previous": "before\n", "rotated": False, "problems": []}
    assert mlflow_secrets(made, label="a")["current"] == made, "once for each label"


def test_a_new_label_replaces_all_and_keeps_those_before() -> None:
    first = mlflow_secrets("")["current"]
    second = mlflow_secrets(first, label="a")
    assert second["rotated"] and second["current"].splitlines()[1] == "# mlflow_rotate: a"
    before, after = values(first), values(second["current"])
    assert after[VERSION] == "3" and not {after[PASSPHRASE], after[KEY]} & set(before.values())
    assert values(second["previous"]) == {f"{PASSPHRASE}_2": before[PASSPHRASE], f"{KEY}_2": before[KEY]}
    third = mlflow_secrets(second["current"], second["previous"], "b")
    assert list(values(third["previous"])) == [f"{PASSPHRASE}_2", f"{KEY}_2", f"{PASSPHRASE}_3", f"{KEY}_3"]


def test_a_run_that_was_cut_off_keeps_those_before_once() -> None:
    first = mlflow_secrets("")["current"]
    kept = mlflow_secrets(first, label="a")["previous"]
    assert mlflow_secrets(first, kept, "a")["previous"] == kept


def test_secrets_that_are_given_replace_those_that_differ() -> None:
    first = mlflow_secrets("", given={PASSPHRASE: MINE})["current"]
    assert f'{PASSPHRASE}="a passphrase \\\\ of \\"mine\\""' in first.splitlines()
    assert mlflow_secrets(first, given={PASSPHRASE: MINE})["current"] == first
    second = mlflow_secrets(first, given={PASSPHRASE: "another passphrase"})
    assert values(second["current"]) == {PASSPHRASE: "another passphrase", VERSION: "3", KEY: values(first)[KEY]}
    assert second["previous"].splitlines()[0] == f'{PASSPHRASE}_2="a passphrase \\\\ of \\"mine\\""'


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({PASSPHRASE: "short"}, "fewer than 16 characters"),
        ({PASSPHRASE: 1234567890123456}, "no text of one line"),
        ({PASSPHRASE: "two lines of text\nare not one"}, "no text of one line"),
        ({KEY: "no key"}, "no key of Fernet"),
        ({VERSION: "7"}, f"mlflow_systemd_secrets has '{VERSION}'"),
    ],
)
def test_secrets_that_could_not_be_are_told_without_them(given: dict[str, str], words: str) -> None:
    (problem,) = mlflow_secrets("", given=given)["problems"]
    assert words in problem
    assert not any(str(value) in problem for name, value in given.items() if name == PASSPHRASE and value != "short")


def test_a_value_that_is_no_mapping_is_left_to_its_type() -> None:
    assert mlflow_secrets("x", given="text")["current"] == "x"
