"""Secrets stay at home: what leaves for params, tags, artifacts or messages passes through here first."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
SECRET_NAME = r"(?:password|passwd|passphrase|pwd|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|signature)"

# Greedy up to the last @ of the word: a password may itself hold one. Rather too much is hidden than too little.
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s'\"<>]*@", re.IGNORECASE)
_ASSIGNED = re.compile(rf"([\w.-]*{SECRET_NAME}[\w.-]*[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s&;,\"'<>]+)", re.IGNORECASE)
_OPTION = re.compile(rf"(--[\w-]*{SECRET_NAME}[\w-]*\s+)(\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE)
_SECRET_KEY = re.compile(SECRET_NAME, re.IGNORECASE)


def redact(text: str) -> str:
    """`text` without users and passwords in URLs, and without what follows password=, token:, --api-key and their kin."""
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    return _OPTION.sub(rf"\1{HIDDEN}", _ASSIGNED.sub(rf"\1{HIDDEN}", text))


def redacted(value: Any, key: str = "") -> Any:
    """A JSON-able value without secrets: by the name of a key, or inside a text."""
    if isinstance(value, dict):
        return {k: redacted(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(v, key) for v in value]
    if isinstance(value, str):
        return HIDDEN if value and _SECRET_KEY.search(key) else redact(value)
    return value
