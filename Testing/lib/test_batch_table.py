"""Tables of volumes and prompts: bones, names, outputs, and rows that are wrong."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from BoneSAMLib.batch import BatchPrompts, find_cases
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.prompts import Box, Point


def cases_of(folder, text, prompts=None, encoding="utf-8"):
    table = folder / "list.csv"
    table.write_bytes(text.encode(encoding))
    return find_cases(table, folder / "out", prompts)


def test_rows_of_a_volume_are_its_bones(tmp_path):
    (case, other) = cases_of(
        tmp_path,
        "volume,bone,box,points,negative_points\n"
        'scans/a.nii.gz,left femur,"1,2,3,4,5,6",,"7,8,9"\n'
        "b.nrrd,,,,\n"
        'scans/a.nii.gz,,,"1,1,1; 2,2,2",\n',
    )
    assert case.source == tmp_path / "scans" / "a.nii.gz"
    assert case.output == tmp_path / "out" / "scans" / "a.seg.nrrd"
    femur, unnamed = case.prompts.bones
    assert (femur.name, femur.box) == ("left femur", Box.from_ras((1, 2, 3), (4, 5, 6)))
    assert femur.points == [Point.from_ras((7, 8, 9), positive=False)]
    assert unnamed.points == [Point.from_ras((1, 1, 1)), Point.from_ras((2, 2, 2))]
    assert other.prompts == BatchPrompts(everything=True)


def test_a_name_alone_is_looked_for(tmp_path):
    good, bad, beside = cases_of(
        tmp_path,
        "volume,bone,box,negative_points\na.nii,both femurs and L2-L4,,\nb.nii,livver,,\n"
        'c.nii,sacrum,,"1,2,3"\n',
    )
    (bone,) = good.prompts.bones
    assert (bone.name, bone.box, bone.points) == ("both femurs and L2-L4", None, [])
    assert bad.prompts is None
    assert "line 3: " in bad.error
    assert "livver" in bad.error
    assert "nor a name alone" in beside.error


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_dialects_of_spreadsheets(tmp_path, encoding, delimiter):
    text = 'Volume|output|box_ijk\r\n"Hüfte 1.mha"|masks/h.nii.gz|"1,2,3,4,5,6"\r\n\r\n'
    (case,) = cases_of(tmp_path, text.replace("|", delimiter), encoding=encoding)
    assert case.source.name == "Hüfte 1.mha"
    assert case.output == tmp_path / "out" / "masks" / "h.nii.gz"
    assert case.prompts.bones[0].box == Box.from_ijk((1, 2, 3), (4, 5, 6))


def test_depth_attention_is_for_the_whole_table(tmp_path):
    (tmp_path / "list.csv").write_text('volume,box\na.nii,"1,2,3,4,5,6"\nb.nii,\n')
    for wanted in (True, False):
        boxed, everything = find_cases(tmp_path / "list.csv", tmp_path / "out", depth_attention=wanted)
        assert boxed.prompts.depth_attention is wanted
        assert everything.prompts.depth_attention  # without a prompt, it is what finds bones


def test_output_never_leaves_the_folder_by_itself(tmp_path):
    (case,) = cases_of(tmp_path, "volume\n../../scans/a.nii.gz\n")
    assert case.output == tmp_path / "out" / "scans" / "a.seg.nrrd"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('a.nii,"1,2,3",,', "line 2: .*6 numbers"),
        ("a.nii,1,2,3,4,5,6", "line 2: .*quotation marks"),
        (',"1,2,3,4,5,6",,', "line 2: the volume is missing"),
        ('a.nii,,,"1,2,3"', "line 2: .*neither a box nor a point"),
        ('a.nii,,"1,2,nan",', "line 2: .*3 numbers"),
        ("a.nii,,,\na.nii,,,", "line 3: .*again without a prompt"),
    ],
)
def test_wrong_row_fails_alone(tmp_path, row, words):
    cases = cases_of(tmp_path, f"volume,box,points,negative_points\n{row}\ngood.nii,,,\n")
    assert len(cases) == 2
    assert cases[0].prompts is None
    with pytest.raises(BoneSAMError, match=words):
        raise BoneSAMError(cases[0].error)
    assert cases[1].error == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must name its columns"),
        ("volume\n", "no volumes"),
        ("file,box\na,b\n", "'file'"),
        ("box\n1\n", "'volume'"),
        ("volume,volume\na,b\n", "each once"),
        ('volume\n"a\n', "not CSV"),
        ("volume,output\na.nii,m.nii\nb.nii,m.nii\n", "output of its own"),
    ],
)
def test_what_is_no_table(tmp_path, text, words):
    with pytest.raises(BoneSAMError, match=words):
        cases_of(tmp_path, text)


def test_other_encodings_are_refused(tmp_path):
    with pytest.raises(BoneSAMError, match="UTF-8"):
        cases_of(tmp_path, "volume\nHüfte.nii\n", encoding="latin-1")


fields = st.one_of(
    st.text(max_size=12), st.sampled_from(["a.nii", "1,2,3", "1,2,3,4,5,6", '"', "m.nrrd", ".."])
)
header = st.sampled_from(["volume,output,bone,box,points", "volume;box_ijk;negative_points", "volume"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header,
    st.lists(st.lists(fields, max_size=6).map(",".join), max_size=5).map("\n".join),
    st.binary(max_size=4),
)
def test_no_table_crashes(tmp_path, first, rows, rest):
    table = tmp_path / "list.csv"
    table.write_bytes(f"{first}\n{rows}".encode("utf-8", "replace") + rest)
    try:
        cases = find_cases(table, tmp_path / "out")
    except BoneSAMError:
        return
    assert cases
    assert all((case.prompts is None) == bool(case.error) for case in cases)
