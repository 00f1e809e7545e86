"""Scans and their masks into a training store: `python -m training.ingest FOLDER --store STORE`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from BoneSAMLib.errors import BoneSAMError
from training.cases import MODALITIES
from training.ingest.discovery import Found, Reading, find_scans, read_names
from training.ingest.ingestion import REPORT, ingest
from training.ingest.splits import parse_shares


def main(
    data: Annotated[list[Path], typer.Argument(help="Folders of scans and masks, or with an index.json.")],
    store: Annotated[Path, typer.Option(help="Folder of the training store; what it has is kept.")],
    masks: Annotated[
        Path | None, typer.Option(help="Folder of the masks, if it is another; files are called alike.")
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help='JSON of the bones\' names: {"1": "femur", "2": null}; null is no bone.'),
    ] = None,
    source: Annotated[str, typer.Option(help="What these scans are called together.")] = "",
    modality: Annotated[str, typer.Option(help="CT, MR or X-ray, where the files do not say it.")] = "",
    license_: Annotated[
        str, typer.Option("--license", help="Of the scans; the store repeats it.")
    ] = "not stated",
    complete: Annotated[
        bool, typer.Option("--complete", help="Every bone that is seen is annotated, none left out.")
    ] = False,
    subject: Annotated[
        str, typer.Option(help="Regular expression that finds the person in a file's path.")
    ] = "",
    shares: Annotated[
        str, typer.Option(help="Of persons in train, validation and test, where no split is given.")
    ] = "0.7,0.15,0.15",
    strict: Annotated[bool, typer.Option("--strict", help="Leave out what looks wrong, too.")] = False,
) -> None:
    """Check scans and masks, and pack those for training and validation into a store.

    Run it again to go on after an interruption, or to add scans. Exit code: 0 if all were taken, 1 if some
    were left out, 2 if nothing could be begun.
    """
    try:
        if modality and modality not in MODALITIES:
            raise BoneSAMError(f"Unknown modality '{modality}': use one of {', '.join(MODALITIES)}.")
        reading = Reading(
            masks, read_names(names) if names else {}, source, modality, license_, complete, subject
        )
        found = Found()
        for folder in data:
            more = find_scans(folder, reading)
            found.rows += more.rows
            found.unlabelled += more.unlabelled
            found.problems += more.problems
        outcome = ingest(found, store, parse_shares(shares), strict, lambda line: print(line, flush=True))
    except BoneSAMError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    for _, sentence in outcome.problems:
        print(sentence, file=sys.stderr)
    doubtful = sum(bool(record.suspicions) for record in outcome.records)
    left_out = outcome.count("refused") + len(outcome.problems)
    print(
        f"{outcome.count('packed')} annotated scans and {outcome.count('unlabelled')} others are in {store}, "
        f"{outcome.count('test')} are for the test, {left_out} were left out, "
        f"{doubtful} should be looked at: {store / REPORT / 'index.html'}"
    )
    if left_out:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
