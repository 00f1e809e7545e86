"""Installing ONNX Runtime in 3D Slicer: asked once, alone, on the main thread, with advice when it fails."""

import importlib
import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
import types
from contextlib import contextmanager

import pytest

from BoneSAMLib.errors import BoneSAMError, Cancelled
from Testing.presenter.fakes import BONE, Desk

FAILED = subprocess.CalledProcessError(1, "pip install")


class Computer:
    """3D Slicer's Python on a computer: what is installed, what pip was told, what the user answers."""

    def __init__(self):
        self.packages = {"numpy": "2.0.2", "SimpleITK": "2.5.0"}
        self.answers, self.questions = [], []
        self.pip, self.requesters = [], []
        self.failures = []
        self.testing, self.has_window, self.loadable = False, True, True
        self.providers = ["CPUExecutionProvider"]
        self.preloaded = 0
        self.during_pip = lambda: None

    # What Slicer offers.

    def confirm(self, text, windowTitle=None, **_):
        self.questions.append(text)
        return self.answers.pop(0)

    def install(self, arguments, requester=None):
        self.requesters.append(requester)
        self.pip.append(list(arguments))
        self.during_pip()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if "--dry-run" not in arguments:
            name = arguments[-1].split(">=")[0].split("[")[0]
            self.packages[name] = "1.30.0"

    def uninstall(self, name):
        self.pip.append(["uninstall", name])
        del self.packages[name]

    # What Python's import system says.

    def version(self, name):
        if name not in self.packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return self.packages[name]

    def distributions(self):
        return [
            types.SimpleNamespace(metadata={"Name": name}, version=version)
            for name, version in self.packages.items()
        ]

    def find_spec(self, name):
        return "here" if self.has_runtime else None

    @property
    def has_runtime(self):
        return any(name.startswith("onnxruntime") for name in self.packages)

    def import_module(self, name):
        assert name == "onnxruntime"
        if not self.has_runtime:
            raise ModuleNotFoundError(name)
        if not self.loadable:
            raise ImportError("DLL load failed\nsecond line")
        return types.SimpleNamespace(
            get_available_providers=lambda: self.providers, preload_dlls=self._preload
        )

    def _preload(self):
        self.preloaded += 1


@pytest.fixture
def computer():
    return Computer()


@pytest.fixture(params=["5.10", "5.12"])
def installer(request, computer, monkeypatch):
    """An installer in the one or the other Slicer; only the newer one has slicer.packaging."""

    @contextmanager
    def wait_cursor():
        yield

    slicer = types.ModuleType("slicer")
    slicer.__path__ = []
    slicer.util = types.SimpleNamespace(
        confirmOkCancelDisplay=computer.confirm,
        pip_uninstall=computer.uninstall,
        mainWindow=lambda: object() if computer.has_window else None,
        WaitCursor=wait_cursor,
    )
    slicer.app = types.SimpleNamespace(testingEnabled=lambda: computer.testing)
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = str
    monkeypatch.setitem(sys.modules, "slicer", slicer)
    monkeypatch.setitem(sys.modules, "slicer.i18n", i18n)
    if request.param == "5.12":
        packaging = types.ModuleType("slicer.packaging")
        packaging.pip_install = computer.install
        monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    else:
        monkeypatch.delitem(sys.modules, "slicer.packaging", raising=False)
        slicer.util.pip_install = computer.install
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    path = "BoneSAM/BoneSAMPanel/runtime_install.py"
    spec = importlib.util.spec_from_file_location("runtime_install", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.importlib, "import_module", computer.import_module)
    monkeypatch.setattr(module.importlib.util, "find_spec", computer.find_spec)
    monkeypatch.setattr(module.importlib.metadata, "version", computer.version)
    monkeypatch.setattr(module.importlib.metadata, "distributions", computer.distributions)
    monkeypatch.setattr(module.platform, "system", lambda: "Windows")
    monkeypatch.setattr(module.platform, "machine", lambda: "AMD64")
    installer = module.RuntimeInstaller()
    installer.slicer_version = request.param
    return installer


def test_nothing_is_asked_where_it_is_installed(installer, computer):
    computer.packages["onnxruntime"] = "1.20.1"
    installer.ensure()
    installer.ensure()
    assert (computer.questions, computer.pip) == ([], [])


def test_asks_once_and_installs_it_alone(installer, computer):
    computer.answers = [True]
    installer.ensure()
    installer.ensure()
    assert len(computer.questions) == 1
    assert computer.pip == [["--no-deps", "--only-binary", ":all:", "onnxruntime>=1.20"]]
    assert computer.packages["numpy"] == "2.0.2"
    assert computer.requesters == (["BoneSAM"] if installer.slicer_version == "5.12" else [None])


def test_a_no_is_no_error_and_may_be_changed(installer, computer):
    computer.answers = [False, True]
    with pytest.raises(Cancelled):
        installer.ensure()
    assert computer.pip == []
    installer.ensure()
    assert len(computer.pip) == 1


def test_without_a_network_it_says_what_to_do(installer, computer):
    computer.answers, computer.failures = [True, True], [FAILED]
    with pytest.raises(BoneSAMError) as caught:
        installer.ensure()
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    for part in (
        "network",
        f"onnxruntime-...-{python}-...win...amd64.whl",
        "pip_install(['--no-deps'",
        "1.20",
    ):
        assert part in str(caught.value)
    installer.ensure()  # and it may be tried again


