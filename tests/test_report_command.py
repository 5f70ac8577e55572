"""`python -m kfusion.report` as a command: broken runs and files in one line, and how numbers are written."""

import hashlib
import json
import shlex
import shutil
import sys

import pytest

from kfusion.recipes import RECIPES
from kfusion.reporting import components as words
from kfusion.reporting.page import report, train_command
from kfusion.reporting.run_data import read_findings
from kfusion.train import read_command
from tests.processes import fails, in_process, run_verb


def test_without_its_extra_the_report_says_how_it_is_installed(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ValueError, match=r"^a report needs the extra: pip install 'kfusion\[report\]'.*no package"):
        report(bare)


def test_a_damaged_run_beside_a_good_one_is_the_one_that_is_named(whole, whole_copy):
    facts = json.loads((whole_copy / "evaluation/evaluation.json").read_text())
    facts["calibration"]["image"]["after"]["ece"] = "high"
    (whole_copy / "evaluation/evaluation.json").write_text(json.dumps(facts))
    with pytest.raises(
        ValueError, match=rf"^{whole_copy}: the files must be those that this version of kfusion writes"
    ):
        report(whole, (whole_copy,), whole_copy / "page.html")
    assert not (whole_copy / "page.html").exists()


def test_a_page_that_cannot_be_written_is_one_line(bare, tmp_path):
    done = in_process("kfusion.report", bare, "--out", tmp_path / "none/page.html")
    rule = "reading or writing failed. Found: No such file or directory"
    fails(done, f"kfusion: {tmp_path}/none/page.html: {rule}\n")
    assert done.stdout == ""


@pytest.mark.parametrize("name", RECIPES)
def test_the_command_on_the_page_means_the_config(name):
    flags = ["--recipe", name, "--limit", "1000", "--filters", "8", "16", "--fusion", "late", "--deterministic"]
    flags += ["--no-repair", "--wrong-sound", "0", "--wrong-image", "0", "--seed", "3", "--data", "my data"]
    wanted = read_command(flags).settings
    assert read_command(shlex.split(train_command(wanted))[3:]).settings == wanted


def test_the_command_says_where_the_page_is(bare, tmp_path):
    done = run_verb("kfusion.report", bare, "--out", tmp_path / "page.html", cwd=tmp_path)
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
    done = in_process("kfusion.report", bare, "--compare", bare)
    fails(done, "twice\n")
    assert done.stdout == ""


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
    assert (words.in_words(3), words.in_words(12)) == ("three", "12")


def test_findings_know_nothing_of_stages_that_have_not_been_run(bare):
    found = read_findings(bare)
    assert (found.evaluation, found.robustness, found.embeddings, found.predictions()) == (None, None, None, None)
    assert len(found.history) == found.metrics["epochs"] == 12
