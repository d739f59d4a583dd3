"""Labels that look like spellings of one another: Yes and yes, colour and colur. A question to a person, never an answer."""

from __future__ import annotations

from collections.abc import Mapping

MOST = 2000  # labels that are compared with one another; of more, those that differ in case or marks alone are still found
SHORT = 4  # letters: of shorter words one letter more, less or other makes another word; two that changed places do not


def spelled_alike(rows: Mapping[str, int]) -> dict[str, str]:
    """label -> the more frequent label that it may be a spelling of. `rows` has the rows of each."""
    frequent = sorted(rows, key=lambda label: -rows[label])
    folded: dict[str, str] = {}
    found: dict[str, str] = {}
    for label in frequent:
        key = _fold(label)
        if key and key in folded:
            found[label] = folded[key]
        folded.setdefault(key, label)
    return found


def near(label: str, others: Mapping[str, int]) -> str:
    """The most frequent of the others that the label may be a spelling of, by one letter too; "" if there is none."""
    key, own = _fold(label), others.get(label, 0)
    more = sorted((other for other in others if others[other] > own), key=lambda other: -others[other])[:MOST]
    return next((other for other in more if key and (key == _fold(other) or _one_slip(key, _fold(other)))), "")


def _fold(label: str) -> str:
    """Without case, blanks and marks; numbers and codes stay apart, as 1.0 and 10 are."""
    if any(letter.isdigit() for letter in label):
        return label.casefold()
    return "".join(letter for letter in label.casefold() if letter.isalnum())


def _one_slip(a: str, b: str) -> bool:
    """Letters alone, and of these one more, one less, one other, or two that changed places."""
    if not (a.isalpha() and b.isalpha()) or abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    if len(a) > 1 and a[:2] == b[1::-1] and a[2:] == b[2:]:
        return True
    return max(start + len(a), start + len(b)) >= SHORT and (a[1:] == b[1:] or a == b[1:] or a[1:] == b)
