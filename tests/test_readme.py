"""What the READMEs tell people to type exists: commands, flags, links, pictures, and TensorFlow Serving's settings."""

import re

import pytest

from tests.processes import ROOT, in_process

READMES = [ROOT / place / "README.md" for place in ("", "kfusion", "tuning", "saved_models", "tests/benchmarks")]
TEXTS = {path: path.read_text(encoding="utf-8") for path in READMES}
BLOCKS = [block for text in TEXTS.values() for block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)]
COMMAND = re.compile(r"python -m ((?:kfusion|tuning)\.[\w.]+)([^\n#|]*)")


def commands() -> dict[str, set[str]]:
    """The modules that the README runs, and the flags that it gives to each."""
    found: dict[str, set[str]] = {}
    for kind, text in BLOCKS:
        if kind == "sh":
            for module, words in COMMAND.findall(text.replace("\\\n", " ")):
                found.setdefault(module, set()).update(re.findall(r"(?<!\S)--[\w-]+", words))
    return found


def test_every_verb_is_shown():
    verbs = {
        f"kfusion.{path.stem}" for path in (ROOT / "kfusion").glob("*.py") if "\n    run_main(main" in path.read_text()
    }
    assert verbs | {"kfusion.client", "tuning.search"} == set(commands())


@pytest.mark.parametrize(("module", "flags"), sorted(commands().items()))
def test_the_flags_shown_are_in_the_help(module, flags):
    done = in_process(module, "--help")
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--[\w-]+", done.stdout))
    assert flags <= known | {"--help"}, flags - known


def test_the_models_config_is_one_that_tensorflow_serving_reads():
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    text = next(text for _, text in BLOCKS if "model_config_list" in text)
    served = text_format.Parse(text.partition("# saved_models/batching")[0], config.ModelServerConfig())
    model = served.model_config_list.config[0]
    assert model.name == "kfusion" and model.base_path == "/models/kfusion"
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)


def test_links_lead_to_files_and_every_picture_is_shown():
    linked = {
        (path.parent / target).resolve()
        for path, text in TEXTS.items()
        for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'<img src="([^"]+)" alt=', text)
        if "://" not in target
    }
    assert {path for path in linked if not path.exists()} == set()
    assert {path for path in linked if path.parent.name == ".pictures"} == set((ROOT / ".pictures").iterdir())


def test_the_readme_is_short_enough_to_be_read():
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 220
