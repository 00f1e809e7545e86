"""The evaluation from case to table, with a segmenter that needs no weights."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from BoneSAMLib.errors import BoneSAMError
from Testing.training.threshold_segmenter import ThresholdSegmenter
from training import evaluate as command
from training.cases import load_cases
from training.evaluate import Clock, chosen_plan, evaluate, first_cases, in_turn
from training.measure import BOX_ONLY, FULL, QUICK, LoadedCase
from training.measure import evaluate_case as evaluate_loaded
from training.opened_weights import weights_digest
from training.summary import (
    BOX_2D,
    BOX_3D,
    BOX_AND_CLICKS,
    CLICKS,
    NO_PROMPT,
    Row,
    against_aims,
    attention_effect,
    macro_average,
    markdown,
    read_rows,
    recall_weighted,
    statistics,
    summarize,
    write_rows,
)

SETTINGS = {"split": "test", "weights": "none", "quick": False, "seed": 0}


def evaluate_case(case, segmenter, plan):
    return evaluate_loaded(LoadedCase.read(case), segmenter, plan)


def rows_of(scored, **wanted):
    return [row for row in scored.rows if all(getattr(row, name) == value for name, value in wanted.items())]


def test_every_protocol_gives_a_row_for_every_bone(scans):
    case = load_cases(scans, "test", ["some-ct"])[0]
    scored = evaluate_case(case, ThresholdSegmenter(), FULL)
    references = ["filled box", *(f"above {value} HU" for value in (150, 200, 250, 300))]
    prompted = [BOX_3D, BOX_AND_CLICKS, BOX_2D, *CLICKS.values(), NO_PROMPT]
    for name in ("L1", "femur"):
        found = [(row.protocol, row.attention) for row in rows_of(scored, object=name)]
        expected = [(protocol, mode) for protocol in prompted for mode in ("on", "off")]
        assert sorted(found) == sorted(expected + [(reference, "") for reference in references])
    assert {(row.case, row.source) for row in scored.rows} == {("ct_0", "some-ct")}
    boxed = rows_of(scored, protocol=BOX_3D, attention="on")
    assert [row.dice > 0.95 for row in boxed] == [True, True]
    assert all(row.confidence == 0.75 and row.seconds >= 0 for row in boxed)
    assert all(row.dice < 0.8 for row in rows_of(scored, protocol=BOX_3D, attention="off"))
    assert [bone.name for bone in scored.drawn] == ["L1", "femur"]


def test_clicks_start_inside_and_then_correct_the_last_result(scans):
    case = load_cases(scans, "test", ["some-ct"])[0]
    segmenter = ThresholdSegmenter()
    scored = evaluate_case(case, segmenter, FULL)
    calls = segmenter.sessions[0].calls
    truth = case.load()[2][0].mask
    (start, *corrections) = [call for call in calls if call[0] is None and call[3]][:5]
    i, j, k = (round(value) for value in start[1][0].to_ijk(segmenter.sessions[0].volume))
    assert start[2] is None
    assert truth[k, j, i]
    for number, (_, points, last, _) in enumerate(corrections, start=2):
        assert len(points) == number
        assert points[0] == start[1][0]
        assert last is not None
    dice = [rows_of(scored, object="L1", protocol=name, attention="on")[0].dice for name in CLICKS.values()]
    assert dice[0] < dice[1] < dice[2]


def test_box_corrections_keep_the_box(scans):
    case = load_cases(scans, "test", ["some-ct"])[0]
    segmenter = ThresholdSegmenter()
    scored = evaluate_case(case, segmenter, FULL)
    first, *others = [call for call in segmenter.sessions[0].calls if call[0] is not None and not call[3]][:4]
    assert first[1] == ()
    assert [(call[0], len(call[1])) for call in others] == [(first[0], 1), (first[0], 2), (first[0], 3)]
    before = rows_of(scored, object="L1", protocol=BOX_3D, attention="off")[0]
    after = rows_of(scored, object="L1", protocol=BOX_AND_CLICKS, attention="off")[0]
    assert after.dice > before.dice
    assert after.seconds > before.seconds


def test_the_same_prompts_every_time_and_for_both_kinds_of_attention(scans):
    case = load_cases(scans, "test", ["some-ct"])[0]
    runs = []
    for _ in range(2):
        segmenter = ThresholdSegmenter()
        evaluate_case(case, segmenter, FULL)
        runs.append([(box, points, attention) for box, points, _, attention in segmenter.sessions[0].calls])
    assert runs[0] == runs[1]
    boxes = {attention: {box for box, _, used in runs[0] if used == attention} for attention in (True, False)}
    assert boxes[True] == boxes[False]


def test_a_radiograph_needs_no_propagation(scans):
    scored = evaluate_case(load_cases(scans, "test", ["some-xray"])[0], ThresholdSegmenter(), FULL)
    assert not rows_of(scored, protocol=BOX_2D)
    assert rows_of(scored, protocol=BOX_3D, attention="on")[0].dice == 1
    assert {row.protocol for row in scored.rows} >= {"Otsu, bright side", "Otsu, dark side"}


def test_without_prompt_only_the_surroundings_of_annotated_bone_count(scans):
    case = load_cases(scans, "test", ["pelvic-mr"])[0]
    scored = evaluate_case(case, ThresholdSegmenter(), FULL)
    for row in rows_of(scored, protocol=NO_PROMPT):
        # The left-out label beside the bone is found too, which is no error.
        assert (row.dice, row.recall, row.precision) == (1, 1, 1)
        assert math.isnan(row.hd95_mm)
        assert row.confidence == 0.5


def test_quick_does_less(scans):
    scored = evaluate_case(load_cases(scans, "test", ["some-ct"])[0], ThresholdSegmenter(), QUICK)
    protocols = {(row.protocol, row.attention) for row in scored.rows if row.attention}
    assert protocols == {(name, "on") for name in (BOX_3D, *CLICKS.values())}
    cases = load_cases(scans, "test")
    assert first_cases(cases * 3, 2) == [*cases, *cases]


def test_a_run_writes_rows_tables_and_sheets(scans, tmp_path):
    cases = load_cases(scans, "test")
    out = tmp_path / "out"
    rows = evaluate(cases, ThresholdSegmenter(), out, SETTINGS)
    assert len(read_rows(out / "rows.csv")) == len(rows)
    assert {row.case for row in rows} == {"ct_0", "mr_0", "xr_0"}
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["sources"]) == {"some-ct", "pelvic-mr", "some-xray"}
    assert summary["sources"]["some-ct"][f"{BOX_3D}, attention on"]["dice"]["mean"] > 0.95
    text = (out / "summary.md").read_text()
    for part in ("## Aims", "## By source", "## By bone", "## Macro averages", "partial", "above 200 HU"):
        assert part in text
    for source in summary["sources"]:
        with Image.open(out / f"{source}.png") as sheet:
            assert sheet.width > 300
    picture = np.asarray(Image.open(out / "cases" / "ct_0.png"))
    blue = (picture == (90, 170, 255)).all(axis=-1)
    assert blue.any()


def test_a_stopped_run_goes_on(scans, tmp_path):
    cases = load_cases(scans, "test")
    whole = evaluate(cases, ThresholdSegmenter(), tmp_path / "whole", SETTINGS)

    class StopsAtTheSecond(ThresholdSegmenter):
        def open(self, volume):
            if self.sessions:
                raise KeyboardInterrupt
            return super().open(volume)

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(cases, StopsAtTheSecond(), out, SETTINGS)
    # A line that was cut short, as a kill while writing leaves it.
    with (out / "tables.jsonl").open("a") as file:
        file.write('{"key": ["mr_0"], "rows": [{"ca')
    segmenter = ThresholdSegmenter()
    resumed = evaluate(cases, segmenter, out, SETTINGS)
    assert [session.volume.name for session in segmenter.sessions] == ["mr_0", "xr_0"]

    def without_time(rows):
        return [(row.case, row.object, row.protocol, row.attention, f"{row.dice:.5f}") for row in rows]

    assert without_time(resumed) == without_time(whole)
    again = ThresholdSegmenter()
    evaluate(cases, again, out, SETTINGS, fresh=True)
    assert len(again.sessions) == 3


def test_sources_take_turns_and_a_clock_ends_the_work(scans, tmp_path):
    cases = load_cases(scans, "test")
    twice = [*cases[:1] * 2, *cases[1:]]
    assert [case.id for case in in_turn(twice)] == ["ct_0", "mr_0", "xr_0", "ct_0"]
    segmenter = ThresholdSegmenter()
    assert evaluate(cases, segmenter, tmp_path, SETTINGS, clock=Clock(minutes=0)) == []
    assert not segmenter.sessions


def test_only_the_named_protocols():
    plan = chosen_plan(FULL, "box,no-prompt", "on")
    assert (plan.boxes, plan.no_prompt, plan.clicks, plan.box_corrections, plan.slice_boxes) == (
        True,
        True,
        False,
        False,
        False,
    )
    assert plan.attention == (True,)
    assert chosen_plan(BOX_ONLY, None, None) == BOX_ONLY
    with pytest.raises(BoneSAMError, match="Unknown protocol 'bx'"):
        chosen_plan(FULL, "bx", None)


def test_only_the_first_bones(scans, tmp_path):
    rows = evaluate(
        load_cases(scans, "test", ["some-ct"]), ThresholdSegmenter(), tmp_path, SETTINGS | {"most_bones": 1}
    )
    assert {one.object for one in rows} == {"L1"}


def test_runs_of_different_weights_do_not_mix(scans, tmp_path):
    cases = load_cases(scans, "test", ["some-xray"])
    evaluate(cases, ThresholdSegmenter(), tmp_path, SETTINGS)
    with pytest.raises(BoneSAMError, match="--fresh"):
        evaluate(cases, ThresholdSegmenter(), tmp_path, {**SETTINGS, "weights": "other"})
    evaluate(cases, ThresholdSegmenter(), tmp_path, {**SETTINGS, "weights": "other"}, fresh=True)


def test_weights_are_told_apart_by_content(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"one")
    first = weights_digest(tmp_path)
    assert weights_digest(tmp_path) == first
    (tmp_path / "encoder.onnx").write_bytes(b"two")
    assert weights_digest(tmp_path) != first


def row(case="a", source="s", bone="femur", protocol=BOX_3D, attention="on", dice=0.5, empty="", **other):
    values = {
        "location": source,
        "label": bone,
        "object": bone,
        "iou": dice / 2,
        "precision": 1.0,
        "recall": 1.0,
        "hd95_mm": 3.0,
        "assd_mm": 1.0,
        "nsd_2mm": 0.5,
        "confidence": 0.9,
        "seconds": 0.1,
    }
    return Row(
        case=case,
        source=source,
        bone=bone,
        protocol=protocol,
        attention=attention,
        dice=dice,
        empty=empty,
        **{**values, **other},
    )


def test_statistics_draw_whole_cases():
    steady = [row(case=name, dice=dice) for name in "abcd" for dice in (0.2, 0.8)]
    result = statistics(steady, "dice")
    assert (result["n"], result["mean"], result["median"]) == (8, pytest.approx(0.5), pytest.approx(0.5))
    # Every case has the same mean, so drawing cases cannot change it.
    assert result["low"] == result["high"] == pytest.approx(0.5)
    single = statistics([row(dice=dice) for dice in (0.2, 0.4, 0.6, 0.8)], "dice")
    assert 0.2 <= single["low"] < 0.5 < single["high"] <= 0.8


def test_statistics_skip_what_is_undefined():
    rows = [row(dice=0.4), row(case="b", dice=math.nan, empty="both")]
    assert statistics(rows, "dice")["mean"] == pytest.approx(0.4)
    assert statistics([row(dice=math.nan)], "dice")["mean"] is None
    assert (
        "n"
        in json.loads(json.dumps(summarize(rows, SETTINGS), allow_nan=False))["sources"]["s"][
            f"{BOX_3D}, attention on"
        ]["dice"]
    )


def test_macro_average_weighs_bones_and_sources_equally():
    rows = [
        row(dice=0.2),
        row(dice=0.4),
        row(dice=0.6),
        row(bone="sacrum", dice=0.8),
        row(source="t", dice=1.0),
    ]
    assert macro_average(rows, "dice") == pytest.approx(((0.4 + 0.8) / 2 + 1.0) / 2)


def test_macro_average_over_locations_counts_a_location_once():
    rows = [row(source="s", location="hip", dice=0.2), row(source="t", location="hip", dice=0.4)]
    rows.append(row(source="u", location="hand", dice=0.9))
    assert macro_average(rows, "dice", "location") == pytest.approx((0.3 + 0.9) / 2)
    assert macro_average(rows, "dice") == pytest.approx((0.2 + 0.4 + 0.9) / 3)


def test_recall_counts_twice_without_a_prompt():
    assert recall_weighted(row(precision=0.5, recall=1.0)) == pytest.approx(5 / 6)
    assert recall_weighted(row(precision=1.0, recall=0.5)) == pytest.approx(5 / 9)
    assert recall_weighted(row(precision=math.nan, recall=0.0)) == 0
    assert math.isnan(recall_weighted(row(recall=math.nan)))


def test_attention_effect_pairs_the_same_object():
    rows = [row(dice=0.7), row(attention="off", dice=0.5), row(case="b", dice=0.1)]
    effect = attention_effect(rows)
    assert effect[BOX_3D]["n"] == 1
    assert effect[BOX_3D]["mean"] == pytest.approx(0.2)


def test_aims_stand_beside_what_was_reached():
    rows = [
        row(source="open-kbp", dice=0.88),
        row(source="open-kbp", protocol="above 200 HU", attention="", dice=0.89),
        row(source="open-kbp", protocol="above 300 HU", attention="", dice=0.6),
        row(source="open-kbp", protocol="filled box", attention="", dice=0.9),
    ]
    (entry,) = against_aims(rows)
    assert entry["aim"] == 0.87
    assert entry["aim_met"]
    assert (entry["best_threshold"], entry["best_threshold_dice"]) == ("above 200 HU", pytest.approx(0.89))
    text = markdown(rows, SETTINGS)
    assert "| open-kbp | 0.87 | 0.880 [0.880, 0.880] | yes | 0.890 (above 200 HU) | 0.900 | **no** |" in text


def test_rows_survive_the_file(tmp_path):
    rows = [row(), row(case="b, with comma", dice=math.nan, empty="both")]
    write_rows(tmp_path / "rows.csv", rows)
    first, second = read_rows(tmp_path / "rows.csv")
    assert first == rows[0]
    assert second.case == "b, with comma"
    assert math.isnan(second.dice)
    with pytest.raises(BoneSAMError, match="name an evaluation's folder"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BoneSAMError, match="no rows of an evaluation"):
        read_rows(tmp_path / "other.csv")


def test_command_line(scans, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "open_weights", lambda weights, device: ThresholdSegmenter())
    out = tmp_path / "out"
    arguments = [
        "--data",
        str(scans),
        "--split",
        "test",
        "--out",
        str(out),
        "--weights",
        str(scans),
        "--quick",
    ]
    assert command.main(arguments) == 0
    assert "report.html" in capsys.readouterr().out
    assert command.main([*arguments, "--sources", "nowhere"]) == 2
    assert "Unknown source" in capsys.readouterr().err
    assert command.main(["--data", str(scans), "--split", "validation"]) == 2
    assert "no cases" in capsys.readouterr().err
