"""From the command line to a running viewer."""

import asyncio
import errno
import importlib.util
import ipaddress
from collections.abc import Callable
from pathlib import Path

from BoneSAMLib.errors import BoneSAMError

__all__ = ["run_viewer"]


def run_viewer(
    scan: Path | None,
    mask: Path | None,
    host: str,
    port: int,
    upload_limit_mb: int,
    visitors: int,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C.

    Args:
        scan: opened for every visitor; None for an empty page.
        mask: a .seg.nrrd of `scan`, shown with it.
        host: address to listen at; any but this machine's own is warned of.
        port: 0 for any that is free.
        upload_limit_mb: of one upload.
        visitors: how many at once.
        tell: gets what the user needs to know, line by line, the address among it.
        warn: gets what the user should not overlook.

    Raises:
        BoneSAMError: packages are missing, a file does not exist, or the port or host cannot be used.
    """
    if importlib.util.find_spec("trame_slicer") is None or importlib.util.find_spec("aiohttp") is None:
        raise BoneSAMError(
            "The viewer needs packages that are not installed: in a checkout of BoneSAM, run `make view`, or "
            "pip install -e '.[web]' in an environment of its own."
        )
    if scan is not None and not scan.exists():
        raise BoneSAMError(f"There is no file or folder '{scan}'.")
    if mask is not None:
        if scan is None:
            raise BoneSAMError("A mask needs the scan that it belongs to: name the scan too.")
        if not mask.is_file():
            raise BoneSAMError(f"There is no file '{mask}'.")
        if not mask.name.lower().endswith(".seg.nrrd"):
            raise BoneSAMError(f"'{mask}' is no segmentation of 3D Slicer: use a .seg.nrrd file.")
    if not _is_this_machine(host):
        warn(
            f"Warning: at {host} others on your network can reach this viewer, and what is sent is not "
            "encrypted. Whoever knows the address below may use it and sees the scan that you named. "
            "For a hospital's network put a server that speaks HTTPS in front of it."
        )

    from BoneSAMLib.browser.gateway import Gateway, GatewaySettings
    from BoneSAMLib.browser.visitor import VisitorTask

    task = VisitorTask(scan, mask, upload_limit_mb * 1_000_000)
    gateway = Gateway(GatewaySettings(task, host, port, visitors))

    def on_ready(address: str) -> None:
        tell(f"Open this address in a browser: {address}")
        tell("Whoever knows it can use the viewer. Ctrl-C ends it.")

    try:
        asyncio.run(gateway.serve(on_ready))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BoneSAMError(
                f"Port {port} is taken: choose another one with --port, or --port 0 for any that is free."
            ) from error
        raise BoneSAMError(f"Cannot listen at {host}, port {port}: {error.strerror or error}.") from error


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
