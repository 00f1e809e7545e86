"""Every study from a scan to its numbers, with segmenters whose answers are known."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.region import PIXELS
from BoneSAMLib.session import Session
from BoneSAMLib.volume import Volume
from Testing.lib.fake_engine import FakeEngine
from Testing.training.threshold_segmenter import ThresholdSegmenter
from training import effort, interactive, prompt_studies
from training.cases import BoneObject, Case, load_cases
from training.evaluate import main, run_studies
from training.evaluation_report import write_report
from training.interactive import BOX, CLICKS, Interactive, area_under_curve, at, by_hand, clicks_to, tracks
from training.measure import LoadedCase
from training.network_studies import GATES, ChangedEngine, Gate, Resolution, coarser
from training.prompt_studies import DRAWS, Jitter, Points
from training.sequence_fusion import Fusion, simulated
from training.studies import STUDIES, curves
from training.trial import Trial

SETTINGS = {"split": "test", "weights": "none", "most_bones": None, "seed": 0}


def a_trial(condition, level, dice, case="a", bone="femur", **facts):
    return Trial(case, "s", "hip", bone, bone, condition, level, dice, dice / (2 - dice), **facts)


@pytest.fixture
def ct(scans):
    return LoadedCase.read(load_cases(scans, "test", ["some-ct"])[0])


class Slow:
    """Finds nothing at first, and the ball around each click afterwards."""

    def __init__(self, volume, truth):
        self.volume, self.truth = volume, truth

    def segment(self, box=None, points=(), mask=None, depth_attention=True):
        k, j, i = np.indices(self.volume.shape)
        found = np.zeros(self.volume.shape, bool)
        for point in points:
            x, y, z = point.to_ijk(self.volume)
            found |= (i - x) ** 2 + (j - y) ** 2 + (k - z) ** 2 <= 16
        return SimpleNamespace(mask=found & self.truth, confidence=0.5)


def test_clicks_end_when_the_target_is_reached_or_at_twenty(ct):
    trials = list(Interactive().run(ct, ThresholdSegmenter(), CLICKS))
    (track, _) = tracks(trials, CLICKS).values()
    assert [one.level for one in track] == list(range(1, len(track) + 1))
    assert all(one.iou < 0.9 for one in track[:-1])
    assert track[-1].iou >= 0.9 or len(track) == 20
    hopeless = SimpleNamespace(open=lambda volume: Slow(volume, np.zeros(volume.shape, bool)))
    trials = list(Interactive().run(ct, hopeless, CLICKS))
    assert [len(track) for track in tracks(trials, CLICKS).values()] == [20, 20]


def test_after_a_box_come_five_clicks_and_more_while_it_helps(ct):
    trials = list(Interactive().run(ct, ThresholdSegmenter(), BOX))
    # The box alone is right but for what other bones' voxels are in it.
    for track in tracks(trials, BOX).values():
        assert track[0].level == 0
        assert track[-1].dice >= 0.9
        assert len(track) <= 6
        assert not math.isnan(track[0].nsd_2mm)
    slow = SimpleNamespace(open=lambda volume: Slow(volume, ct.bones[0].mask))
    track = tracks(list(Interactive().run(ct, slow, BOX)), BOX)["ct_0", "L1"]
    assert [one.level for one in track] == list(range(11))
    assert math.isnan(track[6].nsd_2mm)
    assert track[5].dice < track[10].dice < 0.9


def test_numbers_of_clicks():
    track = [a_trial(CLICKS, level, dice) for level, dice in ((1, 0.5), (2, 0.93), (3, 0.96))]
    assert clicks_to(track, 0.85) == 2
    assert clicks_to(track, 0.90) == 3
    assert clicks_to(track, 0.99) is None
    assert at(track, 1).dice == 0.5
    assert at(track, 20).dice == 0.96
    missed = [a_trial(CLICKS, 1, 0.2, case="b"), a_trial(CLICKS, 2, 0.3, case="b")]
    numbers = interactive.summary([*track, *missed])["all"]
    assert numbers["NoC@85"]["mean"] == pytest.approx((2 + 20) / 2)
    assert numbers["NoC@90"]["mean"] == pytest.approx((3 + 20) / 2)
    assert numbers["not reached@90"] == 1
    assert numbers["Dice after 10 clicks"]["mean"] == pytest.approx((0.96 + 0.3) / 2)


def test_area_under_the_curve_is_a_quarter_of_the_challenges():
    dice = [0.1, 0.5, 0.6, 0.7, 0.8, 0.9]
    track = [a_trial(BOX, level, value) for level, value in enumerate(dice)]
    own = sum((a + b) / 2 for a, b in itertools.pairwise(dice[1:]))  # the box does not count
    assert area_under_curve(track, "dice") == pytest.approx(own / 4)
    perfect = [a_trial(BOX, 0, 1.0)]
    assert area_under_curve(perfect, "dice") == 1


def test_drawing_by_hand_is_slices_and_outlines():
    k, j, i = np.ogrid[:10, :90, :90]
    mask = np.broadcast_to((i - 45) ** 2 + (j - 45) ** 2 <= 40**2, (10, 90, 90)) & (k >= 2) & (k < 7)
    volume = Volume(mask.astype(np.uint8), np.diag([0.5, 0.5, 3.0, 1.0]), "disk", "MR")
    facts = by_hand(mask, SimpleNamespace(volume=volume))
    assert facts["slices"] == 5
    assert facts["contour_mm"] == pytest.approx(5 * 2 * np.pi * 20, rel=0.02)


def test_effort_counts_what_is_left_to_draw():
    pace = effort.Pace(box=10, click=2, look=0, slice=1, outline=0.1)
    facts = {"slices": 20.0, "contour_mm": 800.0}
    track = [a_trial(BOX, 0, 0.6, seconds=1.0, **facts), a_trial(BOX, 1, 0.95, seconds=3.0, **facts)]
    enough = effort.effort(track, pace)
    assert (enough.clicks, enough.with_prompts, enough.by_hand) == (1, 10 + 2 + 3, 100)
    short = effort.effort(track[:1], pace)
    assert short.clicks is None
    assert short.with_prompts == pytest.approx(10 + 1 + 0.4 * 100)
    told = effort.summary(track, pace)
    assert told["all"]["time saved"] == pytest.approx(0.85)
    assert told["assumed seconds"]["click"] == 2


def test_jitter_is_the_spread_over_five_boxes(ct):
    segmenter = ThresholdSegmenter()
    trials = list(Jitter().run(ct, segmenter, "box"))
    boxes = [call[0] for call in segmenter.sessions[0].calls]
    assert len(trials) == len(set(boxes)) == 2 * DRAWS
    made = [a_trial("box", draw, dice) for draw, dice in enumerate((0.7, 0.8, 0.9))]
    spread = prompt_studies.jitter_summary(made)["all"]
    assert spread["standard deviation"]["mean"] == pytest.approx(0.1)
    assert spread["range"]["mean"] == pytest.approx(0.2)


def test_more_points_include_the_fewer(ct):
    segmenter = ThresholdSegmenter()
    trials = list(Points().run(ct, segmenter, "points at once"))
    first = [call[1] for call in segmenter.sessions[0].calls[:4]]
    assert [len(points) for points in first] == [1, 5, 10, 20]
    assert all(more[: len(fewer)] == fewer for fewer, more in itertools.pairwise(first))
    assert all(ct.bones[0].mask[tuple(int(v) for v in point.position[::-1])] for point in first[3])
    assert trials[3].dice > trials[0].dice


def bright_case(modality="MR"):
    """A bright block in the dark, with a smaller one beside it, as the fake engine finds them."""
    array = np.zeros((14, 40, 40), np.float32)
    mask = np.zeros(array.shape, bool)
    mask[4:10, 12:26, 10:28] = True
    array[mask] = 100
    array[2:5, 30:38, 30:38] = 100
    volume = Volume(array, np.diag([1.0, 1.0, 2.0, 1.0]), "bright", modality)
    case = Case(
        "bright", "s", "test", modality, None, None, {}, None, True, "", "hip", "", subject="bright"
    )  # fmt: skip
    return LoadedCase(case, volume, mask.astype(np.uint8), [BoneObject("block", "block", 1, "block", mask)])


def with_engine(engine=None):
    engine = engine or FakeEngine()
    bundle = SimpleNamespace(manifest={"gate": 0.4})
    return SimpleNamespace(engine=engine, bundle=bundle, open=lambda volume: Session(volume, engine))


def test_gate_is_scaled_from_its_trained_value():
    segmenter = with_engine()
    trials = list(Gate().run(bright_case(), segmenter, "gate"))
    assert [one.level for one in trials] == sorted({*GATES, 0.4})
    used = {round(float(use), 3) for _, use in segmenter.engine.attention}
    assert {0.0, 1.0, 2.5} <= used
    # Slices are encoded once, whatever the gate.
    assert sum(segmenter.engine.encoded) <= len(bright_case().volume.array)
    segmenter.bundle.manifest = {}
    with pytest.raises(BoneSAMError, match="value of their gate"):
        list(Gate().run(bright_case(), segmenter, "gate"))


def test_resolution_blurs_what_the_network_sees():
    slices = np.zeros((1, 3, PIXELS, PIXELS), np.float32)
    slices[..., ::2] = 1.0
    assert coarser(slices, 64).std() < 0.01
    assert coarser(slices, 64).mean() == pytest.approx(0.5)
    seen = []
    engine = SimpleNamespace(device="cpu", encode=lambda slices: seen.append(slices.std()))
    ChangedEngine(engine, pixels=64).encode(slices)
    ChangedEngine(engine).encode(slices)
    assert seen[0] < 0.01
    assert seen[1] == pytest.approx(0.5)
    trials = [
        one
        for part in ("64 pixels", "256 pixels")
        for one in Resolution().run(bright_case(), with_engine(), part)
    ]
    assert [one.level for one in trials] == [64, 256]
    assert trials[1].dice > 0.9


def test_studies_of_the_network_need_one():
    for study, part in ((Resolution(), "64 pixels"), (Gate(), "gate"), (Fusion(), "average")):
        with pytest.raises(BoneSAMError, match="not a baseline"):
            list(study.run(bright_case(), ThresholdSegmenter(), part))


def test_fusion_takes_a_simulated_sequence_where_there_is_no_other():
    case = bright_case()
    assert list(Fusion().parts(case)) == ["one sequence", "average", "maximum"]
    assert list(Fusion().parts(bright_case("CT"))) == []
    found = [one for part in Fusion().parts(case) for one in Fusion().run(case, with_engine(), part)]
    assert [(one.condition, one.level) for one in found] == [
        ("one sequence", 1),
        ("average with a simulated sequence", 2),
        ("maximum with a simulated sequence", 2),
    ]
    again = simulated(case.volume)
    assert np.array_equal(again.array, simulated(case.volume).array)
    assert not np.allclose(again.array, case.volume.array)


def test_curves_are_means_by_level():
    made = [a_trial("gate", 0.0, 0.5), a_trial("gate", 1.0, 0.7), a_trial("gate", 1.0, 0.9, case="b")]
    found = curves(made)["all"]["gate"]
    assert found["0"]["mean"] == pytest.approx(0.5)
    assert found["1"]["mean"] == pytest.approx(0.8)


def test_studies_go_on_where_they_were_and_make_one_report(scans, tmp_path):
    cases = load_cases(scans, "test", ["some-ct", "some-xray"])
    names = ("interactive", "jitter", "points")
    studies = [STUDIES[name].make(cases, (3,)) for name in names]
    run_studies(studies[1:], cases[:1], ThresholdSegmenter(), tmp_path, SETTINGS)
    segmenter = ThresholdSegmenter()
    run_studies(studies, cases, segmenter, tmp_path, SETTINGS)
    of_ct = [session for session in segmenter.sessions if session.volume.name == "ct_0"]
    assert len(of_ct) == 2  # both annotators of the interactive study, nothing of the others
    untouched = ThresholdSegmenter()
    run_studies(studies, cases, untouched, tmp_path, SETTINGS)
    assert not untouched.sessions
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") == 3
    for word in ("NoC@85", "standard deviation", "points at once", "Effort"):
        assert word in page
    found = json.loads((tmp_path / "studies.json").read_text())
    assert set(found) == set(names)
    assert (tmp_path / "jitter.csv").read_text().startswith("case,source,location,bone,object,condition")


def test_command_line_refuses_unknown_studies(scans, tmp_path, capsys):
    given = ["--data", str(scans), "--split", "test", "--out", str(tmp_path)]
    assert main([*given, "--studies", "jiter"]) == 2
    assert "Unknown study 'jiter'" in capsys.readouterr().err
    assert main([*given, "--severities", "6"]) == 2
    assert "Unknown severity '6'" in capsys.readouterr().err
