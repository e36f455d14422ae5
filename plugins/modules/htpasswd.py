#!/usr/bin/python
# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: htpasswd
short_description: Manage the users of a password file for HTTP basic authentication
version_added: 0.1.0
description:
  - Adds, updates and removes users in a password file as nginx and Apache read it, or brings the whole file to a list
    of users.
  - A password is hashed anew only where the file has another password, scheme or number of rounds.
  - Comments, blank lines, the order and every line of a user that is not managed stay byte for byte as they are.
author: The mlops.mlflow maintainers (!UNKNOWN)
requirements:
  - bcrypt for O(hash_scheme=bcrypt), which Debian packages as C(python3-bcrypt).
  - passlib 1.7.4 or libpass for the other schemes, which Debian packages as C(python3-passlib).
  - Neither of them where only O(password_hash) is given or users are removed.
extends_documentation_fragment:
  - action_common_attributes
  - action_common_attributes.files
  - files
  - mlops.mlflow.attributes
attributes:
  check_mode:
    support: full
    details:
      - A missing library or parent directory is a warning in check mode, because an earlier task may be what brings it.
  diff_mode:
    support: full
    details:
      - Shows the names of the users, and which of them get a new hash, but never a hash or a comment.
  idempotent:
    support: full
  platform:
    platforms: posix
    support: full
  safe_file_operations:
    support: full
  vault:
    support: none
options:
  path:
    description:
      - Path of the password file. A symbolic link is followed.
    type: path
    required: true
  name:
    description:
      - Name of one user. Other users stay as they are.
      - Exactly one of O(name) and O(users) is required.
    type: str
  password:
    description:
      - Password of the user O(name).
      - O(state=present) requires O(password) or O(password_hash).
      - At most 72 bytes in UTF-8 for O(hash_scheme=bcrypt), which reads no more of it, and 511 bytes otherwise.
    type: str
  password_hash:
    description:
      - Ready-made hash of the password of the user O(name), in one of the schemes of O(hash_scheme).
      - It is written as it is, whatever O(hash_scheme) and O(rounds) say. Only the mark C($2b$) of bcrypt becomes
        C($2y$), which is the same algorithm under the name that Apache knows, too.
    type: str
  state:
    description:
      - Whether the user O(name) exists.
    type: str
    choices: [present, absent]
    default: present
  users:
    description:
      - Users to manage together.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the user.
        type: str
        required: true
      password:
        description: See O(password).
        type: str
      password_hash:
        description: See O(password_hash).
        type: str
      state:
        description: Whether the user exists.
        type: str
        choices: [present, absent]
        default: present
  exclusive:
    description:
      - Whether to remove every user whom O(users) does not list, so that the list is the whole file. Comments stay.
    type: bool
    default: false
  hash_scheme:
    description:
      - How passwords are hashed. An existing hash of another scheme is replaced.
      - Use V(apr_md5_crypt) only for files that old programs read, since its hashes are quickly broken.
    type: str
    choices: [bcrypt, sha512_crypt, sha256_crypt, apr_md5_crypt]
    default: bcrypt
  rounds:
    description:
      - Cost of a hash. An existing hash with other rounds is replaced.
      - For V(bcrypt) the logarithm to base 2 of the rounds, from V(4) to V(31), by default V(12).
      - For V(sha512_crypt) and V(sha256_crypt) the rounds themselves, from V(1000) to V(999999999), by default
        V(656000) and V(535000).
      - V(apr_md5_crypt) has none.
    type: int
  update_password:
    description:
      - V(always) brings existing users to the given password, scheme and rounds.
      - V(on_create) leaves existing users alone.
    type: str
    choices: [always, on_create]
    default: always
  create:
    description:
      - Whether to create the file if it does not exist. Its directory must exist.
    type: bool
    default: true
  backup:
    description:
      - Whether to keep a copy of the file, with a time stamp in its name, before its content changes.
    type: bool
    default: false
  mode:
    type: raw
    description:
      - Permissions of the file, see M(ansible.builtin.file).
      - A new file gets V(0640) if this is not given, an existing one keeps its own.
notes:
  - nginx hashes the password at every request, and its worker serves no one else meanwhile. Measured on two cores,
    it answers 4,700 requests per second with V(apr_md5_crypt), 830 with V(bcrypt) and O(rounds=5),
    740 with V(sha512_crypt) and O(rounds=5000), 30 with V(bcrypt) and O(rounds=10), and 7 with V(bcrypt) and O(rounds=12).
    Let nginx remember good answers for a while rather than weaken the hashes.
  - The file is replaced in one step, from a temporary file beside it that only its owner can read.
  - Runs that change files in one directory at the same time wait for each other, so that no user gets lost. Other
    programs do not know of that.
