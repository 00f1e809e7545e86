"""The whole way on a sample scan: a mouse in slice views, the bundled weights, segments."""

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="needs trame-slicer: run make test")

import SimpleITK as sitk
import slicer.util
from scipy import ndimage

from BoneSAMLib.panel import Action, State, Work
from BoneSAMLib.reading import read_volume

SAMPLES = Path(__file__).parents[2] / "Resources" / "samples"
# Not how good the weights are, which the evaluation measures: only that the mask lies where the bone is.
LEAST_DICE = 0.4


def truth(desk, sample, name):
    """A bone on the grid of the desk's volume, bool [k, j, i]: Slicer may turn a file's axes round."""
    bones = json.loads((SAMPLES / "samples.json").read_text())[sample]["bones"]
    value = next(int(value) for value, bone in bones.items() if bone == name)
    labels = read_volume(SAMPLES / f"{sample}_bones.nii.gz")
    volume = desk.presenter.volume
    to_labels = labels.ras_to_ijk @ volume.ijk_to_ras
    return ndimage.affine_transform(
        labels.array == value,
        to_labels[2::-1, 2::-1],
        to_labels[2::-1, 3],
        output_shape=volume.shape,
        order=0,
    )


def dice(one, other):
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def world(desk, kji):
    return (desk.presenter.volume.ijk_to_ras @ [*kji[::-1], 1.0])[:3]


def look_at(desk, kji):
    """All slices through a voxel."""
    desk.views.go_to(world(desk, kji))


def draw_around(desk, bone, tag):
    """Click two corners around a bone in the slice through its middle; returns the array axis across it."""
    low, high = (ends(0) for ends in (np.argwhere(bone).min, np.argwhere(bone).max))
    center = (low + high) // 2
    look_at(desk, center)
    to_ras = desk.views.slices[tag].get_view_node().GetSliceToRAS()
    normal = np.array([to_ras.GetElement(row, 2) for row in range(3)])
    directions = np.abs(desk.presenter.volume.ijk_to_ras[:3, :3].T @ normal)[::-1]
    spacing = np.array(desk.presenter.volume.spacing)[::-1]
    across = int((directions / spacing).argmax())
    first, last = np.maximum(low - 2, 0), np.minimum(high + 2, np.array(bone.shape) - 1)
    first[across] = last[across] = center[across]
    desk.draw_box(tag, desk.views.pixel(tag, world(desk, first)), desk.views.pixel(tag, world(desk, last)))
    return across


def give_depth(desk, bone, tag, across):
    """Drag the box's faces before and behind that slice, in another view, to the bone's ends."""
    found = np.flatnonzero(bone.any(tuple(axis for axis in range(3) if axis != across)))
    direction = desk.presenter.volume.ijk_to_ras[:3, 2 - across]
    node = next(iter(desk.views.nodes("vtkMRMLMarkupsROINode")))
    center = slicer.util.arrayFromVTKMatrix(node.GetObjectToWorldMatrix())[:3, 3]
    desk.views.go_to(center)
    middle = (desk.presenter.volume.ras_to_ijk @ [*center, 1.0])[:3][::-1][across]
    for place, sign in ((found[-1] + 0.5, 1), (found[0] - 0.5, -1)):
        desk.drag_face(tag, sign * direction, center + (place - middle) * direction)


