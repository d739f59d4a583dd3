"""The page of a look at data: one file, no script, nothing to fetch. Same rows, same bytes.

Takes the look as plain numbers, as `deltarule data --json` prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from pipelines.report.page import page

WIDTH, HEIGHT = 260, 74  # of a histogram, in pixels
LONGEST = 28  # letters of a category on a page
Column = Mapping[str, Any]
Shown = Callable[[Any, float], str]  # (kind, value) -> as people write it
CARDS = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: .9rem; margin: 1rem 0; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: .7rem .8rem; min-width: 0; }
.card.target { border-color: var(--accent); border-width: 2px; }
.card.wrong { border-color: var(--bad); background: var(--badback); }
.card.ignored { background: var(--raised); }
.card h3 { font-size: .95rem; margin: 0; overflow-wrap: anywhere; } .card p { margin: .1rem 0 .4rem; font-size: .82rem; }
.card .kind { color: var(--accent); font-weight: 400; font-size: .82rem; } .card .asked { overflow-wrap: anywhere; }
.bar { fill: var(--accent); } .card.ignored .bar { fill: var(--faint); } .level { fill: var(--raised); }
.card.ignored .level { fill: var(--back); } svg text.in { fill: var(--text); }
.card svg { width: 100%; height: auto; }
.notes li { margin: .25rem 0; max-width: 100ch; overflow-wrap: anywhere; } .bad { color: var(--bad); }
"""


def data_page(look: Mapping[str, Any], shown: Shown) -> str:
    """`look` as the command's JSON holds it; `shown(kind, value)` spells a number or a date. A whole HTML document."""
    title = f"Data: {look['source']}"
    cards = "".join(_card(column, look, shown) for column in _ordered(look))
    body = (
        f"{_facts(look)}{_problems(look)}{_suspicions(look)}{_classes(look)}"
        f'<h2>Columns</h2>\n{_legend()}<div class="cards">\n{cards}</div>\n'
    )
    return page(title, body, CARDS)


def _ordered(look: Mapping[str, Any]) -> list[Column]:
    """The targets, then the inputs in the order of the file, then what is ignored."""
    return sorted(look["columns"], key=lambda column: (column["name"] not in look["targets"], column["kind"] == "ignore"))


def _facts(look: Mapping[str, Any]) -> str:
    kinds = [column["kind"] for column in look["columns"] if column["name"] not in look["targets"]]
    told = ", ".join(f"{kinds.count(kind)} {kind if kind != 'ignore' else 'ignored'}" for kind in dict.fromkeys(kinds))
    gaps = sum(column["missing"] > 0 for column in look["columns"])
    verb, task = "is" if len(look["targets"]) == 1 else "are", f" ({look['task']})" if look["task"] else ""
    target = f"; {', '.join(look['targets'])} {verb} predicted{task}" if look["targets"] else ""
    return (
        f'<p class="faint">{look["rows"]:,} rows, {len(look["columns"])} columns: {escape(told)}'
        f"{escape(target)}. Columns with gaps: {gaps}. Duplicates, rows that "
        f"repeat an earlier one: {look['duplicates']:,}.</p>\n"
    )


def _problems(look: Mapping[str, Any]) -> str:
    if not look["problems"]:
        return ""
    items = "".join(f'<li class="bad">{escape(problem)}</li>' for problem in look["problems"])
    return f'<h2>What must be changed before anything is trained</h2>\n<ul class="notes">{items}</ul>\n'


def _suspicions(look: Mapping[str, Any]) -> str:
    if not look["suspicions"]:
        return ""
    items = "".join(f"<li><b>{escape(s['column'])}</b> ({s['kind']}): {escape(s['why'])}</li>" for s in look["suspicions"])
    return f'<h2>What is suspicious</h2>\n<ul class="notes">{items}</ul>\n'