seealso:
  - module: community.general.htpasswd
  - name: nginx auth_basic_user_file
    description: The format of the file, and the schemes that nginx reads.
    link: https://nginx.org/en/docs/http/ngx_http_auth_basic_module.html#auth_basic_user_file
"""

EXAMPLES = r"""
- name: Let exactly these users in
  mlops.mlflow.htpasswd:
    path: /etc/nginx/mlflow.htpasswd
    users:
      - name: alice
        password: "{{ alice_password }}"
      - name: bob
        password_hash: $2y$12$GLoFmorN7aRzQMyTll6kkupCnxKCU9mGGzTCfDlX68nJ7lSrZItPy
    exclusive: true
    owner: root
    group: www-data
    mode: "0640"

- name: Add one user with a hash that is quick to check
  mlops.mlflow.htpasswd:
    path: /etc/nginx/mlflow.htpasswd
    name: ci
    password: "{{ ci_password }}"
    hash_scheme: sha512_crypt
    rounds: 5000

- name: Give a first password, which the user may change later
  mlops.mlflow.htpasswd:
    path: /etc/nginx/mlflow.htpasswd
    name: carol
    password: "{{ carol_first_password }}"
    update_password: on_create

- name: Remove a user and keep a copy of the file
  mlops.mlflow.htpasswd:
    path: /etc/nginx/mlflow.htpasswd
    name: dave
    state: absent
    backup: true
"""

RETURN = r"""
path:
  description: The path as given.
  type: str
  returned: success
  sample: /etc/nginx/mlflow.htpasswd
added:
  description: Names of the users who are new in the file.
  type: list
  elements: str
  returned: success
  sample: [alice]
updated:
  description: Names of the users whose hash is replaced.
  type: list
  elements: str
  returned: success
  sample: [bob]
removed:
  description: Names of the users who are gone. Bytes that are not UTF-8 appear as C(\xNN).
  type: list
  elements: str
  returned: success
  sample: []
replaced:
  description: Names of the users in RV(updated) whose password is another than before. The others get a new hash of the same password.
  type: list
  elements: str
  returned: success
  sample: [bob]
scheme:
  description: The scheme in which passwords are hashed.
  type: str
  returned: success
  sample: bcrypt
rounds:
  description: The rounds with which passwords are hashed, null for a scheme without rounds.
  type: int
  returned: success
  sample: 12
backup_file:
  description: Path of the copy of the file.
  type: str
  returned: O(backup=true) and the content changed
  sample: /etc/nginx/mlflow.htpasswd.4242.2026-11-24@02:30:00~
