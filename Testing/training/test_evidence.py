"""The experiments that compare recipes differ in what they compare and in nothing else."""

from types import SimpleNamespace

import pytest
import yaml

from training import evidence
from training.configuration import read_config


@pytest.fixture(autouse=True)
def anatomy(monkeypatch):
    """A store of anatomy alone, wherever it is said to be."""
    subjects = [SimpleNamespace(kind="labels")]
    monkeypatch.setattr(evidence, "load_subjects", lambda store, split: subjects)
    return subjects


def written(tmp_path, *more):
    given = ["--store", "a store", "--data", "DATA", "--out", str(tmp_path), "--steps", "50", *more]
    assert evidence.main(given) == 0
    configs = {path.stem: path for path in tmp_path.glob("*.yaml")}
    return configs, (tmp_path / "commands.sh").read_text()


def test_every_configuration_is_one_that_can_be_trained(tmp_path):
    configs, _ = written(tmp_path)
    assert len(configs) == 1 + 2 * 9 + 2 + 2
    for path in configs.values():
        read_config(path)


def test_recipes_differ_in_their_supervision_alone(tmp_path):
    configs, script = written(tmp_path)
    raw = {name: yaml.safe_load(path.read_text()) for name, path in configs.items()}
    for share in (0.1, 0.25):
        alone = raw[f"supervised-{share}"]
        assert {**raw[f"supervised-again-{share}"], "seed": 0} == {**alone, "seed": 0}
        for method in evidence.METHODS:
            recipe = raw[f"{method}-{share}"]
            assert recipe["supervision"]["labelled"] == share
            assert recipe["supervision"]["ramp_steps"] == 20
            assert {**recipe, "supervision": {}} == {**alone, "supervision": {}}
            own = yaml.safe_load((evidence.CONFIGS / f"{method}.yaml").read_text())["supervision"]
            assert {**recipe["supervision"], **own} == {**recipe["supervision"], "labelled": 0.25}
            start = f"--start {tmp_path}/start/run/ema.safetensors"
            assert (
                f"{method}-{share}.yaml --store 'a store' --out {tmp_path}/{method}-{share}/run {start}"
                in script
            )


def test_both_stages_take_the_minutes_of_one(tmp_path):
    configs, script = written(tmp_path, "--minutes", "9")
    one, two = (read_config(configs[name]) for name in ("one-stage", "two-stage"))
    assert one.length == two.length == 9
    assert two.phases["slices"].attention == 0
    assert two.phases["slices"].learn == ["encoder", "prompts", "masks"]
    assert "encoder" not in two.phases["volumes"].learn
    for network in ("unet", "deeplabv3plus", "swin-unetr"):
        assert f"training.baselines.train {network} {tmp_path}/one-stage.yaml" in script


def test_each_comparison_comes_after_what_it_compares(tmp_path):
    _, script = written(tmp_path)
    lines = script.splitlines()
    comparisons = [line for line in lines if "training.compare" in line]
    assert len(comparisons) == 4
    for line in comparisons:
        for word in line.split():
            _, equals, folder = word.partition("=")
            if equals:
                folder = folder.strip("'")
                made = next(n for n, other in enumerate(lines) if f"--out {folder}" in other)
                assert made < lines.index(line)


def test_a_store_without_anatomy(tmp_path, anatomy, capsys):
    anatomy[:] = [SimpleNamespace(kind="image")]
    assert evidence.main(["--store", "s", "--data", "d", "--out", str(tmp_path)]) == 2
    assert "has no anatomy" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    given = ["--store", "s", "--data", "d", "--out", str(tmp_path / "file" / "out")]
    assert evidence.main(given) == 2
    assert "cannot be made" in capsys.readouterr().err
