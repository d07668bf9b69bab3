"""Tables for notebooks: what `_repr_html_` of the public types gives. Everything is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A small table with a title; the cells are text, whatever they hold."""
    head = "".join(f"<th style='text-align:left'>{escape(word)}</th>" for word in heads)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<div><b>{escape(title)}</b><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
