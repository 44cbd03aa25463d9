"""Every LaTeX table fits a two-column page: compiled where `pdflatex` is there."""

import io
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from rich.console import Console

from metashot.engine.report.build import ReportSettings, write_report
from metashot.engine.report.formats.latex import PACKAGES, label, latex
from metashot.engine.report.tables.table import Table, TableCell

ARTICLE = r"""\documentclass[twocolumn,10pt]{article}
\usepackage[T1]{fontenc}\usepackage{%s}
\begin{document}
Text. \clearpage
%s
\end{document}
"""


def compiled(folder, sources):
    """The log of a two-column article with these tables."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    body = "\n".join(f"{source}\\clearpage" for source in sources)
    (folder / "all.tex").write_text(ARTICLE % (",".join(PACKAGES), body))
    for _ in range(2):  # references settle in the second run
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
        run = subprocess.run(command, cwd=folder, capture_output=True, timeout=300)
        assert run.returncode == 0, run.stdout[-2000:]
    return (folder / "all.log").read_text(errors="replace")


def wide(
    rows=4, n_numbers=14, name="a rather long name of a method [train_labels=replaced, test_labels=replaced]"
):
    columns = ("Method", "Model", *(f"setting_{i} of some length" for i in range(n_numbers)))
    row = (
        TableCell(name),
        TableCell("gpt2_large"),
        *(TableCell("43.5/41.0 †29/30", 43.5, best=True) for _ in range(n_numbers)),
    )
    return Table("wide", "Wide", "50 % & more_of it.", columns, (row,) * rows, 2)


def test_tables_fit_a_two_column_page(demo_runs, made, written, tmp_path):
    """A report over three settings with a missing cell, a table too wide for any page, and a very long one."""
    for setting in ("one_setting", "another_setting_with_a_long_name"):
        for method, k in (("zero", 0), ("direct", 16), ("channel", 16)):
            cells = [
                made(t, s, 1.0, method=method, k=k, setting=setting)
                for t in ("mood", "quiz")
                for s in ((13, 21) if k else (13,))
            ]
            written(demo_runs / f"{setting}-{method}", cells[:-1] if method == "channel" else cells)
    settings = ReportSettings((demo_runs,), tmp_path / "out", formats=("latex",), draws=20, permutations=20)
    outcome = write_report(settings, Console(file=io.StringIO()))
    sources = [path.read_text() for path in outcome.files]
    assert any(r"\cmidrule" in source for source in sources)
    log = compiled(tmp_path, [*sources, latex(wide()), latex(replace(wide(rows=120), key="long"))])
    for fault in ("Overfull", "too large", "multiply defined", "undefined"):
        assert not re.findall(rf"^.*{fault}.*$", log, re.MULTILINE)


def test_captions_stand_above_and_widths_choose_the_environment():
    narrow = latex(Table("n", "N", "", ("Task", "Mean"), ((TableCell("mood"), TableCell("1.0", 1.0)),)))
    assert narrow.index(r"\caption") < narrow.index(r"\begin{tabular}")
    assert r"\begin{table}" in narrow
    assert r"\begin{table*}" in latex(wide(n_numbers=3))
    assert latex(wide(rows=2, n_numbers=8, name="MetaICL")).count(r"\begin{tabular}") > 1
    assert r"\begin{longtable}" in latex(wide(rows=100, n_numbers=3))


def test_groups_have_rules_below_their_heads():
    row = (TableCell("a"), *(TableCell("1.0", 1.0) for _ in range(4)))
    text = latex(
        Table("g", "G", "", ("Method", *("Mean", "Worst") * 2), (row,), groups=(("one_a", 2), ("two", 2)))
    )
    assert r"\multicolumn{2}{c}{one\_\allowbreak{}a} & \multicolumn{2}{c}{two} \\" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in text


def test_no_two_keys_share_a_label():
    keys = ("tasks-a b", "tasks-a-b", "tasks-a_b", "tasks-ä")
    assert len({label(Table(key, "", "", ("x",), ())) for key in keys}) == len(keys)
