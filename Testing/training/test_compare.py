"""Two evaluations of the same bones: means, paired differences, tests; and the configurations to compare."""

import json

import numpy as np
import pytest
import yaml

from BoneSAMLib.errors import BoneSAMError
from Testing.training.spheres import write_anatomy
from training import compare, cross_source
from training.compare import compared, markdown
from training.paired_test import holm, paired
from training.summary import BOX_3D, Row, write_rows


def rows(shift, sources=("s", "t"), cases=8):
    """Bones whose Dice is `shift` higher, more so in s."""
    rng = np.random.default_rng(0)
    found = []
    for source in sources:
        for case in range(cases):
            # No two cases gain the same, or their ranks would be tied.
            gain = shift * (2 if source == "s" else 1) * (0.8 + 0.4 * case / (cases - 1))
            dice = float(rng.uniform(0.5, 0.8)) + gain
            numbers = {"iou": 0.5, "precision": 1.0, "recall": 1.0, "hd95_mm": 1.0, "assd_mm": 1.0}
            found.append(
                Row(
                    f"{source}{case}", source, source, "femur", "femur", "femur", BOX_3D, "on", dice,
                    **numbers, nsd_2mm=1.0, empty="", confidence=0.9, seconds=1.0,
                )
            )  # fmt: skip
    return found


def test_paired_test_over_cases():
    better = [(str(case), 0.01 * (case + 1)) for case in range(10)]
    found = paired(better)
    assert found["p"] == pytest.approx(2 / 2**10)
    assert (found["cases"], found["better"], found["worse"]) == (10, 10, 0)
    mixed = paired([(str(case), (-1) ** case * 0.01) for case in range(10)])
    assert mixed["p"] > 0.5
    assert paired(better[:5])["p"] is None
    assert paired([(str(case), 0.0) for case in range(8)])["p"] == 1
    # Twenty bones of two scans are two cases.
    assert paired([(str(n % 2), 0.1) for n in range(20)])["p"] is None


def test_holm_multiplies_the_smallest_most():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": None})
    assert corrected == {
        "a": pytest.approx(0.03),
        "b": pytest.approx(0.06),
        "c": pytest.approx(0.06),
        "d": None,
    }


def test_differences_are_paired_by_bone():
    found = compared({"old": rows(0.0), "new": rows(0.05)})
    assert found["compared_with"] == "old"
    of_s, of_t = found["differences"]["new"]["s"], found["differences"]["new"]["t"]
    assert of_s["mean"] == pytest.approx(0.1)
    assert of_t["mean"] == pytest.approx(0.05)
    assert of_t["test"]["p"] == pytest.approx(2 / 2**8)
    assert of_t["test"]["p_holm"] == pytest.approx(4 / 2**8)
    assert "| t | 8 | 8 | +0.050 [+0.04" in markdown(found)
    assert "| 8, 0 | 0.016 |" in markdown(found)
    with pytest.raises(BoneSAMError, match="no rows of the protocol"):
        compared({"old": rows(0.0), "new": rows(0.0)}, "1 click")
    with pytest.raises(BoneSAMError, match="at least two"):
        compared({"old": rows(0.0)})


def test_command_writes_tables_and_a_curve_over_numbers(tmp_path, capsys):
    for name, shift in (("10", 0.0), ("50", 0.02), ("100", 0.04)):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "rows.csv", rows(shift))
    given = [
        str(tmp_path / "10"),
        str(tmp_path / "50"),
        f"100={tmp_path / '100'}",
        "--out",
        str(tmp_path / "c"),
    ]
    assert compare.main(given) == 0
    assert "100 minus 10" in capsys.readouterr().out
    assert json.loads((tmp_path / "c" / "comparison.json").read_text())["differences"]["50"]["s"]["n"] == 8
    assert (tmp_path / "c" / "comparison.html").read_text().count("data:image/png") == 2
    for name in ("matrix.png", "curve.png"):
        assert (tmp_path / "c" / name).read_bytes().startswith(b"\x89PNG")
    assert compare.main([str(tmp_path / "10"), str(tmp_path / "none")]) == 2
    assert "Cannot read" in capsys.readouterr().err
    assert compare.main([str(tmp_path / "10"), f"10={tmp_path}"]) == 2


def test_cross_source_configurations(tmp_path, capsys):
    store = tmp_path / "store"
    store.mkdir()
    write_anatomy(store)
    for source in ("spine", "hand"):
        facts = {"source": source, "kind": "image", "split": "train"}
        (store / f"{source}.json").write_text(json.dumps(facts))
    config = tmp_path / "config.yaml"
    config.write_text("phases: {a: {minutes: 3, mixture: {sources: {spine: 2.0}}}, b: {minutes: 1}}")
    out = tmp_path / "out"
    given = [str(config), "--store", str(store), "--data", "DATA", "--out", str(out)]
    assert cross_source.main([*given, "--kinds", "without,only,labels", "--minutes", "8"]) == 0
    left_out = yaml.safe_load((out / "without-spine.yaml").read_text())["phases"]
    assert left_out["a"]["mixture"]["sources"] == {"hand": 1.0, "spine": 0.0}
    assert (left_out["a"]["minutes"], left_out["b"]["minutes"]) == (6, 2)
    only = yaml.safe_load((out / "only-spine.yaml").read_text())["phases"]
    assert only["a"]["mixture"]["sources"] == {"hand": 0.0, "spine": 2.0}
    labels = yaml.safe_load((out / "labels-0.25.yaml").read_text())
    assert labels["supervision"]["labelled"] == 0.25
    script = (out / "commands.sh").read_text()
    assert script.count("training.train") == 8
    assert script.count("training.compare") == 3
    assert "0.25=" in script
    assert cross_source.main([*given, "--kinds", "all"]) == 2
    assert "Unknown kind" in capsys.readouterr().err
