"""The tutorial's commands name what there is. Running them is `python -m Testing.training.run_tutorial`."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from Testing.training.run_tutorial import CHECKOUT, commands, shortened
from training.configuration import read_config

MINE = [command for command in commands() if command.startswith("python -m training.")]


def test_it_goes_from_scans_to_a_mask():
    modules = [shlex.split(command)[2].removeprefix("training.") for command in MINE]
    wanted = ["practice_scans", "ingest", "train", "export", "evaluate"]
    assert [module for module in modules if module in wanted] == [*wanted, "evaluate"]
    assert commands()[-1].startswith("bonesam segment")
    assert len(commands(install=True)) > len(commands())


@pytest.mark.parametrize("command", MINE)
def test_every_module_and_option_is_there(command):
    module, *words = shlex.split(command)[2:]
    spec = importlib.util.find_spec(module)
    assert spec is not None
    source = Path(spec.origin)
    if source.name == "__init__.py":
        source = source.with_name("__main__.py")
    text = source.read_text()
    for option in (word for word in words if word.startswith("--")):
        parameter = option.removeprefix("--").replace("-", "_")
        assert f'"{option}"' in text or re.search(rf"^    {parameter}: Annotated\[", text, re.M), option


def test_no_file_is_named_that_is_not_there_or_made():
    made = "runs/tutorial/"
    for command in commands():
        for word in shlex.split(command):
            if "/" in word and not word.startswith(made):
                assert (CHECKOUT / word).exists(), word


def test_the_tiny_settings_are_tiny(tmp_path):
    config = read_config(CHECKOUT / "training" / "configs" / "tiny.yaml")
    assert config.start == "bundle"
    assert config.length <= 8
    (command,) = (one for one in commands() if "tiny.yaml" in one)
    assert shortened(command, None, tmp_path) == command
    shortened(command, 0.25, tmp_path)
    assert read_config(tmp_path / "tiny.yaml").length == 0.25
