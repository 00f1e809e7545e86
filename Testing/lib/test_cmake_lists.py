"""What CMake installs is everything the extension needs in 3D Slicer, and it works from there."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What 3D Slicer 5.10 and 5.12 bring along.
PART_OF_SLICER = {"PIL", "SimpleITK", "numpy", "packaging", "pydicom", "scipy", "slicer", "vtk"}
PART_OF_SLICER_WINDOW = {"SampleData", "ctk", "qt"}
INSTALLED_ON_FIRST_USE = {"onnxruntime"}
USED_IF_PRESENT = {"dask", "distributed", "highdicom", "rapidfuzz", "skimage", "wordllama"}
NOT_USED_IN_SLICER = (
    "BoneSAMLib/browser/",
    "BoneSAMLib/batch_command.py",
    "BoneSAMLib/cli.py",
    "BoneSAMLib/command_errors.py",
    "BoneSAMLib/model/",
)


def listed(folder):
    """Files named in the lists of a CMakeLists.txt, relative to it."""
    text = (ROOT / folder / "CMakeLists.txt").read_text(encoding="utf-8")
    lists = re.findall(r"set\(\w+_(?:SCRIPTS|RESOURCES)\n(.*?)\)", text, re.DOTALL)
    assert len(lists) == 2
    return [name.replace("${MODULE_NAME}", "BoneSAM") for block in lists for name in block.split()]


def present(*folders):
    """Files of the checkout, relative to its root."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "CMakeLists.txt"
    )


def test_every_file_of_the_library_and_its_resources_is_listed_once():
    assert sorted(listed(".")) == present("BoneSAMLib", "Resources")


def test_every_file_of_the_module_is_listed_once():
    assert sorted(f"BoneSAM/{name}" for name in listed("BoneSAM")) == present("BoneSAM")


def test_no_file_takes_the_place_of_another():
    names = listed(".") + listed("BoneSAM")
    # Windows and macOS do not tell small letters from capital ones.
    assert len({name.lower() for name in names}) == len(names)


def imported(path):
    """(package, whether when the file is loaded) of every import in a file but type checkers' ones."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
    }
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in names:
            yield name.split(".")[0], node not in inside


@pytest.mark.parametrize("name", [name for name in present("BoneSAMLib", "BoneSAM") if name.endswith(".py")])
def test_nothing_is_imported_that_slicer_lacks(name):
    allowed = set(sys.stdlib_module_names) | PART_OF_SLICER | {"BoneSAMLib"}
    if name.startswith("BoneSAM/"):
        allowed |= PART_OF_SLICER_WINDOW | {"BoneSAM", "BoneSAMPanel"}
    for package, at_once in imported(ROOT / name):
        if name.startswith(NOT_USED_IN_SLICER):
            continue
        if package == "BoneSAMLib":
            continue
        wanted = allowed if at_once else allowed | INSTALLED_ON_FIRST_USE | USED_IF_PRESENT
        assert package in wanted, f"{name} imports {package}"


def test_what_slicer_lacks_stays_out_of_what_slicer_uses():
    for name in present("BoneSAMLib", "BoneSAM"):
        if not name.endswith(".py") or name.startswith(NOT_USED_IN_SLICER):
            continue
        text = (ROOT / name).read_text(encoding="utf-8")
        found = re.search(
            r"^from BoneSAMLib(\.| import )(cli|model)\b|^import BoneSAMLib\.(cli|model)", text, re.M
        )
        assert not found, f"{name} needs {found and found.group()}"


USE_INSTALLED = """
import importlib.abc, sys
refused = set(sys.argv[2].split(","))
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in refused:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import BoneSAMLib, BoneSAMLib.presenter
assert BoneSAMLib.__file__.startswith(sys.argv[1])
from BoneSAMLib.bundle import BUNDLED_WEIGHTS, open_bundle
assert str(BUNDLED_WEIGHTS).startswith(sys.argv[1])
import json, pathlib
samples = pathlib.Path(sys.argv[1]) / "Resources" / "samples"
box = json.loads((samples / "samples.json").read_text())["knee_mr"]["prompt"]["box_ras"]
volume = BoneSAMLib.read_volume(samples / "knee_mr.nii.gz")
session = BoneSAMLib.Segmenter(device="cpu").open(volume)
result = session.segment(box=BoneSAMLib.Box.from_ras(box[:3], box[3:]))
print(int(result.mask.sum()))
"""


def test_the_installed_extension_segments_with_slicers_packages_only(tmp_path):
    for folder in (".", "BoneSAM"):
        for name in listed(folder):
            target = tmp_path / "qt-scripted-modules" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / folder / name, target)
    lacking = "cc3d,torch,typer,rich,monai,skimage,matplotlib,vtk,slicer"
    done = subprocess.run(
        [sys.executable, "-B", "-c", USE_INSTALLED, str(tmp_path / "qt-scripted-modules"), lacking],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.mark.skipif(
    shutil.which("cmake") is None, reason="needs CMake; the lists themselves are tested above"
)
def test_cmake_installs_the_lists(tmp_path):
    def cmake(*arguments):
        done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    build, target = tmp_path / "build", tmp_path / "installed"
    # No compiler is needed for Python files.
    compilers = [f"-DCMAKE_{language}_COMPILER_FORCED=1" for language in ("C", "CXX")]
    cmake(
        "-S",
        str(ROOT),
        "-B",
        str(build),
        f"-DSlicer_DIR={ROOT / 'Testing' / 'cmake'}",
        "-DBUILD_TESTING=ON",
        *compilers,
    )
    output = cmake("--install", str(build), "--prefix", str(target))
    assert "test BoneSAM.py" in output
    found = [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()]
    wanted = [f"qt-scripted-modules/{name}" for name in listed(".") + listed("BoneSAM")]
    assert sorted(found) == sorted(wanted)
