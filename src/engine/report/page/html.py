"""One self-contained HTML page: no network, light and dark, sortable tables, plots with text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from metashot.engine.report.page.explorer import Explorer
from metashot.engine.report.page.plots import INK, Plot
from metashot.engine.report.tables.table import Table


def page(
    title: str,
    facts: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    plots: Sequence[Plot],
    problems: Sequence[str],
    examples: Explorer | None = None,
) -> str:
    """The page as text.

    Args:
        title: heading of the page.
        facts: (name, value) pairs shown under the heading.
        tables: in order; the first stands above the plots.
        plots: in order.
        problems: sentences about what was left out, shown first.
        examples: data of the per-example view, last on the page.
    """
    folder = files("metashot.engine.report.page")
    read = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js", "explorer.js")
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(read["page.html"]).render(
        title=title,
        facts=facts,
        tables=tables,
        plots=[(plot, Markup(inline_svg(plot))) for plot in plots],
        problems=problems,
        css=Markup(read["page.css"]),
        js=Markup(read["page.js"]),
        explorer=examples,
        data=Markup("" if examples is None else examples.json),
        explorer_js=Markup(read["explorer.js"]),
    )


def inline_svg(plot: Plot) -> str:
    """The plot's `<svg>` element: ids of its own, the page's text colour, described for screen readers."""
    svg = plot.svg[plot.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Two plots on a page would share the ids of markers and clip paths.
    svg = re.sub(r'\bid="', f'id="{plot.key}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{plot.key}-", svg)
    svg = svg.replace(INK, "currentColor").replace("<svg", '<svg role="img" aria-hidden="true"', 1)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