@pytest.mark.parametrize(
    ("sample", "bone", "tag", "other"),
    [
        ("hip_ct", "left femur", "Green", "Red"),
        # Oblique, in thick sagittal slices.
        ("knee_mr", "right patella", "Yellow", "Red"),
    ],
)
def test_from_a_box_to_a_segment(views, open_desk, sample, bone, tag, other):
    desk = open_desk(views.load(SAMPLES / f"{sample}.nii.gz"))
    wanted = truth(desk, sample, bone)

    across = draw_around(desk, wanted, tag)
    assert desk.panel.work is Work.SEGMENT
    assert not desk.can(Action.ACCEPT)
    give_depth(desk, wanted, other, across)
    low, high = (np.array(ends)[::-1] for ends in desk.panel.box.to_ijk(desk.presenter.volume))
    # To a voxel: a pixel at the volume's border may miss the last one.
    assert (low <= np.argwhere(wanted).min(0) + 1).all()
    assert (high >= np.argwhere(wanted).max(0) - 1).all()
    desk.wait()
    assert desk.texts == []
    assert desk.panel.state is State.PREVIEW
    drawn = desk.preview
    assert dice(drawn, wanted) > LEAST_DICE
    views.screenshot(f"{sample} 1 box")

    # Where the mask is wrong is clicked, as a user would, until it is right or two clicks were made.
    masks = [drawn]
    for _ in range(2):
        wrong = masks[-1] ^ wanted
        if not wrong.any():
            break
        place = _worst(wrong)
        look_at(desk, place)
        desk.add_points(tag, views.pixel(tag, world(desk, place)), positive=bool(wanted[tuple(place)]))
        assert desk.panel.work is Work.SEGMENT
        desk.wait()
        masks.append(desk.preview)
    assert desk.texts == []
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(masks))
    assert dice(masks[-1], wanted) > LEAST_DICE
    views.screenshot(f"{sample} 2 corrected")

    # Undo and redo are exact, to the voxel, and ask the network nothing.
    for mask in masks[-2::-1]:
        desk.presenter.undo()
        assert desk.panel.work is None
        np.testing.assert_array_equal(desk.preview, mask)
    for mask in masks[1:]:
        desk.presenter.redo()
        assert desk.panel.work is None
        np.testing.assert_array_equal(desk.preview, mask)

    desk.presenter.next_bone(bone)
    np.testing.assert_array_equal(desk.segments[bone], masks[-1])
    assert desk.preview is None
    assert desk.panel.active_segment is None
    views.screenshot(f"{sample} 3 accepted")
    print(f"{sample}, {bone}: Dice " + ", ".join(f"{dice(mask, wanted):.3f}" for mask in masks))


def _worst(wrong):
    """The voxel that is most surrounded by wrong ones, [k, j, i]."""
    inside = sitk.SignedMaurerDistanceMap(
        sitk.GetImageFromArray(wrong.astype(np.uint8)), insideIsPositive=True, squaredDistance=False
    )
    depth = sitk.GetArrayFromImage(inside)
    return np.array(np.unravel_index(depth.argmax(), depth.shape))


def test_one_click_gives_a_bone_and_cancel_stops_at_once(views, open_desk):
    desk = open_desk(views.load(SAMPLES / "knee_mr.nii.gz"))
    patella, tibia = (truth(desk, "knee_mr", f"right {name}") for name in ("patella", "tibia"))
    desk.presenter.change_settings(replace(desk.presenter.settings, live=False))

    place = _worst(patella)
    look_at(desk, place)
    desk.add_points("Yellow", views.pixel("Yellow", world(desk, place)))
    desk.wait()
    assert desk.preview is None
    desk.presenter.segment()
    desk.wait()
    clicked = desk.preview
    assert clicked[tuple(place)]
    views.screenshot("knee_mr 4 one click")
    desk.presenter.next_bone("right patella")

    # While the next bone is computed, everything is called off.
    give_depth(desk, tibia, "Red", draw_around(desk, tibia, "Yellow"))
    desk.wait()
    desk.presenter.segment()
    desk.wait_for_progress()
    start = time.perf_counter()
    desk.presenter.cancel()
    assert time.perf_counter() - start < 0.5
    assert desk.panel.state is State.DRAWING
    assert desk.panel.box is not None
    desk.pump()
    assert desk.preview is None
    # Nothing of it comes late, and the next question is answered.
    desk.presenter.segment()
    desk.wait()
    assert dice(desk.preview, tibia) > LEAST_DICE
    desk.presenter.accept("right tibia")
    np.testing.assert_array_equal(desk.segments["right patella"], clicked)
    assert desk.texts == []
    views.screenshot("knee_mr 5 two bones")


def test_a_box_on_one_slice_is_carried_through_the_bone(views, open_desk):
    desk = open_desk(views.load(SAMPLES / "knee_mr.nii.gz"))
    patella = truth(desk, "knee_mr", "right patella")
    desk.view.prompts.flat = True
    across = draw_around(desk, patella, "Yellow")
    low, high = desk.panel.box.to_ijk(desk.presenter.volume)
    assert low[::-1][across] == high[::-1][across]
    desk.wait()
    assert desk.texts == []
    assert dice(desk.preview, patella) > LEAST_DICE
    views.screenshot("knee_mr 6 box on one slice")