def _classes(look: Mapping[str, Any]) -> str:
    if not look["classes"]:
        return ""
    bars = sorted(look["classes"].items(), key=lambda pair: -pair[1])
    shown = [*bars[:20], *([("others", sum(n for _, n in bars[20:]))] if len(bars) > 20 else [])]
    return f"<h2>Classes of {escape(', '.join(look['targets']))}</h2>\n{_lying(shown, look['rows'], 520)}\n"


def _legend() -> str:
    return (
        '<p class="faint">Numbers and dates: rows by value, from the least to the greatest, with the median below. '
        "Categories: the most frequent, with their rows. What is ignored is no input.</p>\n"
    )


def _card(column: Column, look: Mapping[str, Any], shown: Shown) -> str:
    role = " target" if column["name"] in look["targets"] else " ignored" if column["kind"] == "ignore" else ""
    role = " wrong" if column["problem"] else role
    kind = "ignored" if column["kind"] == "ignore" else column["kind"]
    stated = " (stated)" if column["stated"] else ""
    note = f'<p class="faint asked">{escape(column["note"])}</p>' if column["note"] else ""
    problem = f'<p class="bad asked">{escape(column["problem"])}</p>' if column["problem"] else ""
    return (
        f'<div class="card{role}"><h3>{escape(column["name"])} <span class="kind">{kind}{stated}'
        f'{", target" if column["name"] in look["targets"] else ""}</span></h3><p class="faint">{column["distinct"]:,} values, '
        f"{_missing(column, look['rows'])}</p>{note}{problem}{_drawing(column, look['rows'], shown)}</div>\n"
    )


def _missing(column: Column, rows: int) -> str:
    return f"{column['missing']:,} missing ({column['missing'] / rows:.1%})" if column["missing"] else "none missing"


def _drawing(column: Column, rows: int, shown: Shown) -> str:
    if column["least"] is None:
        return _lying(column["histogram"][:6], rows, WIDTH)
    return _standing(column, shown)


def _standing(column: Column, shown: Shown) -> str:
    """Bars side by side over an axis from the least to the greatest value."""
    bars: Sequence[tuple[str, int]] = column["histogram"]
    highest, each = max(rows for _, rows in bars), WIDTH / len(bars)
    drawn = ""
    for place, (label, rows) in enumerate(bars):
        tall = round(HEIGHT * rows / highest, 1) if rows else 0
        drawn += (
            f'<rect class="bar" x="{place * each + 0.5:.1f}" y="{HEIGHT - tall:.1f}" width="{max(1, each - 1):.1f}" '
            f'height="{tall}"><title>{escape(label)}: {rows:,}</title></rect>'
        )
    low, middle, high = (shown(column["kind"], column[name]) for name in ("least", "median", "greatest"))
    texts = (
        f'<text x="0" y="{HEIGHT + 14}">{escape(low)}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 14}" text-anchor="middle">median {escape(middle)}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 14}" text-anchor="end">{escape(high)}</text>'
    )
    axis = f'<line class="scale" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
    return _svg(WIDTH, HEIGHT + 18, f"{column['name']}: {low} to {high}", drawn + axis + texts)


def _lying(bars: Sequence[Sequence[Any]], rows: int, width: int) -> str:
    """Bars below one another, each with its category and its rows."""
    highest = max((count for _, count in bars), default=1)
    drawn = ""
    for place, (label, count) in enumerate(bars):
        y = 17 * place
        name = label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…"
        drawn += (
            f'<rect class="level" x="0" y="{y}" width="{width}" height="15"/>'
            f'<rect class="bar" x="0" y="{y}" width="{width * count / highest:.1f}" height="15" opacity=".45"/>'
            f'<text class="in" x="4" y="{y + 11}">{escape(name)}</text>'
            f'<text class="in" x="{width - 4}" y="{y + 11}" text-anchor="end">{count:,} ({count / rows:.1%})</text>'
        )
    return _svg(width, 17 * len(bars) or 1, "the most frequent values", drawn)


def _svg(width: int, height: int, label: str, inner: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">{inner}</svg>'
