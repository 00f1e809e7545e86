"""Geometry of the label maps that anatomy is made from."""

import numpy as np
import pytest
import SimpleITK as sitk

from training.synthesis.anatomy.label_maps import read_label_map


def test_label_maps_are_turned_to_ras_and_cut_to_their_annotation(tmp_path):
    array = np.zeros((6, 4, 5), np.uint8)
    array[1:5, 0, 0] = 7
    image = sitk.GetImageFromArray(array)
    # Stored as L, P, S from the patient's right and front on: voxel 0 is the rightmost and foremost.
    image.SetOrigin((-10.0, -20.0, 5.0))
    image.SetSpacing((1.0, 1.0, 2.0))
    path = tmp_path / "map.nii.gz"
    sitk.WriteImage(image, str(path))
    labels, grid = read_label_map(path)
    assert labels.shape == (4, 4, 5)
    assert (labels[:, 3, 4] == 7).all()
    assert grid.origin == pytest.approx((6.0, 17.0, 7.0))
    assert grid.spacing == pytest.approx((1.0, 1.0, 2.0))
