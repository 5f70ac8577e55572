"""Versions that come and go in a model's folder: which are served, whatever the order in which their files arrive."""

import asyncio
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kfusion.serving.model_manager import Models, fingerprint
from tests.tiny_models import export_tiny

GRAPH, WEIGHTS, WARMUP = "saved_model.pb", "variables", "assets.extra"
ONE = {"x": np.ones(1, np.float32)}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Models that multiply by 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("made")
    for number in (1, 2, 3):
        export_tiny(folder / str(number), number)
    return folder


class Shelf:
    """A model's folder, what looks at it, and short ways to change it and to ask."""

    def __init__(self, folder: Path, made: Path, **settings: object) -> None:
        self.folder, self.made = folder, made
        self.models = Models("tiny", folder, **settings)  # pyright: ignore[reportArgumentType]

    def copy(self, number: int, *parts: str) -> None:
        """Some of a version's files, or all, as `cp -r` would bring them."""
        for part in parts or (GRAPH, WEIGHTS, WARMUP):
            source, place = self.made / str(number) / part, self.folder / str(number) / part
            place.parent.mkdir(exist_ok=True)
            shutil.copytree(source, place) if source.is_dir() else shutil.copyfile(source, place)

    def publish(self, number: int) -> None:
        """All of a version's files at once."""
        shutil.copytree(self.made / str(number), self.folder / ".partial")
        (self.folder / ".partial").rename(self.folder / str(number))

    async def look(self, times: int = 2) -> dict[int, str]:
        """The states after the folder has been looked at."""
        for _ in range(times):
            await self.models.refresh()
        return {number: version.state for number, version in self.models.versions.items()}

    def ask(self) -> float:
        """What the latest version makes of 1."""
        return float(self.models.find("tiny").ask("serving_default", ONE)["y"][0])


@pytest.fixture
def shelf(tmp_path, made):
    return Shelf(tmp_path, made)


def run(shelf: Shelf, life) -> None:
    """In a thread of its own: playwright's loop, where another test began it, runs in the main one to the end."""

    async def whole() -> None:
        try:
            await life()
        finally:
            await shelf.models.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(whole())).result()


@pytest.mark.parametrize("order", [(GRAPH, WARMUP, WEIGHTS), (WARMUP, GRAPH, WEIGHTS), (GRAPH, WEIGHTS, WARMUP)])
def test_a_version_that_is_copied_in_place_takes_over_once_it_is_whole(shelf, order):
    async def life():
        shelf.copy(1)
        assert await shelf.look(1) == {1: "AVAILABLE"}
        for part in order:
            assert shelf.ask() == 1
            shelf.copy(2, part)
            await shelf.look(1)
        await shelf.look()
        assert shelf.ask() == 2
        assert (await shelf.look())[2] == "AVAILABLE"

    run(shelf, life)


@pytest.mark.parametrize("order", [(GRAPH, WARMUP, WEIGHTS), (WARMUP, GRAPH, WEIGHTS), (GRAPH, WEIGHTS, WARMUP)])
def test_a_copy_that_pauses_after_each_file_costs_no_request_and_is_served_in_the_end(shelf, order):
    async def life():
        shelf.copy(1)
        await shelf.look()
        for part in order:
            assert shelf.ask() == (2 if part == order[-1] == WARMUP else 1)
            shelf.copy(2, part)
            await shelf.look(4)
        assert shelf.ask() == 2

    run(shelf, life)


def test_weights_that_are_half_there_are_waited_for(shelf):
    async def life():
        shelf.copy(1)
        await shelf.look()
        shelf.copy(2)
        data = shelf.folder / "2" / WEIGHTS / "variables.data-00000-of-00001"
        content = data.read_bytes()
        data.write_bytes(content[:-10])
        assert await shelf.look() == {1: "AVAILABLE", 2: "END"}
        assert shelf.ask() == 1
        data.write_bytes(content)
        await shelf.look()
        assert shelf.ask() == 2

    run(shelf, life)


def test_a_model_without_a_warmup_file_needs_its_weights_too(shelf):
    async def life():
        shelf.copy(1)
        await shelf.look()
        shelf.copy(2, GRAPH)
        assert await shelf.look() == {1: "AVAILABLE", 2: "END"}
        assert "2: must hold its weights, variables/variables.index. Found" in shelf.models.versions[2].error

    run(shelf, life)


def test_a_version_that_refuses_its_warmup_is_not_served_until_any_file_changes(shelf):
    async def life():
        shelf.copy(1)
        shelf.copy(2)
        warmup = shelf.folder / "2" / WARMUP / "tf_serving_warmup_requests"
        content = warmup.read_bytes()
        warmup.write_bytes(content.replace(b"serving_default", b"serving_Default"))
        # At the start too: the best of the others is served.
        assert await shelf.look(1) == {2: "END", 1: "AVAILABLE"}
        first = shelf.models.versions[2]
        await shelf.look(3)
        assert shelf.models.versions[2] is first and shelf.ask() == 1
        warmup.write_bytes(content)
        await shelf.look()
        assert shelf.ask() == 2

    run(shelf, life)


