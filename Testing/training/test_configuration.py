"""A slip in a training's settings is told at once, in one sentence, with the name that was meant."""

from pathlib import Path

import pytest

import training
from BoneSAMLib.errors import BoneSAMError
from training.configuration import read_config

GOOD = """
learning_rate: 2.0e-3
phases:
  first: {minutes: 1, size: 96, mixture: {synthetic: 1.0, sources: {some-ct: 0.5}}}
  second: {minutes: 2.5}
"""


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "some.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_settings_are_read(config):
    settings = read_config(config(GOOD))
    assert settings.learning_rate == 0.002
    assert settings.dim == 128
    assert settings.length == 3.5
    assert not settings.counts_steps
    assert settings.phases["first"].size == 96
    assert settings.phases["first"].mixture["sources"] == {"some-ct": 0.5}
    assert settings.phases["second"].mixture == {}


def test_the_settings_that_come_with_bonesam_are_right():
    paths = sorted((Path(training.__file__).parent / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        assert read_config(path).length > 0


def test_phases_follow_each_other(config):
    settings = read_config(config(GOOD))
    names = [settings.phase_at(minutes)[0] for minutes in (0, 0.9, 1, 3.4, 3.5, 99)]
    assert names == ["first", "first", "second", "second", "second", "second"]


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("learning_rate", "lerning_rate", r"'lerning_rate' in '.*some.yaml': did you mean 'learning_rate'\?"),
        ("size", "sizes", r"'sizes' in phase 'first' of '.*some.yaml': did you mean 'size'\?"),
        ("synthetic", "sinthetic", r"in the mixture of phase 'first' of .*: did you mean 'synthetic'\?"),
        ("phases:", "fases:", r"'fases' in .*: did you mean 'phases'\?"),
        ("minutes: 2.5", "batch: 2", r"either 'minutes' or 'steps' in phase 'second' of '.*some.yaml'\."),
        ("minutes: 2.5", "minutes: 2.5, steps: 3", r"either 'minutes' or 'steps' in phase 'second'"),
        ("minutes: 2.5", "steps: 3", r"Some phases in .* have 'minutes' and some 'steps'"),
        ("size: 96", "learn: [decodr]", r"Unknown part to learn 'decodr' in phase .*mean 'decoder'\?"),
        (
            "size: 96",
            "learn: decoder",
            r"'learn' in phase 'first' .* must be a list of words, not 'decoder'\.",
        ),
        ("learning_rate: 2.0e-3", "precision: float", r"Unknown precision 'float' in .*mean 'float"),
        ("learning_rate: 2.0e-3", "freeze_norms: 1", r"'freeze_norms' in .* must be yes or no, not 1\."),
        ("learning_rate: 2.0e-3", "accumulate: 0", r"'accumulate' and 'log_steps' in .* at least 1\."),
        ("learning_rate: 2.0e-3", "adapters: {lowrank: 4}", r"'lowrank' in 'adapters' .*'low_rank'\?"),
        ("learning_rate: 2.0e-3", "few_shot: {volumes: 1}", r"'sources' is missing in 'few_shot' of "),
        ("learning_rate: 2.0e-3", "few_shot: {sources: []}", r"either 'volumes' or 'slices' in 'few_shot'"),
        ("learning_rate: 2.0e-3", "supervision: {rest: boxes}", r"Unknown kind .* 'boxes' .*'box'\?"),
        ("learning_rate: 2.0e-3", "supervision: {boxes: 1.0}", r"'boxes' in 'supervision' .*'rest: box'"),
        ("learning_rate: 2.0e-3", "supervision: {labelled: 0.0}", r"'labelled' .* above 0 and at most 1\."),
        ("2.0e-3", "2e-3", r"'learning_rate' in '.*some.yaml' must be a number, not '2e-3'\."),
        ("96", "96.5", r"'size' in phase 'first' .* must be a whole number, not 96.5\."),
        ("synthetic: 1.0", "synthetic: yes", r"'synthetic' in the mixture .* must be a number, not True\."),
        ("{minutes: 2.5}", "", r"Settings by name are expected in phase 'second' .*, not None\."),
        ("learning_rate: 2.0e-3", "learning_rate: [", r"settings '.*some.yaml' cannot be read: "),
    ],
)
def test_a_slip_is_named(config, right, wrong, sentence):
    assert right in GOOD
    with pytest.raises(BoneSAMError, match=sentence):
        read_config(config(GOOD.replace(right, wrong, 1)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"Settings by name are expected in '.*some.yaml', not None\."),
        ("seed: 1", r"'phases' is missing in '.*some.yaml'\."),
        ("phases: {}", r"There is no phase in '.*some.yaml': give at least one\."),
        ("phases: 5", r"Settings by name are expected in 'phases' of '.*some.yaml', not 5\."),
    ],
)
def test_settings_without_phases(config, text, sentence):
    with pytest.raises(BoneSAMError, match=sentence):
        read_config(config(text))


def test_settings_that_are_not_there(tmp_path):
    with pytest.raises(BoneSAMError, match=r"settings '.*none.yaml' cannot be read: .*No such file"):
        read_config(tmp_path / "none.yaml")
