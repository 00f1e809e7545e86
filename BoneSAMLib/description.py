"""What BoneSAM understands of a volume, in words."""

from BoneSAMLib.volume import Volume

__all__ = ["describe_volume"]


def describe_volume(volume: Volume) -> dict[str, str]:
    """Grid, place, slices, modality and values of `volume`, as names and texts to show."""
    axis = volume.through_plane_axis
    slices = f"{volume.size[axis]} along {'ijk'[axis]}, {volume.spacing[axis]:.3g} mm apart"
    directions = zip("ijk", volume.orientation, strict=True)
    origin = "guessed from the values" if volume.modality is None else "known"
    described = {
        "Modality": f"{volume.modality_guess} ({origin})",
        "Voxels (i, j, k)": " x ".join(str(n) for n in volume.size),
        "Spacing": " x ".join(f"{step:.4g}" for step in volume.spacing) + " mm",
        "Axes point to": ", ".join(f"{name}: {letter}" for name, letter in directions),
        "Lies at": volume.bounds_text,
        "Slices": "a single slice or projection" if volume.is_projection else slices,
        "Values": f"{volume.array.min():g} to {volume.array.max():g}, {volume.array.dtype}",
    }
    if volume.notes:
        described["Note"] = " ".join(volume.notes)
    return described