def test_the_first_version_answers_before_all_its_endpoints_are_warm_and_a_later_one_after(shelf, caplog):
    async def life():
        for number in (1, 2):
            shelf.copy(number)
            warmup = shelf.folder / str(number) / WARMUP / "tf_serving_warmup_requests"
            content = warmup.read_bytes()
            warmup.write_bytes(content + content.replace(b"serving_default", b"serving_Default") + content)
        (shelf.folder / "2").rename(shelf.folder / "two")
        assert await shelf.look(1) == {1: "AVAILABLE"} and shelf.ask() == 1
        await asyncio.gather(*shelf.models._working)
        # What it is asked meanwhile it refuses, and goes on.
        (line,) = [record for record in caplog.records if record.message == "a warm-up request is refused"]
        assert "serving_Default" in line.error and shelf.ask() == 1
        (shelf.folder / "two").rename(shelf.folder / "2")
        assert await shelf.look() == {1: "AVAILABLE", 2: "END"}
        assert "serving_Default" in shelf.models.versions[2].error

    run(shelf, life)


def test_a_server_that_ends_does_not_wait_for_what_is_still_cold(shelf):
    left = [("serving_default", ONE)] * 1_000_000

    async def life():
        shelf.copy(1)
        await shelf.look(1)
        version = shelf.models.versions[1]
        version._cold = left
        version.hold()
        shelf.models._do(shelf.models._warm_up(version))
        await asyncio.sleep(0.05)

    run(shelf, life)
    assert 0 < len(left) < 1_000_000


def test_files_that_change_while_they_are_loaded_are_loaded_again(shelf, monkeypatch):
    async def life():
        shelf.copy(1)
        await shelf.look()
        shelf.copy(2)
        version_load, late = type(shelf.models.versions[1]).load, [3]

        def load(version, *in_haste):
            version_load(version, *in_haste)
            if late:  # The weights of another model arrive now.
                number = late.pop()
                shutil.rmtree(version.folder / WEIGHTS)
                shutil.copytree(shelf.made / str(number) / WEIGHTS, version.folder / WEIGHTS)

        monkeypatch.setattr(type(shelf.models.versions[1]), "load", load)
        await shelf.look()
        assert shelf.ask() == 1 and "must stay as it is while it is loaded" in shelf.models.versions[2].error
        await shelf.look()
        assert shelf.ask() == 3

    run(shelf, life)


def test_the_latest_two_that_can_be_loaded_are_served(tmp_path, made):
    shelf = Shelf(tmp_path, made, num_versions=2, labels={"old": 1})

    async def life():
        for number in (1, 2):
            shelf.copy(number)
        shelf.copy(3, GRAPH)
        assert await shelf.look(1) == {3: "END", 2: "AVAILABLE", 1: "AVAILABLE"}
        shelf.copy(3, WEIGHTS)
        assert await shelf.look() == {3: "AVAILABLE", 2: "AVAILABLE", 1: "AVAILABLE"}
        assert shelf.models.find("tiny", label="old").number == 1
        shutil.rmtree(tmp_path / "3")
        states = await shelf.look(3)
        await asyncio.gather(*shelf.models._working)
        assert states[2] == states[1] == "AVAILABLE" and shelf.ask() == 2

    run(shelf, life)


def test_versions_that_appear_whole_replace_one_another_and_come_back(shelf):
    async def life():
        shelf.publish(1)
        await shelf.look(1)
        shelf.publish(2)
        assert (await shelf.look())[2] == "AVAILABLE"
        await asyncio.gather(*shelf.models._working)
        assert shelf.models.versions[1].state == "END"
        shutil.rmtree(shelf.folder / "2")
        await shelf.look()
        assert shelf.ask() == 1

    run(shelf, life)


def test_any_change_of_any_file_is_seen(shelf):
    shelf.copy(1)
    folder, weights = shelf.folder / "1", shelf.folder / "1" / WEIGHTS / "variables.index"
    content, seen = weights.read_bytes(), [fingerprint(folder, shelf.folder)]
    for change in (
        lambda: weights.write_bytes(content + b"x"),
        lambda: weights.write_bytes(content),
        lambda: weights.chmod(0o600),
        lambda: os.utime(weights, (0, 0)),
        lambda: weights.rename(weights.with_name("other")),
        lambda: (folder / "assets").mkdir(),
    ):
        time.sleep(0.02)  # Coarser clocks than this keep no file's time.
        change()
        seen.append(fingerprint(folder, shelf.folder))
    assert len(set(seen)) == 7
    assert fingerprint(folder, shelf.folder) == seen[-1]
    (shelf.folder / "2").symlink_to("/")
    assert fingerprint(shelf.folder / "2", shelf.folder) == ()
