"""Names that are offered while a bone is typed, and what a typed name means."""

import pytest

from BoneSAMLib.bone_naming import bone_names, named_bone
from BoneSAMLib.bone_phrase_questions import UnclearPhrase
from BoneSAMLib.terminology import bone_meaning
from BoneSAMLib.writing import BONE_TERMINOLOGY


def test_offers_each_bone_once_and_pairs_twice():
    names = bone_names()
    assert len(names) == len(set(names)) > 206
    assert {"left femur", "right femur", "L3 vertebra", "sacrum"} <= set(names)
    assert "femur" not in names


def test_what_is_offered_is_understood_as_itself():
    assert [named_bone(name) for name in bone_names()] == bone_names()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Left Femur", "left femur"),
        ("femur l", "left femur"),
        ("linker Oberschenkelknochen", "left femur"),
        ("left femurr", "left femur"),
        ("femur", "femur"),
        ("L3", "L3 vertebra"),
    ],
)
def test_a_typed_name_means_one_bone(text, name):
    assert named_bone(text) == name
    assert bone_meaning(name).terminology != BONE_TERMINOLOGY


@pytest.mark.parametrize(
    ("text", "said"), [("L1 to L3", "means 3 bones"), ("liver", "liver"), ("", "no bone")]
)
def test_anything_else_is_refused(text, said):
    with pytest.raises(UnclearPhrase, match=said):
        named_bone(text)
