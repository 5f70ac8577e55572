"""`python -m kfusion.report`: what is on the page, what a browser makes of it, and what is said of a broken run."""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from kfusion.contents import foreign
from kfusion.evaluation.embedder import embed
from kfusion.evaluation.evaluator import Request, evaluate
from kfusion.recipes import RECIPES
from kfusion.reporting import words
from kfusion.reporting.findings import read_findings
from kfusion.reporting.page import report
from kfusion.reporting.training import train_command
from kfusion.train import read_command
from tests.browser import Visit
from tests.conftest import ROOT


class Page(HTMLParser):
    """The page's elements, its text, and its tables as lists of rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1] and self.lasttag in ("td", "th"):
            self.rows[-1][-1] += data.strip()

    def row(self, name: str, columns: int) -> list[str]:
        return next(row for row in self.rows if len(row) == columns and row[0] == name)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for each, attributes in self.elements if each == tag]


@pytest.fixture(scope="module")
def bare(trained_run, tmp_path_factory):
    """A copy of the small run of which only the training is known."""
    folder = tmp_path_factory.mktemp("bare") / "small <run> & more"
    shutil.copytree(trained_run, folder)
    return folder


@pytest.fixture(scope="module")
def whole(trained_run, tmp_path_factory):
    """A copy of the small run that has been evaluated and embedded, beside a twin that answers a little differently."""
    folder = tmp_path_factory.mktemp("whole") / "whole"
    shutil.copytree(trained_run, folder)
    evaluate(folder, Request(grid_rows=20))
    embed(folder)
    twin = folder.with_name("twin")
    shutil.copytree(folder, twin)
    with np.load(twin / "evaluation/answers.npz") as arrays:
        answers = dict(arrays)
    # The first five test rows are answered wrong: every view names the class after the true one.
    answers["test"] = answers["test"].copy()
    answers["test"][:5] = np.eye(10)[(answers["label"][:5] + 1) % 10][:, None]
    np.savez(twin / "evaluation/answers.npz", **answers)
    report(folder, (twin,))
    return folder


def test_a_page_of_a_training_alone_names_the_commands_that_make_the_rest(bare):
    page = Page(report(bare))
    for verb in ("evaluate", "embed"):
        assert f"python -m kfusion.{verb} {shlex.quote(str(bare))}" in page.text
    accuracy = json.loads((bare / "metrics.json").read_text())["views"]["audio"]["accuracy"]
    assert page.row("audio only", 5)[1] == words.percent(accuracy, 1)
    assert {"Learning curves", "Robustness", "Embeddings", "Errors"} <= set(page.text.splitlines())


def test_the_numbers_on_the_page_are_those_of_the_files(whole):
    page = Page(whole / "report.html")
    facts = json.loads((whole / "evaluation/evaluation.json").read_text())
    view = facts["views"]["image"]
    written = page.row("image only", 5)
    assert written[1] == f"{100 * view['accuracy']:.1f} %"
    assert written[3:] == [
        f"{100 * view['interval'][0]:.1f} – {100 * view['interval'][1]:.1f} %",
        str(view["num_errors"]),
    ]
    grid = json.loads((whole / "evaluation/robustness.json").read_text())
    title = grid["corruptions"]["image"]["noise"]["title"]
    shares = grid["alone"]["image"]["noise"]["fused"]["accuracy"]
    assert page.row(title, len(shares) + 2)[1:-1] == [f"{100 * share:.1f}" for share in shares]
    embeddings = json.loads((whole / "embeddings/embeddings.json").read_text())
    assert embeddings["verdict"] in page.text
    assert page.row("audio", 8)[-1] == words.percent(embeddings["embeddings"]["audio"]["probes"]["knn"])


def test_a_run_beside_another_is_tested_on_the_same_rows(whole):
    facts = json.loads((whole / "evaluation/evaluation.json").read_text())
    with np.load(whole / "evaluation/answers.npz") as arrays:
        right = arrays["test"][:, 0].argmax(axis=1) == arrays["label"]
    lost = int(right[:5].sum())
    row = Page(whole / "report.html").row("fused", 6)
    assert row[1] == words.points(-lost / facts["views"]["fused"]["num_rows"])
    assert row[3:5] == ["0", str(lost)]
    assert row[5] == words.p_value(2 * 0.5**lost)  # lost heads in lost throws, and as many tails


def test_runs_of_other_test_rows_are_not_tested_against_each_other(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    rows = dict(np.load(other / "split.npz"))
    rows["test_image"] = rows["test_image"][::-1]
    np.savez(other / "split.npz", **rows)
    page = Page(report(whole, (other,), tmp_path / "page.html"))
    assert "not tested against each other: their test parts hold other rows" in " ".join(page.text.split())
    assert "McNemar" in page.text  # those within the run remain


def test_a_pairs_interval_allows_for_rows_with_the_same_sound(whole, tmp_path):
    def interval(group):
        other = tmp_path / f"other-{len(set(group))}"
        shutil.copytree(whole.with_name("twin"), other)
        for folder in (whole, other):
            path = folder / "evaluation/answers.npz"
            with np.load(path) as arrays:
                answers = {**arrays, "group": group}
            np.savez(path, **answers)
        text = Page(report(whole, (other,), tmp_path / "page.html")).row("fused", 6)[2]
        low, high = (float(each.replace("−", "-")) for each in text.split(" to "))
        return high - low

    kept = (whole / "evaluation/answers.npz").read_bytes()
    # The five rows that differ are five sounds, or one that is in five pairs.
    one_by_one, together = interval(np.arange(100)), interval(np.maximum(np.arange(100) - 4, 0))
    (whole / "evaluation/answers.npz").write_bytes(kept)
    assert together > 1.5 * one_by_one


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_evaluations_on_other_data_are_on_the_page(copy):
    facts = json.loads((copy / "evaluation/evaluation.json").read_text())
    facts["views"]["audio"] |= {"accuracy": 0.875, "interval": [0.75, 0.9375]}
    facts["data"] |= {"part": "all rows", "num_rows": 64}
    (copy / "evaluation/mine").mkdir()
    (copy / "evaluation/mine/evaluation.json").write_text(json.dumps(facts))
    row = Page(report(copy)).row("mine, all rows", 6)
    assert (row[1], row[4]) == ("64", "87.5 % (75.0 – 93.8 %)")


def test_a_run_folder_may_hold_all_that_evaluate_embed_and_report_write(whole):
    assert foreign(whole, begun=True) == []


def test_numbers_of_other_weights_are_not_shown(copy):
    (copy / "best.keras").write_bytes(b"other weights")
    page = Page(report(copy))
    for verb, what in (("evaluate", "who decides"), ("evaluate", "the robustness grid"), ("embed", "the embeddings")):
        assert f"Made with other weights than the run has now: {what}. The command for it:" in page.text
        assert f"python -m kfusion.{verb} {copy}" in page.text
    assert "McNemar" not in page.text
    assert len(page.having("img")) == 2  # those of the training


def test_a_grid_of_another_evaluation_is_not_shown(copy):
    path = copy / "evaluation/robustness.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "key": "another"}))
    page = Page(report(copy))
    assert "Made with other weights than the run has now: the robustness grid" in page.text
    assert "McNemar" in page.text


def test_a_lost_figure_is_named_with_the_command_that_draws_it(copy):
    for name in ("evaluation/figures/reliability", "embeddings/figures/audio_tsne", "figures/learning_curves"):
        for suffix in (".png", ".svg"):
            (copy / name).with_suffix(suffix).unlink()
    page = Page(report(copy))
    for what in ("the figure reliability", "the figure audio_tsne", "the learning curves"):
        assert f"Not made yet: {what}. The command for it:" in page.text
    assert f"python -m kfusion.train --config {copy / 'config.json'}" in page.text


def test_a_class_named_like_an_element_stays_a_name(copy):
    evil = "<script>alert(1)</script>"
    for name in ("data.json", "metrics.json", "evaluation/evaluation.json", "embeddings/embeddings.json"):
        text = (copy / name).read_text()
        (copy / name).write_text(text.replace('"3"', json.dumps(evil)).replace('"builtin"', json.dumps(f"{evil}&amp;")))
    page = Page(report(copy, (), copy / "<b>.html"))
    assert page.row(evil, 5)[0] == evil  # in the classification report
    assert f"{evil}&amp; (" in page.text  # the data's name
    assert not {"script", "b"} & {tag for tag, attributes in page.elements if not attributes}
    assert "<script" not in (copy / "<b>.html").read_text()


def test_without_its_extra_the_report_says_how_it_is_installed(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ValueError, match=r"^a report needs the extra: pip install 'kfusion\[report\]'.*no package"):
        report(bare)


def test_a_damaged_run_beside_a_good_one_is_the_one_that_is_named(whole, copy):
    facts = json.loads((copy / "evaluation/evaluation.json").read_text())
    facts["calibration"]["image"]["after"]["ece"] = "high"
    (copy / "evaluation/evaluation.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=rf"^{copy}: the files must be those that this version of kfusion writes"):
        report(whole, (copy,), copy / "page.html")
    assert not (copy / "page.html").exists()


def test_a_page_that_cannot_be_written_is_one_line(bare, tmp_path):
    done = run_report(bare, "--out", tmp_path / "none/page.html")
    assert (done.returncode, done.stdout) == (2, "")
    rule = "reading or writing failed. Found: No such file or directory"
    assert done.stderr == f"kfusion: {tmp_path}/none/page.html: {rule}\n"


def test_the_page_is_one_small_file_that_names_no_other(whole):
    path = whole / "report.html"
    assert path.stat().st_size < 5_000_000
    page = Page(path)
    sources = [values.get(name) for _, values in page.elements for name in ("src", "href") if name in values]
    assert all(source and source.startswith(("data:", "#")) for source in sources)
    assert not {"script", "iframe", "object", "base"} & {tag for tag, _ in page.elements}


def test_every_picture_has_an_alternative_text_and_every_table_its_headers(whole):
    page = Page(whole / "report.html")
    assert len(page.having("img")) >= 12
    assert all(len(image.get("alt") or "") > 30 for image in page.having("img"))
    assert {head["scope"] for head in page.having("th")} == {"row", "col"}
    named = {values.get("id") for _, values in page.elements}
    assert all(table["aria-labelledby"] in named for table in page.having("table"))
    assert [len(page.having(tag)) for tag in ("h1", "main", "header", "nav", "footer")] == [1] * 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_finds_no_fault(whole, browser, scheme):
    address = (whole / "report.html").as_uri()
    with Visit(browser, address, scheme=scheme) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert visit.violations() == []
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
        assert [url for url in visit.requests if url.startswith("file:")] == [address]
        broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert visit.page.evaluate(broken) == 0


@pytest.mark.parametrize("name", ["whole", "bare"])
def test_nothing_overflows_a_phone(name, browser, request):
    folder = request.getfixturevalue(name)
    path = folder / "report.html"
    with Visit(browser, (path if path.exists() else report(folder)).as_uri(), width=360) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert visit.overflow() == 0
        assert visit.violations() == []


def test_on_paper_nothing_is_cut_off_or_folded(whole, browser):
    with Visit(browser, (whole / "report.html").as_uri(), width=718) as visit:  # A4 but for its margins
        hidden = "[...document.querySelectorAll('details > *')].filter(each => !each.checkVisibility()).length"
        assert visit.page.evaluate(hidden) > 0
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate(hidden) == 0
        wide = "[...document.querySelectorAll('img, table')].filter(each => each.getBoundingClientRect().right > 718)"
        assert visit.page.evaluate(f"{wide}.map(each => each.alt || each.textContent.trim().slice(0, 40))") == []
        assert visit.overflow() == 0


def test_the_check_for_violations_finds_one(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<html><body><img src='data:,'><p style='color:#ccc'>pale</p></body></html>")
    with Visit(browser, (tmp_path / "bad.html").as_uri()) as visit:
        rules = {line.split(":")[0] for line in visit.violations()}
    assert {"image-alt", "color-contrast", "html-has-lang"} <= rules


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_on_the_page_means_the_config(name):
    flags = ["--recipe", name, "--limit", "1000", "--filters", "8", "16", "--fusion", "late", "--deterministic"]
    flags += ["--no-repair", "--wrong-sound", "0", "--wrong-image", "0", "--seed", "3", "--data", "my data"]
    wanted = read_command(flags).settings
    assert read_command(shlex.split(train_command(wanted))[3:]).settings == wanted


def run_report(*arguments):
    command = [sys.executable, "-m", "kfusion.report", *map(str, arguments)]
    env = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_the_command_says_where_the_page_is(bare, tmp_path):
    done = run_report(bare, "--out", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"report: {tmp_path / 'page.html'} (")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def spoil_history(folder):
    (folder / "history.csv").write_text("epoch,loss\n1,x\n")


def spoil_evaluation(folder):
    (folder / "evaluation").mkdir()
    (folder / "evaluation/evaluation.json").write_text('{"format": 99}')


def spoil_embeddings(folder):
    (folder / "embeddings").mkdir()
    weights = hashlib.sha256((folder / "best.keras").read_bytes()).hexdigest()
    facts = {"format": 1, "weights": weights, "verdict": 7}
    (folder / "embeddings/embeddings.json").write_text(json.dumps(facts))


def spoil_figure(folder):
    (folder / "figures/learning_curves.svg").write_text("<svg/>")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "metrics.json").unlink(), "must be a finished run"),
        (lambda folder: (folder / "metrics.json").write_text("{"), "the file must be JSON"),
        (lambda folder: (folder / "metrics.json").write_text("{}"), "the files must be those that this version"),
        (spoil_history, "must be the history that training wrote"),
        (spoil_evaluation, r"must be of format 1; 'python -m kfusion.evaluate' writes it anew\. Found: format 99"),
        (spoil_embeddings, "the files must be those that this version of kfusion writes"),
        (spoil_figure, "must be a figure that kfusion drew"),
    ],
)
def test_a_broken_run_is_one_line_and_leaves_the_old_page(trained_run, tmp_path, spoil, said):
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / "report.html").write_text("the old page")
    spoil(folder)
    with pytest.raises(ValueError, match=said) as error:
        report(folder)
    assert "\n" not in str(error.value)
    assert (folder / "report.html").read_text() == "the old page"


def test_a_run_cannot_be_compared_with_itself(bare):
    done = run_report(bare, "--compare", bare)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("twice\n") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.998, 1, "99.8 %"), (1.0, 1, "100.0 %"), (0.9999, 1, "> 99.9 %"), (0.00001, 2, "< 0.01 %"), (0.0, 1, "0.0 %")],
)
def test_percentages_never_round_up_to_all_or_down_to_nothing(share, digits, text):
    assert words.percent(share, digits) == text


def test_numbers_are_written_for_people():
    assert words.count(1234567.4) == "1,234,567"
    assert words.points(-0.0042) == "−0.4"
    assert words.points(0.00001) == "0.0"
    assert words.points_between((-0.01, 0.02)) == "−1.0 to +2.0"
    assert words.many(1, "error") == "1 error"
    assert words.listed(list("abcd"), most=2) == "a, b and 2 more"
    assert words.p_value(3e-9) == "< 0.0001"


def test_findings_know_nothing_of_stages_that_have_not_been_run(bare):
    found = read_findings(bare)
    assert (found.evaluation, found.robustness, found.embeddings, found.answers()) == (None, None, None, None)
    assert len(found.history) == found.metrics["epochs"] == 12
