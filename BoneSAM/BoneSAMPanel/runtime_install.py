"""ONNX Runtime, the one package 3D Slicer lacks: asked for and installed when a bone is first segmented.

Everything here runs on the main thread: pip beside a running event loop of another thread crashes 3D Slicer.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from BoneSAMLib.errors import BoneSAMError, Cancelled

__all__ = ["RuntimeInstaller"]

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
CPU_PACKAGE, GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
# Its extras bring the CUDA libraries, so that the graphics card's driver is all that must be there.
GPU_REQUIREMENT = f"{GPU_PACKAGE}[cuda,cudnn]>=1.21"
# Its other dependencies are for making networks, not for running them; without them no package of 3D Slicer's
# own is ever replaced by another version.
ALONE = ["--no-deps", "--only-binary", ":all:"]
_FAILURES = (subprocess.CalledProcessError, OSError, RuntimeError)
_log = logging.getLogger(__name__)


class RuntimeInstaller:
    """Makes sure that ONNX Runtime can be used, and adds what an NVIDIA graphics card needs."""

    def __init__(self) -> None:
        self._ready = False
        self._busy = False

    def ensure(self) -> None:
        """Load ONNX Runtime. If it is missing or too old, ask and install it.

        Raises:
            Cancelled: the user does not want it installed.
            BoneSAMError: it cannot be installed or loaded; the message says what to do without a network.
        """
        if self._ready:
            return
        if self._busy:
            raise BoneSAMError(_("ONNX Runtime is still being installed: wait until that has finished."))
        package, version = _installed()
        if package is None or _is_older(version, _least_version()):
            self._install(package or CPU_PACKAGE)
        _load()
        self._ready = True

    def installGpuSupport(self) -> str:
        """Replace ONNX Runtime by the build for NVIDIA graphics cards, after asking.

        Returns:
            A sentence that says what is now possible.

        Raises:
            Cancelled: the user declined.
            BoneSAMError: no such card is possible here, ONNX Runtime is in use, or the installation failed;
                what was installed before still is, unless the message says otherwise.
        """
        if self._busy:
            raise BoneSAMError(_("ONNX Runtime is still being installed: wait until that has finished."))
        if platform.system() == "Darwin":
            raise BoneSAMError(
                _(
                    "GPU support needs an NVIDIA graphics card, which a Mac does not have: "
                    "BoneSAM uses the CPU."
                )
            )
        before, version = _installed()
        done = _(
            "GPU support is installed. Choose the device 'Automatic' or 'NVIDIA GPU (CUDA)' under Advanced."
        )
        if before == GPU_PACKAGE and not _is_older(version, _least_version()):
            return done
        if "onnxruntime" in sys.modules:
            raise BoneSAMError(
                _("ONNX Runtime is in use: restart 3D Slicer, then install GPU support before segmenting.")
            )
        self._ask(
            _(
                "GPU support is for computers with an NVIDIA graphics card and its current driver. "
                "About 2 GB are downloaded from the Python Package Index, once; they replace ONNX Runtime in "
                "3D Slicer. No image leaves this computer.\n\nInstall GPU support now?"
            )
        )
        with self._working(), _constraints() as unchanged:
            try:
                # A trial first: without a network or room on the disk it fails here, and nothing has changed.
                _pip_install(["--dry-run", *unchanged, GPU_REQUIREMENT])
                if before is not None:
                    # Both packages put their files into the same folder.
                    slicer.util.pip_uninstall(before)
                _pip_install([*unchanged, GPU_REQUIREMENT])
            except _FAILURES as error:
                _log.warning("GPU support was not installed: %s", error)
                self._restore(before)
                raise BoneSAMError(
                    _("GPU support could not be installed. Nothing was changed, and BoneSAM uses the CPU.")
                ) from error
        return done

    def _restore(self, package: str | None) -> None:
        importlib.invalidate_caches()
        if package is None or _installed()[0] is not None:
            return
        try:
            _pip_install([*ALONE, _requirement(package)])
        except _FAILURES as error:
            raise BoneSAMError(
                _(
                    "GPU support could not be installed, and ONNX Runtime was removed meanwhile. {advice}"
                ).format(advice=_offline_advice())
            ) from error

    def _install(self, package: str) -> None:
        self._ask(
            _(
                "BoneSAM needs ONNX Runtime to find bones. It is not part of 3D Slicer, and is downloaded "
                "once (about 20 MB) from the Python Package Index. No image leaves this computer."
                "\n\nInstall it now?"
            )
        )
        in_use = "onnxruntime" in sys.modules
        with self._working():
            try:
                _pip_install([*ALONE, _requirement(package)])
            except _FAILURES as error:
                _log.warning("ONNX Runtime was not installed: %s", error)
                raise BoneSAMError(
                    _("ONNX Runtime could not be installed: is there a network? {advice}").format(
                        advice=_offline_advice()
                    )
                ) from error
        if in_use:
            raise BoneSAMError(_("ONNX Runtime was updated: restart 3D Slicer to use it."))

    def _ask(self, question: str) -> None:
        if slicer.app.testingEnabled() or slicer.util.mainWindow() is None:
            # Nobody is there to answer.
            raise BoneSAMError(
                _(
                    "ONNX Runtime is missing or too old. Before running a script, type in 3D Slicer's Python "
                    "console: {command}"
                ).format(command=f"slicer.util.pip_install('--no-deps {_requirement(CPU_PACKAGE)}')")
            )
        if not slicer.util.confirmOkCancelDisplay(question, windowTitle="BoneSAM"):
            raise Cancelled

    @contextmanager
    def _working(self) -> Iterator[None]:
        """While pip runs, 3D Slicer may handle events, and so come here again."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            importlib.invalidate_caches()


