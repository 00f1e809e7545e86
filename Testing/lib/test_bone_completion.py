"""Names that are offered while a bone is typed."""

from BoneSAMLib.bone_completion import complete_name


def test_completes_a_name_while_it_is_typed():
    assert complete_name("fem") == ["femur"]
    assert complete_name("metac")[0] == "metacarpals"
    assert "L3 vertebra" in complete_name("l3")
    assert complete_name("") == []
    assert complete_name("banana") == []
