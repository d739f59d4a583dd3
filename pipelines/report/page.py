"""What all pages share: one file, no script, nothing to fetch, in the colours of the reader's light or dark screen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --faint: #6a737d; --line: #d9dee4; --back: #fff; --raised: #f6f8fa;
  --good: #0a7d55; --bad: #c2410c; --goodback: #e4f5ed; --badback: #fdeadf; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --faint: #97a1ad; --line: #343b45; --back: #14181d;
  --raised: #1c2229; --good: #4cc795; --bad: #ff9062; --goodback: #14352a; --badback: #402113; --accent: #56b4e9; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 1180px; margin: 2rem auto;
  padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 70ch; margin: .4rem 0; } .faint { color: var(--faint); }
.verdicts { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.verdict { border-left: 5px solid; border-radius: 4px; padding: .6rem 1rem; flex: 1 1 320px; }
.verdict b { font-size: 1.1rem; } .verdict p { margin: .15rem 0 0; overflow-wrap: anywhere; }
.agrees { border-color: var(--good); background: var(--goodback); }
.differs, .failed { border-color: var(--bad); background: var(--badback); }
.absent, .refused { border-color: var(--line); background: var(--raised); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--faint); font-size: .85rem; border-bottom: 1px solid var(--line); }
th, td { padding: .22rem .7rem .22rem 0; white-space: nowrap; vertical-align: middle; }
td.number, th.number { text-align: right; }
svg { display: block; } svg text { fill: var(--faint); font: 10px system-ui, sans-serif; }
.scale { stroke: var(--line); }
pre { background: var(--raised); padding: .8rem 1rem; border-radius: 4px; overflow-x: auto; font-size: .85rem; line-height: 1.4; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .6rem 0; } dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole HTML document; `body` is HTML already, `style` what this page needs beside STYLE."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values below one another."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs)}</dl>\n"


def folded(summary: str, inner: str) -> str:
    """What opens at a click; `inner` is HTML already."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>\n"


def text(content: str) -> str:
    """As it is, in letters of one width."""
    return f"<pre>{escape(content)}</pre>"


def indented(value: Any) -> str:
    """As JSON for readers."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def brief(text: str) -> str:
    """A text that is a long fraction to five digits, for a column of drawn values; anything else whole."""
    try:
        return f"{float(text):.5g}" if len(text) > 8 and not text.lstrip("-").isdigit() else text
    except ValueError:
        return text