def _installed() -> tuple[str | None, str]:
    """The package that provides ONNX Runtime, and its version; (None, "") if there is none."""
    for package in (GPU_PACKAGE, CPU_PACKAGE):
        try:
            return package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if importlib.util.find_spec("onnxruntime") is None:
        return None, ""
    # Built by somebody, or for another kind of device: it is what this user wants.
    return CPU_PACKAGE, _least_version()


def _load() -> None:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except (ImportError, OSError) as error:
        raise BoneSAMError(
            _(
                "ONNX Runtime is installed but cannot be loaded ({detail}). Type in 3D Slicer's Python "
                "console: {command}, then restart 3D Slicer. On Windows, also install Microsoft's Visual C++ "
                "Redistributable."
            ).format(
                detail=str(error).splitlines()[0] if str(error) else type(error).__name__,
                command=f"slicer.util.pip_install('--force-reinstall --no-deps {_requirement(CPU_PACKAGE)}')",
            )
        ) from error
    if "CUDAExecutionProvider" in runtime.get_available_providers() and hasattr(runtime, "preload_dlls"):
        # Finds the CUDA libraries that were installed as Python packages; version 1.20 looks for others only.
        runtime.preload_dlls()


def _pip_install(arguments: list[str]) -> None:
    try:
        from slicer.packaging import pip_install
    except ImportError:  # before 3D Slicer 5.12
        with slicer.util.WaitCursor():
            slicer.util.pip_install(arguments)
    else:
        pip_install(arguments, requester="BoneSAM")


@contextmanager
def _constraints() -> Iterator[list[str]]:
    """Arguments with which pip adds packages and changes none but ONNX Runtime."""
    lines = {
        f"{found.metadata['Name']}=={found.version}"
        for found in importlib.metadata.distributions()
        if found.metadata["Name"] and found.metadata["Name"].lower() not in (CPU_PACKAGE, GPU_PACKAGE)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("\n".join(sorted(lines)), encoding="utf-8")
        yield ["--only-binary", ":all:", "--constraint", str(path)]


def _requirement(package: str) -> str:
    return f"{package}>={_least_version()}"


def _least_version() -> str:
    """The oldest version that is good enough."""
    text = REQUIREMENTS.read_text(encoding="utf-8")
    found = re.search(rf"^{CPU_PACKAGE}>=([\d.]+)$", text, re.MULTILINE)
    assert found is not None
    return found[1]


def _is_older(version: str, least: str) -> bool:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", text)[:2]]

    return numbers(version) < numbers(least)


def _offline_advice() -> str:
    """What to do on a computer without a network."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    system = {"Windows": "win", "Darwin": "macosx"}.get(platform.system(), "manylinux")
    machine = platform.machine().lower()
    return _(
        "Without one, download the file '{file}' (any version from {version}) from the project onnxruntime "
        "of the Python Package Index on another computer, copy it to this one, and type in 3D Slicer's "
        "Python console: {command}"
    ).format(
        file=f"onnxruntime-...-{python}-...{system}...{machine}.whl",
        version=_least_version(),
        command="slicer.util.pip_install(['--no-deps', 'FOLDER/FILE.whl'])",
    )
