"""`python -m kfusion.report`: what is on the page, what a browser makes of it, and what is said of a broken run."""

import json
import shlex
import shutil

import numpy as np

from kfusion.plots.tables import p_value
from kfusion.reporting import components as words
from kfusion.reporting.page import report
from kfusion.run_dir import foreign
from tests.pages import Page


def test_a_page_of_a_training_alone_names_the_commands_that_make_the_rest(bare):
    page = Page(report(bare))
    for verb in ("evaluate", "embed"):
        assert f"python -m kfusion.{verb} {shlex.quote(str(bare))}" in page.text
    accuracy = json.loads((bare / "metrics.json").read_text())["views"]["audio"]["accuracy"]
    assert page.row("audio only", 6)[1] == words.percent(accuracy, 1)
    assert {"Learning curves", "Robustness", "Embeddings", "Errors"} <= set(page.text.splitlines())


def test_the_numbers_on_the_page_are_those_of_the_files(whole):
    page = Page(whole / "report.html")
    facts = json.loads((whole / "evaluation/evaluation.json").read_text())
    view = facts["views"]["image"]
    # Not the difference from the run beside it, in points.
    written = next(row for row in page.rows if row[0] == "image only" and len(row) == 6 and row[1].endswith(" %"))
    assert written[1] == f"{100 * view['accuracy']:.1f} %"
    assert written[3:] == [
        f"{100 * view['interval'][0]:.1f} – {100 * view['interval'][1]:.1f} %",
        f"{100 * view['macro_f1']:.1f} %",
        str(view["num_errors"]),
    ]
    grid = json.loads((whole / "evaluation/robustness.json").read_text())
    title = grid["corruptions"]["image"]["noise"]["title"]
    shares = grid["alone"]["image"]["noise"]["fused"]["accuracy"]
    assert page.row(title, len(shares) + 2)[1:-1] == [f"{100 * share:.1f}" for share in shares]
    embeddings = json.loads((whole / "embeddings/embeddings.json").read_text())
    assert embeddings["verdict"] in page.text
    assert page.row("audio", 8)[-1] == f"{embeddings['embeddings']['audio']['probes']['knn']:.4f}"


def test_a_run_beside_another_is_tested_on_the_same_rows(whole):
    facts = json.loads((whole / "evaluation/evaluation.json").read_text())
    with np.load(whole / "evaluation/answers.npz") as arrays:
        right = arrays["test"][:, 0].argmax(axis=1) == arrays["label"]
    lost = int(right[:5].sum())
    row = Page(whole / "report.html").row("fused", 6)
    assert row[1] == words.points(-lost / facts["views"]["fused"]["num_rows"])
    assert row[3:5] == ["0", str(lost)]
    assert row[5] == p_value(2 * 0.5**lost)  # lost heads in lost throws, and as many tails


def test_runs_of_other_test_rows_are_not_tested_against_each_other(whole, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(whole, other)
    rows = dict(np.load(other / "split.npz"))
    rows["test_image"] = rows["test_image"][::-1]
    np.savez(other / "split.npz", **rows)
    page = Page(report(whole, (other,), tmp_path / "page.html"))
    assert "not tested against each other: their test parts hold other rows" in " ".join(page.text.split())
    assert "McNemar" in page.text  # those within the run remain


def test_a_pairs_interval_allows_for_rows_with_the_same_sound(whole, whole_copy, tmp_path):
    def interval(group):
        other = tmp_path / f"other-{len(set(group))}"
        shutil.copytree(whole.with_name("twin"), other)
        for folder in (whole_copy, other):
            path = folder / "evaluation/answers.npz"
            with np.load(path) as arrays:
                answers = {**arrays, "group": group}
            np.savez(path, **answers)
        text = Page(report(whole_copy, (other,), tmp_path / "page.html")).row("fused", 6)[2]
        low, high = (float(each.replace("−", "-")) for each in text.split(" to "))
        return high - low

    # The five rows that differ are five sounds, or one that is in five pairs.
    one_by_one, together = interval(np.arange(100)), interval(np.maximum(np.arange(100) - 4, 0))
    assert together > 1.5 * one_by_one


def test_evaluations_on_other_data_are_on_the_page(whole_copy):
    facts = json.loads((whole_copy / "evaluation/evaluation.json").read_text())
    facts["views"]["audio"] |= {"accuracy": 0.875, "interval": [0.75, 0.9375]}
    facts["data"] |= {"part": "all rows", "num_rows": 64}
    (whole_copy / "evaluation/mine").mkdir()
    (whole_copy / "evaluation/mine/evaluation.json").write_text(json.dumps(facts))
    row = Page(report(whole_copy)).row("mine, all rows", 6)
    assert (row[1], row[4]) == ("64", "87.5 % (75.0 – 93.8 %)")


def test_a_run_folder_may_hold_all_that_evaluate_embed_and_report_write(whole):
    assert foreign(whole, begun=True) == []


def test_numbers_of_other_weights_are_not_shown(whole_copy):
    (whole_copy / "best.keras").write_bytes(b"other weights")
    page = Page(report(whole_copy))
    for verb, what in (("evaluate", "who decides"), ("evaluate", "the robustness grid"), ("embed", "the embeddings")):
        assert f"Made with other weights than the run has now: {what}. The command for it:" in page.text
        assert f"python -m kfusion.{verb} {whole_copy}" in page.text
    assert "McNemar" not in page.text
    assert len(page.having("img")) == 2  # those of the training


def test_a_grid_of_another_evaluation_is_not_shown(whole_copy):
    path = whole_copy / "evaluation/robustness.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "key": "another"}))
    page = Page(report(whole_copy))
    assert "Made with other weights than the run has now: the robustness grid" in page.text
    assert "McNemar" in page.text


def test_a_lost_figure_is_named_with_the_command_that_draws_it(whole_copy):
    for name in ("evaluation/figures/reliability", "embeddings/figures/audio_tsne", "figures/learning_curves"):
        for suffix in (".png", ".svg"):
            (whole_copy / name).with_suffix(suffix).unlink()
    page = Page(report(whole_copy))
    for what in ("the figure reliability", "the figure audio_tsne", "the learning curves"):
        assert f"Not made yet: {what}. The command for it:" in page.text
    assert f"python -m kfusion.train --config {whole_copy / 'config.json'}" in page.text


def test_a_class_named_like_an_element_stays_a_name(whole_copy):
    evil = "<script>alert(1)</script>"
    for name in ("data.json", "metrics.json", "evaluation/evaluation.json", "embeddings/embeddings.json"):
        text = (whole_copy / name).read_text()
        text = text.replace('"3"', json.dumps(evil)).replace('"builtin"', json.dumps(f"{evil}&amp;"))
        (whole_copy / name).write_text(text)
    page = Page(report(whole_copy, (), whole_copy / "<b>.html"))
    assert page.row(evil, 5)[0] == evil  # in the classification report
    assert f"{evil}&amp; (" in page.text  # the data's name
    assert not {"script", "b"} & {tag for tag, attributes in page.elements if not attributes}
    assert "<script" not in (whole_copy / "<b>.html").read_text()
