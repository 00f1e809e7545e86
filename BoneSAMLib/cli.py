"""The command line: `bonesam segment`, `batch`, `info`, `name` and `view`."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from BoneSAMLib.batch_command import batch
from BoneSAMLib.bone_phrases import understand
from BoneSAMLib.bone_table import bone_table
from BoneSAMLib.command_errors import errors_in_one_sentence
from BoneSAMLib.components import counted
from BoneSAMLib.description import describe_volume
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.many_bones import (
    BonePrompts,
    find_bones,
    group_prompts,
    name_bones,
    segment_everything,
    segment_prompted,
)
from BoneSAMLib.overlay_sheet import overlay_sheet
from BoneSAMLib.prompts import parse_box, parse_point
from BoneSAMLib.report import ReportedBone, write_report
from BoneSAMLib.segmentation import attends_without_prompts
from BoneSAMLib.volume import Volume
from BoneSAMLib.writing import check_rectangular, write_mask

__all__ = ["app", "main"]

DICOM_SUFFIX = ".dcm"
MASK_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", DICOM_SUFFIX)  # .seg.nrrd ends in .nrrd

app = typer.Typer(
    help="Segment bones in CT, MR and X-ray. For research, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """Run the command line; the console script `bonesam`."""
    app()


@app.command()
def segment(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="NIfTI, NRRD, MHA, DICOM folder or file, PNG, JPEG or TIFF.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Mask: .nii.gz, .nii, .nrrd, .mha, .seg.nrrd, or .dcm (DICOM segmentation).",
            show_default=False,
        ),
    ],
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="R,A,S,R,A,S", help="Two opposite corners in mm; repeat for more bones."),
    ] = None,
    box_ijk: Annotated[
        list[str] | None,
        typer.Option(metavar="i,j,k,i,j,k", help="The same in voxel indices, both corners included."),
    ] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="R,A,S", help="A click on the bone, in mm; repeatable.")
    ] = None,
    negative_point: Annotated[
        list[str] | None, typer.Option(metavar="R,A,S", help="A click on what is not the bone; repeatable.")
    ] = None,
    bone: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help='Find bones by name, as "left femur"; repeatable.'),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every bone, without prompts: one label per connected bone.")
    ] = False,
    named: Annotated[
        bool,
        typer.Option("--named", help="With --all: call bones by name, and part those that touch."),
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BONE", help='What the prompts\' bones are called, in their order: "left femur"; repeat.'
        ),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Another sequence of the same study, to be looked at as well; repeatable."
        ),
    ] = None,
    fusion: Annotated[
        str, typer.Option(metavar="average|maximum", help="How INPUT and --also become one.")
    ] = "average",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    report: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Write a self-contained report.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write a contact sheet with the outlines.")
    ] = None,
    stl: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the surface of each bone, in LPS mm.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Weights to use instead of the bundled ones.")
    ] = None,
    naming: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A network that finds bones by name, instead of the bundled one."
        ),
    ] = None,
    two_d_only: Annotated[
        bool, typer.Option("--2d-only", help="Look at a slice and its neighbors only: no depth attention.")
    ] = False,
) -> None:
    """Segment one bone per prompt, or every bone with --all, and write a mask on the grid of INPUT.

    Label values follow the prompts: first every --box, then every --box-ijk, then every --point that lies
    outside all boxes and so starts a bone of its own, then what each --bone finds. A --point inside boxes
    belongs to the smallest of them.
    A --negative-point counts for every bone whose box contains it, and for every bone without a box. A box
    that is one slice thin marks the bone on that slice and counts as that wide on all others. Where two bones
    claim a voxel, the more confident one keeps it. Names in English, German, Italian, French, Spanish
    or Latin are written with their SNOMED CT codes.
    """
    with errors_in_one_sentence():
        _check_destination(output, MASK_SUFFIXES, source)
        _check_destination(overlay, (".png",), source)
        _check_destination(report, (".html", ".htm"), source)
        for other in also or ():
            _check_destination(output, MASK_SUFFIXES, other)
        boxes = [parse_box(text) for text in box or ()]
        boxes += [parse_box(text, "IJK") for text in box_ijk or ()]
        points = [parse_point(text) for text in point or ()]
        points += [parse_point(text, positive=False) for text in negative_point or ()]
        if everything and (boxes or points or bone):
            raise BoneSAMError("--all takes no boxes, points or names: leave out --all or the prompts.")
        if bone and name:
            raise BoneSAMError("--name is for boxes and points: what --bone finds has its name already.")
        if named and not everything:
            raise BoneSAMError("--named goes with --all: what a prompt means is called by --name.")
        if everything and name:
            raise BoneSAMError("--all takes no --name: which bones it finds is not known before.")
        if everything and two_d_only:
            raise BoneSAMError(
                "--2d-only needs a prompt: without one, the kind of scan decides on depth attention."
            )
        if not (everything or boxes or points or bone):
            raise BoneSAMError(
                "No prompt was given: use --box, --box-ijk, --point or --bone, or --all for every bone."
            )

        for phrase in bone or ():
            understand(phrase)

        # ITK and ONNX Runtime take long to import: help and mistyped prompts answer without them.
        from BoneSAMLib.companion import check_fusion
        from BoneSAMLib.dicom_segmentation import check_segmentation_source, write_dicom_segmentation
        from BoneSAMLib.reading import read_volume
        from BoneSAMLib.session import Segmenter
        from BoneSAMLib.surface import check_surfaces, write_surfaces

        check_fusion(fusion)
        is_dicom = output.name.lower().endswith(DICOM_SUFFIX)
        if is_dicom and source.exists():
            check_segmentation_source(source)
        if stl is not None:
            check_surfaces()
            if stl.exists() and not stl.is_dir():
                raise BoneSAMError(f"Cannot write to '{stl}': it is no folder; give the name of one.")

        with _progress_bar() as progress:
            progress(0.0, "Reading")
            volume = read_volume(source)
            if not is_dicom:
                check_rectangular(volume, output)
            if stl is not None:
                check_surfaces(volume)
            bones = group_prompts(volume, boxes, points)
            name_bones(bones, name or ())
            start = time.perf_counter()
            segmenter = Segmenter(device=device, weights=weights, naming=naming)
            session = segmenter.open(volume, [read_volume(path) for path in also or ()], fusion)
            missing: list[str] = []
            if everything:
                labels, found = segment_everything(session, progress, named)
            else:
                bones, missing = find_bones(
                    session, [*bones, *(BonePrompts(name=text) for text in bone or ())]
                )
                labels, found = segment_prompted(session, volume, bones, not two_d_only, progress)
            seconds = time.perf_counter() - start
            progress(1.0, "Writing")
            segments = [bone.segment for bone in found]
            if is_dicom:
                weights_name = segmenter.bundle.name
                write_dicom_segmentation(
                    labels, volume, source, output, segments, prompted=not everything, weights=weights_name
                )
            else:
                write_mask(labels, volume, output, segments)
            written = {"Mask": output}
            if stl is not None:
                write_surfaces(labels, volume, stl, segments)
                written["STL"] = stl
            if overlay is not None:
                overlay_sheet(volume, labels, overlay, segments)
                written["Overlay"] = overlay
            if report is not None:
                attends = not two_d_only and (not everything or attends_without_prompts(volume))
                facts = {"Depth attention": "on" if attends else "off", "Time": f"{seconds:.1f} s"}
                if also:
                    facts["Also seen"] = f"{', '.join(path.name for path in also)} ({fusion} of all)"
                write_report(report, volume, labels, found, facts)
                written["Report"] = report
        _print_bones(volume, labels, found)
        for absent in missing:
            typer.echo(f"The {absent} was not found in this scan.", err=True)
        for what, path in written.items():
            typer.echo(f"{what + ':':<9}{path}")


app.command()(batch)


@app.command()
def info(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Anything that `segment` reads.", show_default=False)
    ],
) -> None:
    """Say what BoneSAM understands of INPUT: its grid, where it lies, how it is sliced, its modality."""
    with errors_in_one_sentence():
        from BoneSAMLib.reading import read_volume

        volume = read_volume(source)
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in describe_volume(volume).items():
            table.add_row(name, value)
        Console(highlight=False, markup=False).print(table)


@app.command("name")
def meaning(
    phrase: Annotated[
        str, typer.Argument(metavar="TEXT", help='Such as "both femurs and L2-L4".', show_default=False)
    ],
) -> None:
    """Say which bones a text means, in the words and SNOMED CT codes that are written beside masks."""
    with errors_in_one_sentence():
        understood = understand(phrase)
        for word, read in understood.corrected.items():
            typer.echo(f"'{word}' is read as '{read}'.", err=True)
        table = Table(show_header=False, box=None, pad_edge=False)
        for target in understood.targets:
            table.add_row(target.name, *bone_table().code(target.bone))
        Console(highlight=False).print(table)


@app.command()
def view(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="INPUT", help="Scan to open; or open one in the page.", show_default=False),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Segments of INPUT to begin with (.seg.nrrd).")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default, only this machine gets in.")
    ] = "127.0.0.1",
    upload_limit: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Largest scan that the page may send.")
    ] = 2000,
    visitors: Annotated[
        int, typer.Option(min=1, metavar="N", help="At once; each takes some hundred megabytes.")
    ] = 4,
) -> None:
    """Segment bones in the browser, on 3D Slicer's own views. Prints the address to open.

    Every visitor has a session of its own, which is forgotten soon after its page is closed.
    """
    with errors_in_one_sentence():
        from BoneSAMLib.browser.serving import run_viewer

        run_viewer(
            source,
            mask,
            host,
            port,
            upload_limit,
            visitors,
            tell=typer.echo,
            warn=lambda text: typer.echo(text, err=True),
        )


def _check_destination(path: Path | None, endings: tuple[str, ...], source: Path) -> None:
    """Refuse before the long work what could not be written after it."""
    if path is None:
        return
    if not path.name.lower().endswith(endings):
        raise BoneSAMError(f"Cannot write '{path}': its name must end in {' or '.join(endings)}.")
    if path.is_dir():
        raise BoneSAMError(f"Cannot write '{path}': it is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise BoneSAMError(f"Cannot write '{path}': there is no folder '{path.parent}'; create it first.")
    if path.resolve() == source.resolve():
        raise BoneSAMError(f"Cannot write '{path}': it is the input; give another name.")
    if path.name.lower().endswith(DICOM_SUFFIX) and path.exists():
        from BoneSAMLib.dicom_segmentation import is_segmentation

        if not is_segmentation(path):  # it may be a slice of the input
            raise BoneSAMError(
                f"Cannot write '{path}': it is no segmentation, so it is kept; give another name."
            )


def _print_bones(volume: Volume, labels: NDArray[Any], bones: Sequence[ReportedBone]) -> None:
    """Table of what was found, and a warning for every prompt that found nothing."""
    if not bones:
        typer.echo("No bone was found: the mask is empty.", err=True)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("label", justify="right")
    table.add_column("name")
    for heading in ("voxels", "mL", "confidence"):
        table.add_column(heading, justify="right")
    table.add_column("look at slices")
    table.add_column("prompt")
    milliliters = abs(float(np.linalg.det(volume.ijk_to_ras[:3, :3]))) / 1000
    counts = counted(labels, len(bones) + 1)
    voxels = {bone.value: int(counts[bone.value]) for bone in bones}
    for bone in bones:
        table.add_row(
            str(bone.value),
            bone.name,
            str(voxels[bone.value]),
            "" if volume.is_projection else f"{voxels[bone.value] * milliliters:.1f}",
            f"{bone.confidence:.2f}",
            bone.slices_to_review(5),
            bone.prompt,
        )
    Console(highlight=False, markup=False).print(table)
    for bone in bones:
        if not voxels[bone.value]:
            typer.echo(f"{bone.name} is empty: nothing was found for {bone.prompt}.", err=True)


@contextmanager
def _progress_bar() -> Iterator[Callable[[float, str], None]]:
    """A bar on standard error, shown on terminals only, that disappears when the work ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


if __name__ == "__main__":
    main()
