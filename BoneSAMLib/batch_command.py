"""The command line of many volumes: `bonesam batch`."""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from BoneSAMLib.command_errors import errors_in_one_sentence
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.prompts import parse_box, parse_point

if TYPE_CHECKING:
    from BoneSAMLib.batch import CaseOutcome

__all__ = ["batch"]


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help='A folder, a pattern in quotation marks such as "scans/**/*.nii.gz", or a table (.csv).',
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder of the masks.", show_default=False)
    ],
    everything: Annotated[bool, typer.Option("--all", help="Every bone, without prompts.")] = False,
    box: Annotated[
        list[str] | None, typer.Option(metavar="R,A,S,R,A,S", help="As for `segment`, in every volume.")
    ] = None,
    box_ijk: Annotated[list[str] | None, typer.Option(metavar="i,j,k,i,j,k", help="The same.")] = None,
    point: Annotated[list[str] | None, typer.Option(metavar="R,A,S", help="The same.")] = None,
    negative_point: Annotated[list[str] | None, typer.Option(metavar="R,A,S", help="The same.")] = None,
    ending: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="ENDING",
            help="seg.nrrd, nii.gz, nii, nrrd, mha, or dcm (DICOM segmentation).",
        ),
    ] = "seg.nrrd",
    stl: Annotated[
        bool, typer.Option("--stl", help="Write the surface of each bone too, in LPS mm, beside the mask.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Leave complete masks of the same input, prompts and weights alone."),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes; they share the cores, each needs memory.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let the Dask cluster of this scheduler work, such as tcp://node1:8786; local: start one.",
        ),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do part I of N only: one job of a job array.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Refuse volumes that would take more; else a share of what is free."),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Give a volume up that takes longer.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    weights: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Weights to use instead of the bundled ones.")
    ] = None,
    two_d_only: Annotated[
        bool, typer.Option("--2d-only", help="Look at a slice and its neighbors only: no depth attention.")
    ] = False,
) -> None:
    """Segment many volumes: a mask and a .bonesam.json for each, and summary.html, the worst cases first.

    Volumes are found by their content: NIfTI, NRRD, MHA, and DICOM series, several in a folder too. A table
    has the columns volume, output, bone, box, box_ijk, points, negative_points, all but the first optional;
    every row is one bone, and a row without a prompt wants every bone.

    A volume that cannot be segmented does not stop the others. Exit code: 0 when all have a mask, 1 when some
    have, 3 when none has, 2 when nothing was begun, 130 when stopped by Ctrl-C.
    """
    with errors_in_one_sentence():
        boxes = [parse_box(text) for text in box or ()]
        boxes += [parse_box(text, "IJK") for text in box_ijk or ()]
        points = [parse_point(text) for text in point or ()]
        points += [parse_point(text, positive=False) for text in negative_point or ()]

        from BoneSAMLib.batch import BatchPrompts, find_cases, parse_shard, run_batch

        prompts = None
        if everything or boxes or points:
            prompts = BatchPrompts(everything, tuple(boxes), tuple(points), depth_attention=not two_d_only)
        part = None if shard is None else parse_shard(shard)
        for option, number in (("--memory", memory), ("--time-limit", time_limit)):
            if number is not None and not math.isfinite(number):
                raise BoneSAMError(f"{option} takes a number, not {number}: leave it out for no limit.")
        with _terminated_like_interrupted():
            cases = find_cases(source, output, prompts, "." + ending.removeprefix("."), not two_d_only, stl)
            with _case_progress(len(cases if part is None else part.of(cases))) as progress:
                outcome = run_batch(
                    cases,
                    output,
                    workers=workers,
                    scheduler=scheduler,
                    shard=part,
                    resume=resume,
                    device=device,
                    weights=weights,
                    memory=None if memory is None else round(memory * 1e9),
                    time_limit=time_limit,
                    progress=progress,
                )
    kept = sum(one.ending == "kept" for one in outcome.outcomes)
    done = len(outcome.outcomes) - len(outcome.failed)
    typer.echo(f"{done} of {outcome.total} volumes have a mask{f', {kept} from before' if kept else ''}.")
    if outcome.summary.exists():
        typer.echo(f"Summary: {outcome.summary}")
    if outcome.problem:
        typer.echo(f"Error: {outcome.problem}", err=True)
    raise typer.Exit(outcome.exit_code)


@contextmanager
def _case_progress(total: int) -> Iterator[Callable[["CaseOutcome"], None]]:
    """Cases done, failing and time left: a bar on terminals, else one line a case; failures always stay."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.completed} of {task.total} done"),
        TextColumn("{task.fields[failing]} failed"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    failing = 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, failing=0)

        def show(outcome: "CaseOutcome") -> None:
            nonlocal failing
            if outcome.ending == "failed":
                failing += 1
                console.print(f"Failed: {outcome.case.name}: {outcome.error}")
            elif not console.is_terminal:
                done = "complete already" if outcome.ending == "kept" else f"{outcome.seconds:.1f} s"
                console.print(f"Done: {outcome.case.name} ({done}, confidence {outcome.confidence:.2f})")
            bar.update(task, advance=1, failing=failing)

        yield show


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Ctrl-C, and a scheduler that ends the job, leave no unfinished case behind; exit code 130."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped. The unfinished cases were cleaned up: --resume does what is left.", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
