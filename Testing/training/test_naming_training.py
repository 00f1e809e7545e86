"""From a store of two thighs to a bundle that answers as torch does; losses of the naming network."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from BoneSAMLib.bone_kinds import KINDS, LEFT, NUMBER
from BoneSAMLib.bone_scan import ScanGrid, scan_on, spacing_channel
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.bonesam import fuse_norms
from BoneSAMLib.model.naming import NamingNetwork
from BoneSAMLib.naming_engine import NamingEngine
from BoneSAMLib.volume import Volume
from Testing.training.named_bodies import write_bodies
from training.naming import cubes
from training.naming import train as naming_train
from training.naming.cubes import NO_SIDE, UNKNOWN
from training.naming.export import export_naming
from training.naming.train import losses, train

FEMUR, TIBIA, RIB = (1 + KINDS.index(kind) for kind in ("femur", "tibia", "rib"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three steps, one of which was made after a pause, and what was known before it."""
    folder = tmp_path_factory.mktemp("naming")
    store, out = write_bodies(folder / "store"), folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cubes, "SIZE", 16)
        patch.setattr(naming_train, "BATCH", 2)
        clock = iter(range(0, 10_000, 20))  # a step takes 20 s
        patch.setattr(naming_train, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
        train(store, out, 0.9, 1e-3, 1.0, 0)
        before = load_file(out / "model.safetensors")
        first = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
        train(store, out, 1.3, 1e-3, 1.0, 0)
    return SimpleNamespace(folder=folder, out=out, store=store, before=before, first=first)


@pytest.fixture(scope="module")
def bundle(run):
    export_naming(run.out / "ema.safetensors", run.folder / "bundle")
    return run.folder / "bundle"


def test_a_run_goes_on_where_it_was(run):
    last = json.loads((run.out / "log.jsonl").read_text().splitlines()[-1])
    assert run.first["step"] == 2
    assert last["step"] == 3
    assert last["minutes"] > run.first["minutes"]
    assert {"kind", "side", "right", "found", "side_right"} <= set(last)
    assert "number" not in last  # femurs stand in no row
    after = load_file(run.out / "model.safetensors")
    changes = [float((after[name] - run.before[name]).abs().max()) for name in ("head.weight", "head.bias")]
    assert 0 < max(changes) < 0.1
    assert all(torch.isfinite(tensor.float()).all() for tensor in after.values())


def test_a_store_without_named_bones(tmp_path):
    store = write_bodies(tmp_path / "store")
    file = store / "body.json"
    file.write_text(file.read_text().replace("femur", "thing"))
    with pytest.raises(BoneSAMError, match="no volume with named bones"):
        train(store, tmp_path / "out", 1, 1e-3, 1.0, 0)


@pytest.mark.parametrize("shape", [(48, 32, 16), (16, 16, 16)])
def test_the_bundle_answers_as_torch_does(bundle, shape):
    values = np.random.default_rng(0).integers(-200, 1200, (20, 20, 20)).astype(np.int16)
    volume = Volume(values, np.diag([3.0, 3.0, 3.0, 1.0]), modality="CT")
    grid = ScanGrid(2.0, (60.0, 55.0, 0.0), shape)
    answer = NamingEngine("cpu", 1, bundle).answer(volume, grid)
    model = NamingNetwork()
    fuse_norms(model)
    model.load_state_dict({name: t.float() for name, t in load_file(bundle / "weights.safetensors").items()})
    scan = scan_on(volume, grid)
    assert scan.std() > 0.05
    inputs = np.stack([scan, np.full_like(scan, spacing_channel(2.0))])[None]
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs))[0].numpy()
    assert answer.shape == (len(KINDS) + 3, *shape)
    assert expected.std() > 0.01
    assert np.abs(answer - expected).max() < 1e-3


def test_a_long_body_is_seen_in_blocks(bundle, monkeypatch):
    from BoneSAMLib import naming_engine

    volume = Volume(
        np.random.default_rng(0).integers(-200, 1200, (60, 8, 8)).astype(np.int16),
        np.diag([2.0, 2.0, 6.0, 1.0]), modality="CT",
    )  # fmt: skip
    grid = ScanGrid(2.0, (16.0, 16.0, 0.0), (176, 16, 16))
    engine = NamingEngine("cpu", 1, bundle)
    whole = engine.answer(volume, grid)
    lengths = []
    answer_block = engine._run
    monkeypatch.setattr(naming_engine, "MOST_CELLS", 96 * 16 * 16)
    monkeypatch.setattr(
        engine, "_run", lambda inputs: lengths.append(inputs.shape[2]) or answer_block(inputs)
    )
    parts = engine.answer(volume, grid)
    assert lengths == [96, 96, 96]
    assert parts.shape == whole.shape
    assert np.abs(parts[:, :48] - whole[:, :48]).mean() < 0.02 * whole.std()
    assert np.abs(parts - whole).mean() < 0.05 * whole.std()


def test_no_checkpoint(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(BoneSAMError, match="no checkpoint of the naming network"):
        export_naming(tmp_path / "bad.safetensors", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


# ------------------------------------------------------------------------------------------------- losses


def batch_of(kind, number=0, side=NO_SIDE, complete=()):
    """One cube whose halves are background and `kind`."""
    kinds = torch.zeros((1, 4, 4, 4), dtype=torch.uint8)
    kinds[:, 2:] = kind
    known = torch.zeros((1, NUMBER), dtype=torch.bool)
    known[:, list(complete)] = True
    numbers = torch.where(kinds > 0, number, 0).to(torch.uint8)
    sides = torch.where(kinds > 0, side, NO_SIDE).to(torch.uint8)
    return {"kind": kinds, "number": numbers, "side": sides, "complete": known}


def answer(kind, number=0.0, left=0.0, logit=20.0):
    """The outputs for such a cube."""
    outputs = torch.zeros((1, NUMBER + 2, 4, 4, 4))
    outputs[:, 0, :2] = logit
    outputs[:, kind, 2:] = logit
    outputs[:, NUMBER, 2:] = number / 10
    outputs[:, LEFT, 2:] = left
    return outputs.requires_grad_()


def test_perfect_answers_cost_nothing():
    loss, facts = losses(answer(RIB, 7, 20.0), batch_of(RIB, 7, 1))
    assert float(loss) < 1e-4
    assert (facts["right"], facts["found"], facts["side_right"]) == (1, 1, 1)
    for wrong in (answer(FEMUR, 7, 20.0), answer(RIB, 9, 20.0), answer(RIB, 7, -20.0)):
        assert float(losses(wrong, batch_of(RIB, 7, 1))[0]) > 0.01  # a number has a small share


def test_voxels_that_nobody_knows_do_not_count():
    outputs = answer(FEMUR)
    loss, facts = losses(outputs, batch_of(UNKNOWN))
    loss.backward()
    assert not outputs.grad[:, :, 2:].any()
    assert "excluded" not in facts


def test_kinds_that_are_annotated_are_not_in_the_rest():
    unknown = batch_of(UNKNOWN, complete=[FEMUR])
    assert float(losses(answer(TIBIA), unknown)[0]) < 1e-4
    for logit in (2.0, 20.0):  # the surer it is, the more it has to learn
        outputs = answer(FEMUR, logit=logit)
        loss, facts = losses(outputs, unknown)
        loss.backward()
        assert facts["excluded"] > 0.1
        assert (outputs.grad[:, FEMUR, 2:] > 1e-4).all()
    assert facts["excluded"] > 10
    background = batch_of(UNKNOWN, complete=[0])
    assert "excluded" not in losses(answer(FEMUR), background)[1]
