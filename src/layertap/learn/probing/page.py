"""Report of findings as one self-contained HTML file."""

from __future__ import annotations

import base64
import json
from html import escape

from layertap.learn.probing.findings import ClassDetails, Findings
from layertap.learn.probing.pictures import pictures
from layertap.learn.probing.table import cells, header, method, recommendation, sizes

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbf9; --panel: #ffffff; --ink: #1b1f23; --faint: #5f6670;
  --rule: #e2e2dd; --accent: #1f6389; --wash: #edf3f6; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --panel: #1b1f23; --ink: #e8eaec; --faint: #9ea6af; --rule: #2e343a; --accent: #79b8dc;
    --wash: #222c33; }
}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif;
  color: var(--ink); background: var(--ground); margin: 0; font-variant-numeric: tabular-nums; }
main { max-width: 1060px; margin: 0 auto; padding: 36px 24px 60px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 34px 0 10px; }
p { margin: 0 0 10px; max-width: 76ch; }
.faint { color: var(--faint); font-size: 14px; }
.card { background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: 18px 20px;
  margin: 14px 0; }
.best { border-left: 5px solid var(--accent); }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 16px; }
.two .card { margin: 0; }
.two .card:last-child:nth-child(odd) { grid-column: 1 / -1; }
.two h2 { margin-top: 0; }
img { display: block; width: 100%; height: auto; }
pre { background: var(--wash); padding: 12px 14px; border-radius: 6px; font-size: 13.5px; margin: 8px 0 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--faint); font-weight: 600; border-bottom: 2px solid var(--rule);
  padding: 6px 10px; }
td { text-align: right; border-bottom: 1px solid var(--rule); padding: 6px 10px; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; font-family: ui-monospace, Consolas, monospace; font-size: 13.5px; }
table.texts td:first-child { white-space: normal; font-family: inherit; font-size: 14.5px; }
tr.chosen td { background: var(--wash); font-weight: 600; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--faint); }
@media (max-width: 760px) { .two { grid-template-columns: 1fr; } .wide { overflow-x: auto; } }
"""


MOST_MISTAKES = 20
"""Maximum number of mistakes on the page."""

SOURCES = {
    True: (
        "Random labels and selectivity: Hewitt and Liang 2019. Similarity: linear CKA (Kornblith et al. 2019). It and "
        "the projection, of standardised features, are of at most 2,000."
    ),
    False: "Similarity: linear CKA (Kornblith et al. 2019), of at most 2,000 texts.",
}
"""References for the methods, by whether labels are classes."""


def as_page(findings: Findings, *, title: str, command: str) -> str:
    """Return the report as HTML.

    Args:
        findings: results of all features.
        title: title of the data.
        command: command line that extracts the best feature.
    """
    drawn = {name: _image(svg, name) for name, svg in pictures(findings).items()}
    notes = "".join(f"<p>Note: {escape(note)}.</p>" for note in findings.notes)
    provenance = json.dumps(dict(findings.provenance), indent=2, ensure_ascii=False)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}: which layer knows it?</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}: which layer knows it?</h1>
<p class="faint">{escape(str(findings.provenance["model"]))}, {sizes(findings)}, {len(findings.rows)} features</p>
<div class="card best">
<p><strong>{escape(recommendation(findings))}</strong></p>
<pre>{escape(command)}</pre>
</div>
<div class="card">{drawn["scores"]}</div>
<h2>All features</h2>
<div class="card wide">{_table(findings)}</div>
<h2>The best, and the layers</h2>
<div class="two">
{"".join(f'<div class="card">{picture}</div>' for name, picture in drawn.items() if name != "scores")}
<div class="card">
<h2>How this was measured</h2>
<p>{escape(method(findings))}</p>
{notes}
<p class="faint">{SOURCES[isinstance(findings.details, ClassDetails)]}</p>
</div>
</div>
{_mistakes(findings)}
<details><summary>Provenance</summary><pre>{escape(provenance)}</pre></details>
</main>
</body>
</html>
"""


def _table(findings: Findings) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header(findings))
    lines = []
    for row in findings.rows:
        chosen = ' class="chosen"' if row is findings.winner else ""
        lines.append(f"<tr{chosen}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row, findings)) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _mistakes(findings: Findings) -> str:
    """Return the section with examples that were predicted wrongly, or nothing if there are none."""
    shown = findings.mistakes[:MOST_MISTAKES]
    if not shown:
        return ""
    if isinstance(findings.details, ClassDetails):
        title, count = "Mistakes", f"{len(shown)} of {findings.num_mistakes:,}, the most confident first"
    else:
        title, count = "Pairs that differ most", "by their ranks: given score, cosine"
    lines = []
    for it in shown:
        word = "" if it.word is None else f" <b>{escape(it.word)}</b>"
        pair = "" if it.pair is None else f"<br>{escape(it.pair)}"
        sure = "" if it.confidence is None else f" ({it.confidence:.2f})"
        cells_ = (f"{escape(it.text)}{pair}{word}", escape(it.true), f"{escape(str(it.predicted))}{sure}", str(it.row))
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells_) + "</tr>")
    head = "<th>text</th><th>true</th><th>predicted</th><th>row</th>"
    return (
        f'<h2>{title}</h2>\n<p class="faint">{count}</p>\n<div class="card wide"><table class="texts"><thead><tr>{head}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _image(svg: str, name: str) -> str:
    # In an image of its own, the ids of clips and gradients of a picture do not clash with those of others.
    content = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(name)}" src="data:image/svg+xml;base64,{content}">'
