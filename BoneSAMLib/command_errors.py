"""How commands tell of errors that their user can do something about."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from BoneSAMLib.errors import BoneSAMError

__all__ = ["errors_in_one_sentence"]


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """Expected errors become their message on standard error and exit code 2."""
    try:
        yield
    except BoneSAMError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None
