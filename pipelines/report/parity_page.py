"""The page of a comparison with the reference: one file, no script, nothing to fetch. Same numbers, same bytes.

Takes the comparison as plain numbers, as `deltarule parity --json` prints it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from pipelines.report.page import facts, folded, indented, page, text

Row = Mapping[str, Any]  # one quantity of one backend
LOW, HIGH = -20, 2  # decades on the scale
WIDTH, PAD = 300, 6  # of the scale, in pixels
MARKS = {True: "✓", False: "✗", None: "·"}
WORDS = {
    "agrees": "agrees with the reference",
    "differs": "differs from the reference",
    "failed": "failed",
    "absent": "was not compared",
    "refused": "was not compared",
}
SCALES = """
tr.section td { padding-top: 1rem; font-weight: 600; border-bottom: 1px solid var(--line); }
td.name { padding-left: .8rem; } td .value { color: var(--faint); font-size: .85rem; }
.true { color: var(--good); } .false { color: var(--bad); font-weight: 700; } .null { color: var(--faint); }
.limit { stroke: var(--text); stroke-width: 1.5; } .room { fill: var(--goodback); }
.drift { fill: none; stroke: var(--faint); stroke-width: 1.3; } .dot.true { fill: var(--good); } .dot.false { fill: var(--bad); }
.dot.null { fill: var(--faint); }
"""


def parity_page(report: Mapping[str, Any], sections: Mapping[str, str]) -> str:
    """`report` as the command's JSON holds it; `sections`: key -> heading. A whole HTML document."""
    title = f"Parity: {report['source']}"
    tables = "".join(_table(report, precision, sections) for precision in report["precisions"])
    return page(title, f"{_what(report)}{_verdicts(report)}{_legend()}{tables}{_about(report)}", SCALES)


def _what(report: Mapping[str, Any]) -> str:
    trial, rows = report["trial"], report["rows"]
    net = "-".join(map(str, [trial["inputs"], *trial["model"]["hidden"], trial["outputs"]]))
    looked, steps = report["steps_looked_at"], report["steps"]
    each = f"each of {steps}" if looked == steps else f"{looked} of the first {steps}"
    fit = "the whole fit" if report["whole_fit"] else "no whole fit: it costs more than is carried out here"
    return (
        f'<p class="faint">{escape(trial["task"])}, {net} {escape(trial["model"]["activation"])}, '
        f"{escape(trial['train']['optimizer']['name'])}, batch {trial['train']['batch_size']}; {rows['train']} training and "
        f"{rows['valid']} validation rows. Compared with the reference: a batch, {each} optimizer steps, {steps} steps on "
        f"end, {fit}. The test rows were not opened.</p>\n"
    )


def _verdicts(report: Mapping[str, Any]) -> str:
    boxes = (_verdict(name, outcome) for name, outcome in report["backends"].items())
    return f'<div class="verdicts">{"".join(boxes)}</div>\n'


def _verdict(name: str, outcome: Mapping[str, Any]) -> str:
    judged = [row for row in outcome["quantities"] if row["passed"] is not None]
    failed = [row for row in judged if not row["passed"]]
    versions = ", ".join(f"{k} {v}" for k, v in outcome["versions"].items())
    if outcome["status"] == "agrees":
        told = f"All {len(judged)} quantities lie within what is allowed."
    elif outcome["status"] == "differs":
        told = f"{len(failed)} of {len(judged)} quantities lie beyond what is allowed, first of all {_cause(failed[0])}."
    else:
        told = outcome["message"]
    return (
        f'<div class="verdict {outcome["status"]}"><b>{escape(name)}</b> {WORDS[outcome["status"]]}<p>{escape(told)}</p>'
        f'<p class="faint">{escape(versions)}</p></div>'
    )


def _cause(row: Row) -> str:
    where = f" at {row['where']}" if row["where"] else ""
    return f"{row['quantity']}{where} ({row['precision']})"


def _legend() -> str:
    return (
        '<p class="faint">On each scale, from 0 at the left over 1e-19 to 100: the shaded part is allowed and ends at the bar; '
        "a dot is a backend's largest difference from the reference, below one another in the order of the columns; the ring is "
        "how far the reference itself moves when its weights are changed by one ulp.</p>\n"
    )


def _table(report: Mapping[str, Any], precision: str, sections: Mapping[str, str]) -> str:
    compared = {name: o for name, o in report["backends"].items() if o["status"] in ("agrees", "differs")}
    if not compared:
        return ""
    each = [{(r["section"], r["quantity"]): r for r in o["quantities"] if r["precision"] == precision} for o in compared.values()]
    keys = dict.fromkeys(key for rows in each for key in rows)
    body = ""
    for section, group in groupby(keys, key=lambda key: key[0]):
        body += f'<tr class="section"><td colspan="{len(compared) + 4}">{escape(sections[section])}</td></tr>\n'
        body += "".join(_row([rows.get(key) for rows in each]) for key in group)
    heads = "".join(f"<th>{escape(name)}</th>" for name in compared)
    return (
        f'<h2>{precision}</h2>\n<div class="wide"><table>\n<tr><th>largest difference</th>{heads}'
        f'<th class="number">allowed</th><th class="number">one-ulp drift</th><th>{_axis()}</th></tr>\n{body}</table></div>\n'
        f"{_not_judged(precision)}"
    )


