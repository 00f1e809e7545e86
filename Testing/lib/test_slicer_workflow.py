"""The workflow that runs BoneSAMTest in 3D Slicer: what it names exists. Running it needs a network."""

import re
import shutil
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "slicer.yml"
JOB = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["slicer"]
SCRIPT = "\n".join(step.get("run", "") for step in JOB["steps"])


def test_supported_versions_are_tested_from_checkout_and_installed():
    matrix = JOB["strategy"]["matrix"]
    assert {version.rpartition(".")[0] for version in matrix["version"]} >= {"5.10", "5.12"}
    assert matrix["layout"] == ["checkout", "installed"]


def test_only_the_preview_may_fail():
    assert JOB["continue-on-error"] == "${{ matrix.version == 'preview' }}"


def test_a_failing_slicer_fails_the_step():
    """The default shell ignores a failure before a pipe."""
    defaults = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["defaults"]
    assert defaults["run"]["shell"] == "bash"


def test_what_it_names_exists():
    named = re.findall(r"(?<![\w/$.])(?:BoneSAM|Testing)/[\w./]+", SCRIPT)
    assert "BoneSAM/Resources/requirements.txt" in named
    for name in [*named, "Testing/cmake/SlicerConfig.cmake"]:
        assert (ROOT / name).exists(), name
    assert "runUnitTest(['$MODULE'], 'BoneSAM')" in SCRIPT


def test_its_commands_are_commands():
    bash = shutil.which("bash")
    assert bash is not None
    for step in JOB["steps"]:
        if "run" in step:
            text = re.sub(r"\$\{\{.*?\}\}", "value", step["run"])
            done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_log_is_read_for_what_unittest_says():
    """With the very patterns, on logs as unittest writes them."""
    patterns = re.findall(r'grep --quiet (?:--extended-regexp )?"(.*?)" slicer\.log', SCRIPT)
    assert len(patterns) == 2

    def passes(log):
        return all(re.search(pattern, log, re.MULTILINE) for pattern in patterns)

    assert passes("Ran 9 tests in 80.1s\n\nOK\n")
    assert not passes("Ran 9 tests in 80.1s\n\nFAILED (failures=1)\n")
    assert not passes("Ran 0 tests in 0.0s\n\nOK\n")
    assert not passes("Segmentation fault\n")
