"""One HTML page that needs nothing else: styles inside, no script, no network, light and dark.

Every text is escaped unless it is `Html`, which only this package makes. A content policy in the page forbids whatever
should slip through: scripts, requests, frames.
"""

import html
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import category

DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root{color-scheme:light dark;--bg:#f6f7f8;--card:#fff;--ink:#1f2328;--quiet:#5f6872;--grid:#dde2e7;--line:#d3d9df;
--s0:#0a66c2;--s1:#bd5108;--s2:#1a7f37;--s3:#8250df;--s4:#cf222e;--s5:#0e7c86}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--card:#161b22;--ink:#e6edf3;--quiet:#9aa4af;--grid:#2b333d;
--line:#353e48;--s0:#58a6ff;--s1:#f0883e;--s2:#3fb950;--s3:#bc8cff;--s4:#ff7b72;--s5:#39c5cf}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:1120px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 4px}
h2{font-size:1.15rem;margin:40px 0 12px}
h3{font-size:1rem;margin:0 0 8px}
p{margin:8px 0}
.quiet{color:var(--quiet);font-size:.875rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px;min-width:0}
.verdict{font-size:1.25rem;line-height:1.4;font-weight:600;border-left:5px solid var(--quiet);margin:12px 0}
.verdict.s0{border-left-color:var(--s0)}.verdict.s1{border-left-color:var(--s1)}.verdict.s2{border-left-color:var(--s2)}
.verdict.s3{border-left-color:var(--s3)}.verdict.s4{border-left-color:var(--s4)}.verdict.s5{border-left-color:var(--s5)}
.grid{display:grid;gap:16px;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(100%,420px),1fr))}
.pair{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr))}
.facts{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(min(100%,150px),1fr));margin:16px 0}
.facts .card{padding:10px 14px}
.facts b{display:block;font-size:1.1rem;line-height:1.35;font-weight:600;font-variant-numeric:tabular-nums}
.facts span{display:block;color:var(--quiet);font-size:.8rem;line-height:1.35}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;overflow-wrap:normal}
td{min-width:7em}
td.number{min-width:0}
.label{white-space:nowrap}
th,td{text-align:left;vertical-align:top;padding:6px 12px 6px 0;border-bottom:1px solid var(--grid)}
th{color:var(--quiet);font-weight:500;white-space:nowrap}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr:last-child td{border-bottom:0}
code{font:.85em ui-monospace,monospace}
td code{white-space:nowrap}
svg{display:block;width:100%;height:auto}
figure{margin:0}
figcaption{color:var(--quiet);font-size:.875rem;margin-bottom:8px}
details{margin-top:12px}
summary{cursor:pointer;color:var(--quiet);font-size:.875rem}
.text{white-space:pre-wrap;unicode-bidi:isolate;font-size:.9rem;margin:6px 0 0;max-height:20em;overflow:auto}
.mark{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.45em}
.mark.s0{background:var(--s0)}.mark.s1{background:var(--s1)}.mark.s2{background:var(--s2)}
.mark.s3{background:var(--s3)}.mark.s4{background:var(--s4)}.mark.s5{background:var(--s5)}
.prompt{color:var(--quiet)}
@media (max-width:480px){main{padding:16px 12px 48px}.card{padding:12px}.verdict{font-size:1.1rem}}
@media (max-width:600px){.stacked thead{display:none}.stacked tr{display:block;padding:6px 0;border-bottom:1px solid var(--grid)}
.stacked tr:last-child{border-bottom:0}.stacked td,.stacked td.number{display:block;border:0;padding:1px 0;text-align:left}
.stacked td:empty{display:none}.stacked td,.stacked td code{white-space:normal;overflow-wrap:anywhere}
.stacked td[data-head]::before{content:attr(data-head) ": ";color:var(--quiet)}}
@media print{body{background:#fff}.card{break-inside:avoid}}
"""


class Html(str):
    """Markup made by this package: not escaped again."""


def escape(value: Any) -> Html:
    """Any value as text of a page: markup escaped, control characters (but line breaks and tabs) replaced."""
    if isinstance(value, Html):
        return value
    return Html(html.escape("".join("\ufffd" if _hidden(c) else c for c in str(value)), quote=True))


def _hidden(c: str) -> bool:
    """Whether a character would act instead of being seen: control codes, lone surrogates, changes of direction."""
    return (category(c) in ("Cc", "Cs") and c not in "\n\t") or c in DIRECTIONS


def join(parts: Iterable[Any], between: str = "\n") -> Html:
    """Parts, each escaped if need be."""
    return Html(between.join(escape(part) for part in parts))


def element(tag: str, content: Any, **attributes: str) -> Html:
    """`<tag class="..." data-head="...">content</tag>`; write `class_` for class, `data_head` for data-head."""
    named = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{named}>{escape(content)}</{tag}>")


def card(*content: Any, **attributes: str) -> Html:
    """A framed block."""
    classes = " ".join(["card", *filter(None, [attributes.pop("class_", "")])])
    return element("div", join(content), class_=classes, **attributes)


def section(title: str, *content: Any) -> Html:
    """A titled section; nothing when it has no content."""
    inside = [part for part in content if part]
    return Html(f"<section><h2>{escape(title)}</h2>{join(inside)}</section>") if inside else Html("")


def figure(caption: str, svg: str) -> Html:
    """A picture made by `charts` with its caption; nothing when there is no picture."""
    return card(Html(f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>")) if svg else Html("")


def grid(*cards: Html) -> Html:
    """Blocks side by side where there is room."""
    inside = [one for one in cards if one]
    return element("div", join(inside), class_="grid") if inside else Html("")


def facts(pairs: Iterable[tuple[str, Any]]) -> Html:
    """Large numbers with small names."""
    tiles = [card(element("b", value), element("span", name)) for name, value in pairs]
    return element("div", join(tiles), class_="facts")


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = (), *, stacked: bool = False
) -> Html:
    """A table; columns in `numbers` are aligned right.

    When the page is narrow it scrolls sideways, or is `stacked`: each row one below the other, each cell under its heading.
    """
    right = set(numbers)

    def cells(tag: str, values: Sequence[Any]) -> Html:
        made = []
        for i, value in enumerate(values):
            attributes = {"class_": "number"} if i in right else {}
            if stacked and tag == "td" and head[i]:
                attributes["data_head"] = head[i]
            made.append(element(tag, value, **attributes))
        return element("tr", join(made, ""))

    body = join(cells("td", row) for row in rows)
    inside = join([element("thead", cells("th", head)), element("tbody", body)])
    return element("div", element("table", inside), class_="scroll stacked" if stacked else "scroll")


def details(summary: str, *content: Any) -> Html:
    """What is there for those who ask."""
    return Html(f"<details><summary>{escape(summary)}</summary>{join(content)}</details>")


def marked(label: str, series: int) -> Html:
    """A label with the colour that its curves have."""
    return Html(f'<span class="label"><span class="mark s{series}"></span>{escape(label)}</span>')


def code(value: Any) -> Html:
    """A name of an artifact or a fingerprint."""
    return element("code", value)


def page(title: str, *content: Any) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n{join(content)}\n</main></body></html>\n"
    )