def _not_judged(precision: str) -> str:
    if precision == "float64":
        return ""
    return (
        '<p class="faint">In float32 backends are judged by outputs and objective. What stands with a dot is shown, not judged: '
        "a weight that only its penalty moves may change the sign of its gradient with the last bit.</p>\n"
    )


def _row(found: Sequence[Row | None]) -> str:
    there = [row for row in found if row is not None]
    chief = max(there, key=_excess)
    value = f' <span class="value">{chief["expected"]:.4g}</span>' if _has_value(chief) else ""
    cells = "".join(f"<td>{_cell(row)}</td>" for row in found)
    return (
        f'<tr><td class="name">{escape(chief["quantity"])}{value}</td>{cells}<td class="number">{_amount(chief["allowed"])}</td>'
        f'<td class="number faint">{_amount(chief["drift"])}</td><td>{_scale(chief, found)}</td></tr>\n'
    )


def _has_value(row: Row) -> bool:
    return row["expected"] is not None and row["section"] in ("fit", "after")


def _excess(row: Row) -> tuple[bool, float]:
    difference = math.inf if row["difference"] is None else row["difference"]
    if row["allowed"] is None:
        return False, difference
    return True, 0.0 if difference == 0 else difference / row["allowed"] if row["allowed"] else math.inf


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    kind = json.dumps(row["passed"])
    where = f' <span class="value">{escape(row["where"])}</span>' if row["where"] else ""
    difference = "none or NaN" if row["difference"] is None else _amount(row["difference"])
    return f'<span class="{kind}">{MARKS[row["passed"]]} {difference}</span>{where}'


def _amount(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0 else f"{value:.1e}"


# -- the scale ------------------------------------------------------------------------------------------------------------


def _place(value: float | None) -> float:
    """Where a number stands, in pixels: 0 at the left end, what is none at the right end."""
    if value == 0:
        decades: float = LOW
    else:
        decades = HIGH if value is None else min(HIGH, max(LOW + 1, math.log10(value)))
    return round(PAD + (decades - LOW) / (HIGH - LOW) * (WIDTH - 2 * PAD), 1)


def _axis() -> str:
    labels = [(LOW, "0"), *((decade, f"1e{decade}") for decade in (-16, -12, -8, -4)), (0, "1")]
    texts = "".join(f'<text x="{_place(0.0 if d == LOW else 10.0**d)}" y="11" text-anchor="middle">{t}</text>' for d, t in labels)
    return f'<svg width="{WIDTH}" height="14" role="presentation">{texts}</svg>'


def _scale(chief: Row, found: Sequence[Row | None]) -> str:
    height = 8 + 7 * len(found)
    middle = height / 2
    parts = [f'<line class="scale" x1="{PAD}" x2="{WIDTH - PAD}" y1="{middle}" y2="{middle}"/>']
    if chief["allowed"] is not None:
        edge = _place(chief["allowed"])
        parts.insert(0, f'<rect class="room" x="0" y="0" width="{edge}" height="{height}"/>')
        parts.append(f'<line class="limit" x1="{edge}" x2="{edge}" y1="0" y2="{height}"/>')
    if chief["drift"] is not None:
        parts.append(f'<circle class="drift" cx="{_place(chief["drift"])}" cy="{middle}" r="4.5"/>')
    parts += [_dot(row, 7.5 + 7 * number) for number, row in enumerate(found) if row is not None]
    label = escape(f"{chief['quantity']}: largest difference {_amount(chief['difference'])}, allowed {_amount(chief['allowed'])}")
    return f'<svg width="{WIDTH}" height="{height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _dot(row: Row, y: float) -> str:
    return f'<circle class="dot {json.dumps(row["passed"])}" cx="{_place(row["difference"])}" cy="{y}" r="3"/>'


# -- what lies behind it --------------------------------------------------------------------------------------------------


def _about(report: Mapping[str, Any]) -> str:
    known = {
        "fingerprint of the experiment": report["fingerprint"],
        **{f"SHA-256 of the {part} rows": digest for part, digest in report["data_hashes"].items()},
    }
    return (
        "<h2>How it is judged</h2>\n"
        "<p>float64: an optimizer step that starts from the reference's own state must end within 1e-12 of max|W|. Weights "
        "that ran freely must lie within 1e-12, or ten times the reference's own drift after a change of one ulp in its initial "
        "weights: "
        "some settings are chaotic, and then no code could agree better. Other numbers are held to the same form, 1e-12 of the "
        "largest or ten drifts. float32: outputs before softmax or sigmoid, E and λΩ within 1e-5 or ten drifts.</p>\n"
        "<p>Read from the top: a first row that fails names the cause, the rows after it follow from it.</p>\n"
        f"<h2>What was compared</h2>\n{facts(known.items())}"
        f"{folded('The spec, as a backend sees it', text(indented(report['trial'])))}"
    )
