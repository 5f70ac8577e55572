"""Where evaluations on other data are kept: none overwrites another, none lies among the run's own files."""

import json
from pathlib import Path

import pytest

from kfusion.evaluation.evaluator import fingerprint_of, place_of
from kfusion.run_dir import Run


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path / "run")


def evaluated(run: Run, data: Path, **facts: object) -> Path:
    """The folder of an evaluation on these data, as evaluate leaves it."""
    place = place_of(run, str(data))
    place.mkdir(parents=True)
    (place / "evaluation.json").write_text(json.dumps({"data": facts or {"place": fingerprint_of(str(data))}}))
    return place


def test_data_of_one_base_name_do_not_overwrite_each_other(run, tmp_path):
    first = evaluated(run, tmp_path / "spring" / "photos")
    second = evaluated(run, tmp_path / "autumn" / "photos")
    assert first == run.evaluation / "photos"
    assert second.parent == run.evaluation and second.name.startswith("photos-") and len(second.name) == 15
    for data, place in (("spring/photos", first), ("autumn/photos", second), ("spring/../spring/photos", first)):
        assert place_of(run, str(tmp_path / data)) == place


@pytest.mark.parametrize("name", ["figures", "Figures", "evaluation.json", "report.txt", ".partial-1", "a.png"])
def test_data_called_like_a_part_of_the_runs_own_evaluation_lie_beside_it(run, tmp_path, name):
    place = place_of(run, str(tmp_path / name))
    assert place.parent == run.evaluation
    assert place.name == f"{name.strip('.')}-{fingerprint_of(str(tmp_path / name))}"


def test_an_evaluation_from_before_places_were_noted_is_found_by_its_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = evaluated(run, Path("photos"), name="photos")
    assert place_of(run, str(tmp_path / "photos")) == old
    assert place_of(run, str(tmp_path / "other" / "photos")) != old


def test_the_builtin_data_are_no_folder_of_that_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluated(run, Path("builtin")) == run.evaluation / "builtin"
    assert place_of(run, "./builtin") != run.evaluation / "builtin"
