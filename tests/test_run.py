"""The run folder: who may write into it, and which one is meant."""

import json
import os

import pytest

from kfusion.run_dir import Run, check_new, default_folder, lock, new_run, open_run, unfinished_folder
from kfusion.spec import Spec


def started(folder, finished=False):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "data.json").write_text(json.dumps({"format": 1, "spec": Spec().to_json()}))
    if finished:
        (folder / "metrics.json").write_text("{}")
    return folder


def test_the_default_folder_is_the_next_free_number(tmp_path):
    started(tmp_path / "paper-1")
    assert default_folder("paper", tmp_path) == tmp_path / "paper-2"
    assert default_folder("robust", tmp_path) == tmp_path / "robust-1"


def test_resume_means_the_newest_unfinished_run_of_the_recipe(tmp_path):
    for age, name in ((30, "paper-1"), (20, "paper-2"), (10, "paper-mine"), (10, "robust-1")):
        os.utime(started(tmp_path / name), times=(1e9 - age, 1e9 - age))
    started(tmp_path / "paper-3", finished=True)
    assert unfinished_folder("paper", tmp_path) == tmp_path / "paper-2"


def test_resume_without_any_run_starts_one(tmp_path):
    assert unfinished_folder("paper", tmp_path) == tmp_path / "paper-1"


def test_a_new_run_empties_only_what_is_a_runs_own(tmp_path):
    folder = started(tmp_path / "run", finished=True)
    with pytest.raises(ValueError, match="an existing run is kept"):
        new_run(folder, overwrite=False)
    (folder / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"a run needs a folder of its own. Found: notes.txt"):
        new_run(folder, overwrite=True)
    (folder / "notes.txt").unlink()
    new_run(folder, overwrite=True)
    assert list(folder.iterdir()) == []


def test_what_a_killed_start_left_behind_is_taken_over(tmp_path):
    for name in ("data.json", "split.npz", ".partial-1-config.json", ".lock"):
        (tmp_path / name).touch()
    check_new(tmp_path, overwrite=False)
    assert {path.name for path in new_run(tmp_path, overwrite=False).folder.iterdir()} == {".lock"}


def test_only_one_process_writes_into_a_folder(tmp_path):
    with lock(tmp_path / "run"), pytest.raises(ValueError, match="another process is writing into this folder"):
        lock(tmp_path / "run")
    lock(tmp_path / "run").close()


def test_a_folder_that_is_no_run_or_of_another_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be a run folder made by .* Found: no config.json"):
        open_run(tmp_path)
    folder = started(tmp_path / "run")
    assert isinstance(open_run(folder), Run)
    (folder / "data.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match=r"must be a run folder of format 1. Found: format 2"):
        open_run(folder)
