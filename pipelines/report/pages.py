"""Pages are Jinja templates, with everything that is put into them escaped.

A page is one file without scripts that fetches nothing, by its Content-Security-Policy. Same values, same bytes.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

MOST = 20  # classes that have a bar of their own
# Metrics as people write them.
SPELLED = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "f1": "F1",
    "brier": "Brier score",
}


def render(template: str, **values: Any) -> str:
    """A whole HTML document, from a file of templates/."""
    return _environment().get_template(template).render(values)


def data_page(look: Mapping[str, Any], shown: Callable[[Any, float], str]) -> str:
    """The page of a look at data, as `deltarule data --json` prints it; `shown(kind, value)` spells a number or a date."""
    targets = look["targets"]
    classes = sorted(look["classes"].items(), key=lambda pair: -pair[1])
    others = [("others", sum(rows for _, rows in classes[MOST:]))] if len(classes) > MOST else []
    kinds = Counter(column["kind"] for column in look["columns"] if column["name"] not in targets)
    return render(
        "data.html",
        title=f"Data: {look['source']}",
        look=look,
        kinds=", ".join(f"{count} {'ignored' if kind == 'ignore' else kind}" for kind, count in kinds.items()),
        gaps=sum(column["missing"] > 0 for column in look["columns"]),
        classes=[*classes[:MOST], *others],
        # The targets, then the inputs in the order of the file, then what is ignored.
        columns=sorted(look["columns"], key=lambda column: (column["name"] not in targets, column["kind"] == "ignore")),
        shown=shown,
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("pipelines.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {
        "number": number,
        "spelled": spelled,
        "text": as_yaml,
        "brief": brief,
        "amount": amount,
        "indented": indented,
    }
    return found


def spelled(metric: str) -> str:
    """A metric as people write it; of one target of several, with its name."""
    kind, dot, target = metric.partition(".")
    return f"{SPELLED.get(kind, kind.replace('_', ' '))}{f' of {target}' if dot else ''}"


def number(value: Any) -> str:
    """Four significant digits; whole numbers whole, texts as they are, "–" for nothing."""
    if isinstance(value, str) or value is None:
        return value or "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def amount(value: Any) -> str:
    """A difference: its size is what counts."""
    return "–" if value is None else "0" if value == 0 else f"{value:.1e}"


def indented(value: Any) -> str:
    """As JSON for readers."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_yaml(value: Any) -> str:
    """A value of the spec, as YAML spells it."""
    if isinstance(value, list):
        return ", ".join(map(as_yaml, value))
    return value if isinstance(value, str) else json.dumps(value)


def brief(text: str) -> str:
    """A text that is a long fraction to five digits, for a column of drawn values; anything else whole."""
    try:
        return f"{float(text):.5g}" if len(text) > 8 and not text.lstrip("-").isdigit() else text
    except ValueError:
        return text


def image(png: bytes) -> str:
    """What an <img> shows without fetching it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