"""

import contextlib
import fcntl
import os
import tempfile
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.htpasswd import (
    SCHEMES,
    Hashing,
    MissingLibrary,
    PasswordFile,
    Refusal,
    User,
    apply,
    check_users,
    show,
)


def wanted_users(params: dict[str, t.Any]) -> list[User]:
    if params["users"] is None:
        return [User(*(params[field] for field in User._fields))]
    if params["state"] == "absent":
        raise Refusal("state goes with name: set state inside the entries of users")
    return [User(**user) for user in params["users"]]


def resolve(path: str) -> str:
    """Follow links, and refuse what can only be a directory, or nothing at all."""
    if not path or path.endswith(os.sep) or "\0" in path:
        raise no_file(path)
    return os.path.realpath(path)


def no_file(path: str) -> Refusal:
    return Refusal(f"path {path!r} is not a regular file: give the path of a password file")


def keep_others_out(directory: str) -> None:
    """Wait until no other run of this module works in the directory, so that none undoes what another writes meanwhile."""
    with contextlib.suppress(OSError):  # a directory that is missing is told of later, and some take no locks
        fcntl.flock(os.open(directory, os.O_RDONLY), fcntl.LOCK_EX)  # held until this process ends


def read(module: AnsibleModule, target: str, needed: bool) -> bytes | None:
    """Return the content of the file, or None where there is no file yet."""
    path = module.params["path"]
    if os.path.isfile(target):
        with open(target, "rb") as stream:
            return stream.read()
    if os.path.lexists(target):
        raise no_file(path)
    if needed:
        if not module.params["create"]:
            raise Refusal(f"path {path} does not exist: create it, or set create to true")
        directory = os.path.dirname(target)
        if not os.path.isdir(directory):
            advise(module, Refusal(f"the directory {directory} does not exist: create it first"))
    return None


def advise(module: AnsibleModule, refusal: Refusal) -> None:
    """Refuse, but only warn in check mode, where an earlier task may be what would mend the cause."""
    if not module.check_mode:
        raise refusal
    module.warn(str(refusal))


def write(module: AnsibleModule, target: str, content: bytes, file_args: dict[str, t.Any], exists: bool) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".htpasswd_", dir=os.path.dirname(target))
    module.add_cleanup_file(temporary)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    if not exists:  # an unknown owner or a wrong mode shall fail while there is no file yet
        module.set_fs_attributes_if_different({**file_args, "path": temporary, "attributes": None}, False, expand=False)
    module.atomic_move(temporary, target, unsafe_writes=module.params["unsafe_writes"])


def run(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    hashing = Hashing(params["hash_scheme"], params["rounds"])
    users = wanted_users(params)
    check_users(users, hashing)

    target = resolve(params["path"])
    if not module.check_mode:
        keep_others_out(os.path.dirname(target))
    before = read(module, target, any(user.state == "present" for user in users))
    exists = before is not None
    file = PasswordFile(before or b"")
    names_before = file.names()

    def pretend(password: str) -> bytes:
        try:
            hashing.require_library()
        except MissingLibrary as missing:
            advise(module, missing)
        return b":"  # differs from whatever a file can hold

    changes = apply(
        file,
        users,
        hashing,
        exclusive=params["exclusive"],
        keep_existing=params["update_password"] == "on_create",  # noqa: S105 - no password
        make_hash=pretend if module.check_mode else hashing.hash,
    )
    changed = any(changes)
    result: dict[str, t.Any] = {"path": params["path"], **changes._asdict(), "scheme": hashing.scheme, "rounds": hashing.rounds}
    attributes_diff: dict[str, t.Any] = {}

    file_args = module.load_file_common_arguments(params, path=target)
    if exists:
        # First of all, so that new hashes never stand in a file that others may read.
        attributes_changed = module.set_fs_attributes_if_different(file_args, False, attributes_diff, expand=False)
    else:
        attributes_changed = False
        file_args["mode"] = file_args["mode"] or 0o640

    if changed and not module.check_mode:
        if exists and params["backup"]:
            result["backup_file"] = module.backup_local(target)
        write(module, target, bytes(file), file_args, exists)
        if not exists:
            module.set_fs_attributes_if_different(file_args, False, expand=False)

    result["changed"] = changed or attributes_changed
    if module._diff:
        result["diff"] = [
            {
                "before_header": params["path"],
                "after_header": params["path"],
                "before": "".join(f"{show(name)}\n" for name in names_before),
                "after": "".join(f"{show(name)}{' (new hash)' if show(name) in changes.updated else ''}\n" for name in file.names()),
            }
        ]
        if attributes_diff:
            result["diff"].append(attributes_diff)
    return result


def main() -> None:
    user_options: dict[str, t.Any] = {
        "name": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "password_hash": {"type": "str", "no_log": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }
    module = AnsibleModule(
        argument_spec={
            **user_options,
            "path": {"type": "path", "required": True},
            "users": {"type": "list", "elements": "dict", "options": {**user_options, "name": {"type": "str", "required": True}}},
            "exclusive": {"type": "bool", "default": False},
            "hash_scheme": {"type": "str", "choices": list(SCHEMES), "default": "bcrypt"},
            "rounds": {"type": "int"},
            "update_password": {"type": "str", "choices": ["always", "on_create"], "default": "always", "no_log": False},
            "create": {"type": "bool", "default": True},
            "backup": {"type": "bool", "default": False},
        },
        add_file_common_args=True,
        mutually_exclusive=[("name", "users"), ("password", "users"), ("password_hash", "users")],
        required_one_of=[("name", "users")],
        required_if=[("exclusive", True, ["users"])],
        supports_check_mode=True,
    )
    os.umask(0o027)  # Ansible's helpers make files and copies by it, so that they have 0640 even if we are cut off
    try:
        result = run(module)
    except Refusal as refusal:
        module.fail_json(msg=str(refusal))
    except OSError as error:
        module.fail_json(msg=f"cannot replace {module.params['path']}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
