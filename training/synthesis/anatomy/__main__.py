"""Anatomy without images for a training store: ``python -m training.synthesis.anatomy``.

Subjects that the store has are kept, so that an interrupted run can be resumed.
"""

import functools
from pathlib import Path
from typing import Annotated

import SimpleITK as sitk
import typer

from BoneSAMLib.errors import BoneSAMError
from training.synthesis.anatomy.body_regions import make_regions
from training.synthesis.anatomy.label_maps import LABEL_MAPS, label_map_subject
from training.synthesis.anatomy.subject import make


def main(
    meshes: Annotated[
        Path, typer.Option(help="Folder of the BodyParts3D meshes.", file_okay=False, exists=True)
    ],
    labelmaps: Annotated[Path, typer.Option(help="Folder of the label maps.", file_okay=False, exists=True)],
    store: Annotated[Path, typer.Option(help="Folder to write to; what it has is kept.", file_okay=False)],
) -> None:
    """Make the label volumes of the training store from meshes and label maps."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    store.mkdir(parents=True, exist_ok=True)
    try:
        for subject_id in LABEL_MAPS:
            make(subject_id, store, functools.partial(label_map_subject, subject_id, labelmaps))
        make_regions("v4", "right", meshes, store)
        make_regions("v3", "left", meshes, store)
    except BoneSAMError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
