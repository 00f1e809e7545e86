"""Settings as text and back."""

import math

import pytest

from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.settings import Settings

CHANGED = Settings("cpu", "a folder", False, 1.25, True, True, False, "vtkMRMLScalarVolumeNode2", "maximum")


def test_text_and_back():
    assert Settings.from_strings(CHANGED.to_strings()) == CHANGED
    assert Settings.from_strings(Settings().to_strings()) == Settings()
    assert all(isinstance(text, str) for text in CHANGED.to_strings().values())


def test_what_another_version_wrote_becomes_the_default():
    values = CHANGED.to_strings() | {
        "device": "quantum computer",
        "smoothing_mm": "much",
        "live": "Yes",
        "fusion": "median",
        "new": "1",
    }
    del values["keep_inside"]
    read = Settings.from_strings(values)
    assert (read.device, read.smoothing_mm, read.live, read.keep_inside) == ("auto", 0.0, True, False)
    assert (read.weights, read.fusion) == ("a folder", "average")


@pytest.mark.parametrize("smoothing", [-0.1, 5.1, math.nan, math.inf])
def test_smoothing_has_a_range(smoothing):
    with pytest.raises(BoneSAMError, match="0 \\(none\\) to 5 mm"):
        Settings(smoothing_mm=smoothing)
    assert Settings.from_strings({"smoothing_mm": str(smoothing)}) == Settings()


def test_unknown_device():
    with pytest.raises(BoneSAMError):
        Settings(device="abacus")


def test_unknown_fusion():
    with pytest.raises(BoneSAMError, match="average, maximum"):
        Settings(fusion="median")


def test_how_volumes_are_fused_matters_once_there_are_two():
    assert Settings(fusion="maximum").recipe == Settings().recipe
    assert Settings(fusion="maximum", second_volume="b").recipe != Settings(second_volume="b").recipe
