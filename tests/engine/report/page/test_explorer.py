"""The per-example view: its data against the predictions, and the page in a browser."""

import html
import io
import json
import re
import shutil
import subprocess

import polars as pl
import pytest
from rich.console import Console

from metashot.engine.cells.prompts import CellPrompt, PromptsFile, read_prompts
from metashot.engine.report.build import ReportSettings, write_report
from metashot.engine.report.page.explorer import explorer
from metashot.engine.report.reading.outputs import read_outputs
from metashot.engine.report.systems.results import collect_systems

DRAWS = dict(draws=20, level=0.95, seed=0)
HOSTILE = "</script><script>alert(1)</script> &amp; \u2028 <b>"


@pytest.fixture
def two(tmp_path, made, written):
    """Two systems over a classification and a multiple-choice task, with prompts for the first."""
    for method, skill in (("direct", 0.5), ("channel", 1.5)):
        cells = [
            made(task, seed, skill, method=method, n=12) for task in ("mood", "quiz") for seed in (13, 21)
        ]
        folder = written(tmp_path / method, cells)
        if method == "direct":
            PromptsFile(folder).add(
                [
                    CellPrompt(task, seed, f"shown {task} {seed}", tuple(f"{task} {i} {HOSTILE}" for i in range(12)))
                    for task in ("mood", "quiz")
                    for seed in (13, 21)
                ],
            )  # fmt: skip
    return tmp_path


def view_of(root):
    outputs = read_outputs([root])
    answers, _ = collect_systems(outputs, lambda setting: (), **DRAWS)
    return explorer(outputs, answers)


def test_every_prediction_is_there_with_its_texts(two):
    view = view_of(two)
    data = json.loads(view.json)
    assert view.predictions == 2 * 4 * 12
    assert "<" not in view.json
    found = set()
    for cell in data["cells"]:
        system, task = data["systems"][cell["s"]], data["tasks"][cell["t"]]
        for n, (gold, said, scores) in enumerate(zip(cell["g"], cell["a"], cell["x"], strict=True)):
            options = data["options"][cell["o"] if isinstance(cell["o"], int) else cell["o"][n]]
            found.add((system["name"], task["name"], cell["seed"], n, options[gold], options[said]))
            assert scores.index(min(scores)) == said
        if system["name"] == "In-context, k=16":
            assert data["prompts"][cell["p"]] == f"shown {task['name']} {cell['seed']}"
            assert data["inputs"][cell["i"]][3] == f"{task['name']} 3 {HOSTILE}"
        else:
            assert (cell["p"], cell["i"]) == (-1, -1)
    expected = set()
    for method, name in (("direct", "In-context, k=16"), ("channel", "Channel In-context, k=16")):
        for row in map(json.loads, (two / method / "predictions.jsonl").read_text().splitlines()):
            expected.add((name, row["task"], row["seed"], row["index"], row["gold"], row["prediction"]))
    assert found == expected


def test_texts_stand_once(two):
    data = json.loads(view_of(two).json)
    assert len(data["inputs"]) == 2
    assert [len(options) for options in data["options"][:1]] == [2]


def test_too_many_predictions_keep_one_seed_and_say_so(two, monkeypatch):
    monkeypatch.setattr("metashot.engine.report.page.explorer.MOST_PREDICTIONS", 60)
    view = view_of(two)
    assert view.predictions == 48
    assert view.left_out == "48 of 96 predictions are here: one seed of each task."
    monkeypatch.setattr("metashot.engine.report.page.explorer.MOST_PREDICTIONS", 20)
    assert view_of(two).predictions == 20


def test_prompts_are_read_back(tmp_path):
    cells = [
        CellPrompt("a", 1, "x", ("1", "2")),
        CellPrompt("a", 2, None, ("1", "2")),
        CellPrompt("b", 1, "", ("3",)),
    ]
    PromptsFile(tmp_path).add(cells)
    assert list(read_prompts(tmp_path).values()) == cells
    assert (tmp_path / "prompts.jsonl").read_text().count("inputs") == 2
    assert read_prompts(tmp_path / "nowhere") == {}


