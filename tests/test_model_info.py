"""What the page gets of a model: a damaged file beside the model costs what it holds, and no more."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.responses import JSONResponse

from kfusion.serving.app import model_info
from kfusion.serving.model_manager import Models
from tests.tiny_models import export_tiny

EXAMPLE = {"class_name": "a", "image": "QUJD", "audio": [1.5, 2]}
GOOD = {"licence": "CC0", "examples": [EXAMPLE], "name": "not the model's"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("about") / "tiny"
    export_tiny(folder / "1", 2)
    found = Models("tiny", folder)
    # In a thread of its own: playwright's loop, where another test began it, runs in the main one to the end.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(found.refresh())).result()
    yield found
    found.versions[1].close()


def told(models, **files):
    """What a browser gets with these files beside the model."""
    models.versions[1].damaged.clear()
    for name in ("labels.txt", "examples.json"):
        path = models.folder / "1" / "assets.extra" / name
        content = files.get(name.partition(".")[0])
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    facts = model_info(models)
    assert facts is not None
    return json.loads(bytes(JSONResponse(facts).body))


def test_labels_and_examples_are_told_and_nothing_else_of_the_file(models):
    facts = told(models, labels=b"a\nb\n", examples=json.dumps(GOOD).encode())
    assert facts["class_names"] == ["a", "b"]
    assert (facts["licence"], facts["examples"]) == ("CC0", [EXAMPLE])
    assert (facts["name"], facts["version"], facts["signatures"]) == ("tiny", 1, ["serving_default"])
    bare = told(models)
    assert (bare["class_names"], bare["licence"], bare["examples"]) == ([], "", [])


def bad(**changes):
    return json.dumps({**GOOD, "examples": [EXAMPLE, {**EXAMPLE, **changes}]}).encode()


@pytest.mark.parametrize(
    "examples",
    [
        *(b"", b"{", b"\xff", b"[1]", b"null", b'{"examples": 5}', b'{"examples": [5]}', b"[" * 100_000),
        *(bad(image=5), bad(image="no base64"), bad(audio="1"), bad(audio=[float("nan")]), bad(audio=[None])),
        *(bad(class_name=None), bad(audio=[True]), bad(audio=[10**400])),
    ],
)
def test_damaged_examples_are_left_out_and_logged_once(models, examples, caplog):
    facts = told(models, labels=b"a\nb\n", examples=examples)
    assert facts["class_names"] == ["a", "b"] and facts["examples"] == []
    model_info(models)
    assert [(line.getMessage(), line.file) for line in caplog.records] == [("file left out", "examples.json")]
    assert str(models.folder) not in caplog.records[0].error


def test_damaged_labels_are_left_out_and_logged_once(models, caplog):
    facts = told(models, labels=b"\xff\xfe", examples=json.dumps(GOOD).encode())
    assert facts["class_names"] == [] and facts["examples"] == [EXAMPLE]
    model_info(models)
    assert [line.file for line in caplog.records] == ["labels.txt"]
