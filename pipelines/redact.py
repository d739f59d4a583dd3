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
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

HIDDEN = "***"
SECRET_NAME = r"(?:password|passwd|passphrase|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|signature)"
# Words of the spec that may stand under any key: of a data set with a column called signature, say.
PLAIN = frozenset({"", "numeric", "categorical", "boolean", "datetime", "ignore", "true", "false", "null", "none", HIDDEN})
CODE = frozenset({".py", ".pyi", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go", ".java"})  # a notebook holds outputs, too
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
    r"AIza[\w-]{30,}|(?<=[?&]sig=)[\w%+/=.-]{16,}|hf_\w{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
)
_SECRET_KEY = re.compile(SECRET_NAME, re.IGNORECASE)
_VARIABLE = re.compile(rf"{SECRET_NAME}|(?:^|_)(?:pass|auth|key)$", re.IGNORECASE)
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
# Between a name and its value: a bracket or a sign of YAML and the end of the line; an anchor or a tag.
_BETWEEN = re.compile(r"([:=])[ \t]*(?:[>|(\[{]?[-+]?[ \t]*\r?\n[\s-]*|[&!]\S+[ \t]+)")
_DEFAULT = re.compile(rf"(?:environ\.get|getenv)\([^,)]*{SECRET_NAME}[^,)]*,\s*[\"'][^\"']", re.IGNORECASE)
# In what leaves of the working tree alone: OPENAI_KEY = "...", pass: ..., curl -u me:..., mysql -p...
_BESIDE = re.compile(
    r"""
    \b[A-Z0-9_]+_(?:KEY|PASS|AUTH|PIN)["']?\]?\s*[=:]\s*["'][^"'\s]+["']
    |^[ \t]*(?:pass|auth|pin)[ \t]*[:=][ \t]*\S
    |[ ]-u[ ]*[\w.-]+:\S
    |\bmysql\w*[ ].*-p\S
    """,
    re.MULTILINE | re.VERBOSE,
)
_SECRET_FILE = re.compile(
    r"""
    (?:^|/)(?:
        [.\w-]*\.?env(?:rc|\..*)?
        |[._](?:netrc|pypirc|npmrc|pgpass|htpasswd|boto|s3cfg|dockercfg|my\.cnf|git-credentials|vault-token)
        |id_(?:rsa|dsa|ecdsa|ed25519)
        |\.?kube_?config
        |.*\.(?:pem|key|p12|pfx|jks|keystore|kdbx|ppk|ovpn|asc|gpg|tfvars|tfstate)
        |.*(?:credentials?|secrets?|passwords?|service[-_]?account)(?:[-_.]\w+)*
    )$
    |(?:^|/)\.(?:aws|docker|kube|ssh|gnupg)/
    """,
    re.IGNORECASE | re.VERBOSE,
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
    """Whether a file is there to hold secrets, by its path: .env, id_rsa, server.pem, credentials.json, .docker/config.json."""
    return bool(_SECRET_FILE.search(name))


def holds_secret(text: str, name: str) -> bool:
    """Whether `text`, of a file called `name`, holds what `redact` would hide or what the rules of detect-secrets find.

    A value may stand on the line below its name.
    """
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    text = "\n".join((text, _BETWEEN.sub(r"\1 ", text)))
    if redact(text, code=Path(name).suffix in CODE) != text:
        return True
    if any(rule.search(text) for rule in (_KEY_BEGINS, _DEFAULT, _BESIDE)):
        return True
    with tempfile.TemporaryDirectory() as scratch, default_settings():
        copy = Path(scratch, "text").with_suffix(Path(name).suffix)  # its rules differ by the suffix
        copy.write_text(text, encoding="utf-8", errors="replace")
        return any(True for _ in scan_file(str(copy)))