def in_browser(page, script, tmp_path, width=1280):
    """The DOM after `script` has run on the page, in a window of that many pixels."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    command = [
        chromium, *flags.split(), "--disable-component-update", "--disable-sync", f"--window-size={width},900",
        f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", changed.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def page_of(root, folder):
    outcome = write_report(
        ReportSettings((root,), folder, formats=("html",), draws=20, permutations=20),
        Console(file=io.StringIO()),
    )
    return outcome.files[0]


CHOOSE = """
const set = (id, text) => {
  const select = document.getElementById(id);
  select.value = [...select.options].find((option) => option.text === text).value;
  select.dispatchEvent(new Event("change"));
};
"""


@pytest.mark.slow
def test_flipped_examples_are_those_of_the_predictions(two, tmp_path):
    script = CHOOSE + (
        'set("x-task", "quiz"); set("x-first", "In-context, k=16"); set("x-second", "Channel In-context, k=16");'
        'set("x-show", "flipped between the two"); document.querySelector("#x-list > details").open = true;'
    )
    dom = in_browser(page_of(two, tmp_path / "out"), script, tmp_path)
    rows = {
        method: pl.read_ndjson(two / method / "predictions.jsonl").filter(pl.col("task") == "quiz").sort("seed", "index")
        for method in ("direct", "channel")
    }  # fmt: skip
    right = {method: (frame["gold"] == frame["prediction"]) for method, frame in rows.items()}
    flipped = int((right["direct"] != right["channel"]).sum())
    assert flipped > 0
    assert f"{flipped} of 24 answers shown; {100 * right['direct'].mean():.1f} % of all are right" in dom
    assert "alert(1)" not in re.sub(
        r"<pre>.*?</pre>|<span class=\"start\">.*?</span>|<script.*?</script>", "", dom, flags=re.DOTALL
    )


@pytest.mark.slow
def test_the_confusion_matrix_counts_every_answer(two, tmp_path):
    dom = in_browser(
        page_of(two, tmp_path / "out"),
        CHOOSE + 'set("x-task", "mood"); set("x-first", "In-context, k=16");',
        tmp_path,
    )
    table = dom[dom.index('class="matrix"') : dom.index("</table>", dom.index('class="matrix"'))]
    counts = [int(html.unescape(text)) for text in re.findall(r"<td[^>]*>(\d+)</td>", table)]
    frame = pl.read_ndjson(two / "direct" / "predictions.jsonl").filter(pl.col("task") == "mood")
    expected = [
        frame.filter((pl.col("gold") == gold) & (pl.col("prediction") == said)).height
        for gold in ("happy", "sad")
        for said in ("happy", "sad")
    ]
    assert counts == expected


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_and_breaks_no_label(two, tmp_path, width):
    """Wide tables scroll inside; lines between rows lie on whole pixels, or a sticky cell hides them.

    Chromium opens no window below 500 pixels; the rules for narrow ones hold there, and the page gets its width.
    """
    script = CHOOSE + (
        f'document.documentElement.style.width = "{width}px";'
        'set("x-task", "mood"); for (const one of document.querySelectorAll("details")) one.open = true;'
        "const found = [innerWidth, document.body.scrollWidth];"
        'const lines = [...document.querySelectorAll(".matrix th")].map((cell) => cell.getBoundingClientRect().height);'
        'const rows = [...document.querySelectorAll(".scroll tbody tr")].map((row) => row.getBoundingClientRect().height % 1);'
        "document.title = JSON.stringify([...found, Math.max(...lines), Math.max(...rows)]);"
    )
    dom = in_browser(page_of(two, tmp_path / "out"), script, tmp_path, width)
    window, page, label, fraction = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom)[1]))
    assert window == max(500, width)
    assert page <= width
    assert label < 40  # one line, not two
    assert fraction == 0


@pytest.mark.slow
def test_ten_thousand_examples_are_drawn(tmp_path, made, written):
    """Printed, not asserted: one change of the system over 10,000 answers."""
    cells = [made("mood", seed, 1.0, n=2000) for seed in range(5)]
    written(tmp_path / "run", cells)
    script = (
        'const before = performance.now(); document.getElementById("x-first").dispatchEvent(new Event("change"));'
        "document.title = `drawn in ${Math.round(performance.now() - before)} ms`;"
    )
    page = page_of(tmp_path / "run", tmp_path / "out")
    dom = in_browser(page, script, tmp_path)
    print(re.search(r"drawn in \d+ ms", dom)[0], f"{page.stat().st_size / 1e6:.1f} MB")
    assert "10000 of 10000 answers shown" in dom
