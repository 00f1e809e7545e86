"""Descriptions of bones in other words than their names: those of bone_descriptions.txt."""

import builtins
import time
from pathlib import Path

import pytest

from BoneSAMLib import bone_meaning
from BoneSAMLib.bone_meaning import near_in_meaning
from BoneSAMLib.bone_phrase_questions import UnclearPhrase
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.bone_table import bone_table

LINES = Path(__file__).with_name("bone_descriptions.txt").read_text(encoding="utf-8").splitlines()


def descriptions():
    """(name, text) of every description; "-" for what is no bone."""
    for line in LINES:
        if line and not line.startswith("#"):
            name, _, texts = line.partition(" = ")
            yield from ((name, text.strip()) for text in texts.split("|"))


def test_a_description_is_answered_with_what_it_may_mean(capsys):
    names = {thing.name for thing in bone_table().all}
    described = [(name, text) for name, text in descriptions() if name != "-"]
    assert len(described) >= 90
    assert {name for name, _ in described} <= names
    missed = [(text, name, near_in_meaning(text, 3)) for name, text in described]
    missed = [found for found in missed if found[1] not in found[2]]
    with capsys.disabled():
        print(
            f"\n{len(described) - len(missed)} of {len(described)} descriptions have their bone among three"
        )
    assert len(missed) <= 0.1 * len(described), missed


def test_what_is_no_bone_is_seldom_near_to_one():
    others = [text for name, text in descriptions() if name == "-"]
    assert len(others) >= 90
    near = [text for text in others if near_in_meaning(text, 3)]
    assert len(near) <= 0.05 * len(others), near


def test_no_description_is_taken_for_a_bone_without_asking():
    for text in ("big bone inside the left thigh", "slender bone at the calf", "the whole head skull"):
        with pytest.raises(UnclearPhrase, match="By its meaning it may be: ") as raised:
            understand(text)
        assert raised.value.candidates
        for name in raised.value.candidates:
            assert understand(name).targets


def test_every_name_that_is_offered_is_understood():
    for thing in bone_table().all:
        assert understand(thing.name).targets, thing.name


def test_without_wordllama_names_alone_are_known(monkeypatch):
    real = builtins.__import__

    def lacking(name, *arguments, **options):
        if name == "wordllama":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", lacking)
    bone_meaning._known.cache_clear()
    try:
        assert near_in_meaning("slender bone at the calf", 3) == []
        with pytest.raises(UnclearPhrase, match="No bone is called"):
            understand("slender bone at the calf")
    finally:
        bone_meaning._known.cache_clear()


def test_nothing_is_downloaded(monkeypatch):
    def offline(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", offline)
    bone_meaning._known.cache_clear()
    assert near_in_meaning("slender bone at the calf", 1) == ["fibula"]


def test_it_takes_milliseconds(capsys):
    near_in_meaning("femur", 1)  # reads the vectors
    texts = [text for _, text in descriptions()]
    start = time.process_time()
    for text in texts:
        near_in_meaning(text, 3)
    milliseconds = 1000 * (time.process_time() - start) / len(texts)
    with capsys.disabled():
        print(f"\n{milliseconds:.1f} ms a description")
    assert milliseconds < 50
