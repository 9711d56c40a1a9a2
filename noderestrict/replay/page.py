"""The frame of an HTML page for people, which loads nothing else."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape

from noderestrict.policy.text import printable

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #c0271b; --good: #1a7f37; --soft: #8881;
  --open: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8078; --good: #57c878; --open: #d4a72c; } }
html { background: Canvas; color: CanvasText; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.sums { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; list-style: none; }
.sums li { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; }
.sums b { display: block; font-size: 1.5rem; }
.tables { display: flex; flex-wrap: wrap; gap: 2rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1rem; } dd { margin: 0; }
table { border-collapse: collapse; } th { text-align: left; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .75rem .25rem 0;
  vertical-align: top; }
.scroll th, .scroll td { min-width: 5.5rem; }
@media (min-width: 40rem) { .scroll td:first-child { overflow-wrap: normal; } }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.filters { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; } select { font: inherit;
  max-width: 100%; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0;
  padding: .5rem .75rem; }
summary { cursor: pointer; } details p { margin: .5rem 0; }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
.open { color: var(--open); font-weight: 600; }
.times { float: right; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } .note { opacity: .75; }
del { color: var(--bad); text-decoration: none; } ins { color: var(--good); text-decoration: none; }
"""


def page(title: str, heading: str, body: str, style: str = "", script: str = "") -> str:
    """Return a page.

    Args:
        title: of the window, as text.
        heading: above everything, as text.
        body: HTML.
        style: CSS of this page alone.
        script: JavaScript that runs at the end of this page; the browser runs no other.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"; script-src 'sha256-{digest}'" if script else ""
    at_end = f"<script>{script}</script>" if script else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        f"content=\"default-src 'none'; style-src 'unsafe-inline'{scripts}\">"
        f"<title>{shown(title)}</title><style>{_STYLE}{style}</style></head>"
        f"<body><main><h1>{shown(heading)}</h1>{body}</main>{at_end}</body></html>\n"
    )


def counted(sums: Mapping[str, int]) -> str:
    """Return HTML that shows counts first, by what they count."""
    items = "".join(f"<li><b>{count:,}</b>{shown(name)}</li>" for name, count in sums.items())
    return f'<ul class="sums">{items}</ul>'


def shown(text: str) -> str:
    """Return HTML that shows a text as it is."""
    return escape(printable(text))