def test_an_old_one_is_updated(installer, computer):
    computer.packages["onnxruntime"], computer.answers = "1.9.2", [True]
    installer.ensure()
    assert computer.pip[0][-1] == "onnxruntime>=1.20"


def test_an_old_one_in_use_needs_a_restart(installer, computer, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    computer.packages["onnxruntime"], computer.answers = "1.9.2", [True]
    with pytest.raises(BoneSAMError, match="restart"):
        installer.ensure()


def test_the_gpu_build_is_not_replaced_by_the_cpu_build(installer, computer):
    computer.packages["onnxruntime-gpu"] = "1.22.0"
    computer.providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    installer.ensure()
    assert computer.pip == []
    assert computer.preloaded == 1


def test_what_somebody_built_is_kept(installer, computer):
    computer.packages["onnxruntime-rocm"] = "1.0"
    installer.ensure()
    assert computer.pip == []


def test_a_damaged_one_is_explained(installer, computer):
    computer.packages["onnxruntime"], computer.loadable = "1.22.0", False
    with pytest.raises(BoneSAMError, match=r"DLL load failed\).*--force-reinstall.*Visual C\+\+") as caught:
        installer.ensure()
    assert "second line" not in str(caught.value)


@pytest.mark.parametrize("change", [{"testing": True}, {"has_window": False}])
def test_where_nobody_answers_nothing_is_installed(installer, computer, change):
    vars(computer).update(change)
    with pytest.raises(BoneSAMError, match=r"slicer\.util\.pip_install"):
        installer.ensure()
    assert (computer.questions, computer.pip) == ([], [])


def test_events_handled_while_pip_runs_do_not_start_it_again(installer, computer):
    told = []

    def come_again():
        with pytest.raises(BoneSAMError, match="still being installed") as caught:
            installer.ensure()
        told.append(caught.value)
        with pytest.raises(BoneSAMError, match="still being installed"):
            installer.installGpuSupport()

    computer.answers, computer.during_pip = [True], come_again
    installer.ensure()
    assert len(told) == len(computer.pip) == 1


def test_gpu_support_replaces_the_runtime_and_changes_nothing_else(installer, computer):
    computer.packages["onnxruntime"], computer.answers = "1.22.0", [True]
    constraints = []

    def look():
        arguments = computer.pip[-1]
        with open(arguments[arguments.index("--constraint") + 1], encoding="utf-8") as file:
            constraints.append(file.read().split())

    computer.during_pip = look
    assert "CUDA" in installer.installGpuSupport()
    trial, removal, real = computer.pip
    assert trial[0] == "--dry-run"
    assert removal == ["uninstall", "onnxruntime"]
    assert trial[1:] == real
    assert real[-1] == "onnxruntime-gpu[cuda,cudnn]>=1.21"
    assert constraints == [["SimpleITK==2.5.0", "numpy==2.0.2"]] * 2
    assert "onnxruntime" not in computer.packages
    assert installer.installGpuSupport()  # there is nothing more to do
    assert len(computer.pip) == 3


@pytest.mark.parametrize(
    ("failures", "left"),
    [([FAILED], "1.22.0"), ([None, FAILED], "1.30.0"), ([None, OSError("full")], "1.30.0")],
)
def test_gpu_support_that_fails_leaves_the_cpu(installer, computer, failures, left):
    computer.packages["onnxruntime"], computer.answers = "1.22.0", [True]
    computer.failures = list(failures)
    with pytest.raises(BoneSAMError, match="Nothing was changed"):
        installer.installGpuSupport()
    assert computer.packages["onnxruntime"] == left
    assert "onnxruntime-gpu" not in computer.packages
    installer.ensure()


def test_gpu_support_that_loses_the_network_says_so(installer, computer):
    computer.packages["onnxruntime"], computer.answers = "1.22.0", [True]
    computer.failures = [None, FAILED, FAILED]
    with pytest.raises(BoneSAMError, match=r"removed meanwhile.*another computer"):
        installer.installGpuSupport()


def test_gpu_support_is_refused_before_anything_happens(installer, computer, monkeypatch):
    computer.packages["onnxruntime"], computer.answers = "1.22.0", [False]
    with pytest.raises(Cancelled):
        installer.installGpuSupport()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
        with pytest.raises(BoneSAMError, match="restart"):
            installer.installGpuSupport()
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(BoneSAMError, match="Mac"):
        installer.installGpuSupport()
    assert computer.pip == []


def test_a_prompt_waits_for_no_one_when_the_runtime_is_declined(installer, computer):
    """Through the presenter: declined, the box is gone and nothing is said; accepted, it is segmented."""
    computer.answers = [False, True]
    desk = Desk(prepare=installer.ensure).open()
    desk.presenter.set_box(BONE)
    desk.run()
    assert (desk.panel.box, desk.view.messages, desk.segmenter.asked) == (None, [], [])
    desk.presenter.set_box(BONE)
    desk.run()
    assert desk.view.mask is not None
    assert len(computer.questions) == 2


def test_a_failure_is_shown_once_and_nothing_is_lost(installer, computer):
    computer.answers, computer.failures = [True], [FAILED]
    desk = Desk(prepare=installer.ensure).open()
    desk.presenter.set_box(BONE)
    desk.run()
    assert len(desk.view.texts) == 1
    assert "could not be installed" in desk.view.texts[0]
    assert desk.panel.work is None
