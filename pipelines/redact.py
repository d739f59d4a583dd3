"""Secrets stay at home: what leaves for params, tags, artifacts, logs or messages passes through here first.

A secret is known by where it stands (in a URL before the @, after password=, under a key that is called so, in a variable of
the environment that is called so) or by its look (a token of a known service, a private key). Rather too much is hidden than
too little; only in source code, where `tokens = read(file)` is no secret, quoted values alone are.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

HIDDEN = "***"
SECRET_NAME = r"(?:password|passwd|passphrase|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|signature)"
# Words of the spec that may stand under any key: of a data set with a column called signature, say.
PLAIN = frozenset({"", "numeric", "categorical", "boolean", "datetime", "ignore", "true", "false", "null", "none", HIDDEN})
CODE = frozenset({".py", ".pyi", ".ipynb", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go", ".java"})
CLEANED = (".json", ".yaml", ".csv")  # files that may hold a secret of the spec
SHORTEST = 8  # characters of a variable's value that is looked for everywhere: shorter ones are words that occur by chance

# Greedy up to the last @ of the word: a password may itself hold one. Rather too much is hidden than too little.
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s'\"<>]*@", re.IGNORECASE)
_NAME, _NEW = rf"[\w.-]*{SECRET_NAME}[\w.-]*", r"(?![\"']?\*{3})"  # what is hidden already stays as it is
_ASSIGNED = re.compile(rf"({_NAME}\\?[\"']?\s*[=:]\s*){_NEW}(\"[^\"]*\"|'[^']*'|[^\s&;,\"'<>]+)", re.IGNORECASE)
_QUOTED = re.compile(rf"({_NAME}\\?[\"']?\]?\s*[=:]\s*[rbf]{{0,2}}){_NEW}(\\?\"[^\"]+\"|'[^']+')", re.IGNORECASE)
_OPTION = re.compile(rf"(--[\w-]*{SECRET_NAME}[\w-]*\s+){_NEW}(\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE)
_HEADER = re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)\s+)[^\s\"']+", re.IGNORECASE)
_LOOKS = re.compile(
    r"\b(?:gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|"
    r"AIza[\w-]{30,}|hf_\w{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
)
_SECRET_KEY = re.compile(SECRET_NAME, re.IGNORECASE)
_VARIABLE = re.compile(rf"{SECRET_NAME}|(?:^|_)(?:pass|auth|key)$", re.IGNORECASE)
_KEY_BEGINS, _KEY_ENDS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
_SECRET_FILE = re.compile(
    r"^(?:\.env(?:\..*)?|\.netrc|\.pypirc|\.git-credentials|\.htpasswd|id_(?:rsa|dsa|ecdsa|ed25519)|.*\.(?:pem|key|p12|pfx|kdbx)|"
    r".*(?:credentials|secrets?)(?:\.\w+)?)$",
    re.IGNORECASE,
)


def redact(text: str, code: bool = False) -> str:
    """`text` without users and passwords in URLs, without what follows password=, token:, --api-key and their kin, and without
    tokens and values of the environment that are secrets. In `code` what follows a name is a secret only where it is quoted."""
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    if code:
        text = _QUOTED.sub(rf"\1'{HIDDEN}'", text)
    else:
        text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
        text = _OPTION.sub(rf"\1{HIDDEN}", text)
    text = _LOOKS.sub(HIDDEN, _HEADER.sub(rf"\1{HIDDEN}", text))
    for secret in secrets_of_the_environment():
        text = text.replace(secret, HIDDEN)
    return text


@cache
def secrets_of_the_environment() -> tuple[str, ...]:
    """Values of variables that are called as secrets are, the longest first. Paths and short words are none."""
    found = {value for name, value in os.environ.items() if _VARIABLE.search(name)}
    return tuple(sorted((v for v in found if len(v) >= SHORTEST and not v.startswith(("/", "~"))), key=len, reverse=True))


def redacted(value: Any, key: str = "") -> Any:
    """A JSON-able value without secrets: by the name of a key, or of one above it, or inside a text."""
    if isinstance(value, dict):
        return {k: redacted(v, f"{key}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(v, key) for v in value]
    if isinstance(value, str):
        return HIDDEN if value not in PLAIN and _SECRET_KEY.search(key) else redact(value)
    return value


def without_secrets(path: Path) -> str | None:
    """What a file of JSON, YAML or CSV says without secrets; None if it holds none, or is of another kind."""
    if path.suffix not in CLEANED:
        return None
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        clean = redact(text)
    else:
        content = json.loads(text)
        clean = text if redacted(content) == content else json.dumps(redacted(content), indent=2)
    return None if clean == text else clean


def redact_command(arguments: Sequence[str]) -> str:
    """A command as a shell takes it. Of an argument a.password=VALUE all of VALUE is hidden, whatever it holds."""
    shown, hide = [], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        secret = bool(_SECRET_KEY.search(name)) and not re.search(r"[\s{:]", name)
        if value and value in PLAIN:
            shown.append(argument)
        elif hide:
            shown.append(HIDDEN)
        else:
            shown.append(f"{name}={HIDDEN}" if secret and equals else redact(argument))
        hide = secret and not equals and argument.startswith("-")
    return shlex.join(shown)


def is_secret_file(name: str) -> bool:
    """Whether a file is there to hold secrets, by its name: .env, id_rsa, server.pem, credentials.json."""
    return bool(_SECRET_FILE.match(name.rpartition("/")[2]))


def redact_diff(text: str) -> tuple[str, list[str]]:
    """What git diff wrote, without secrets, and the files in which some were.

    Its lines stay; binary patches stay as they are.
    """
    lines, changed = text.split("\n"), dict[str, None]()
    name, hunk, key = "", False, False
    for place, line in enumerate(lines):
        if line.startswith("diff --git "):
            name, hunk, key = line.rpartition(" b/")[2].rstrip('"'), False, False
        elif line.startswith("@@ "):
            hunk = True
        if not hunk:
            continue
        key = key or bool(_KEY_BEGINS.search(line))
        found = line[:1] + (HIDDEN if key else redact(line[1:], code=Path(name).suffix in CODE))
        key = key and not _KEY_ENDS.search(line)
        if found != line:
            lines[place] = found
            changed[name] = None
    return "\n".join(lines), list(changed)
