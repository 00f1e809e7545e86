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
from BoneSAMLib.model.folded_unet import fold
from BoneSAMLib.model.naming import NamingNetwork, joined
from BoneSAMLib.naming_engine import NamingEngine
from BoneSAMLib.volume import Volume
from Testing.training.named_bodies import write_bodies
from training.label_places import NO_SIDE, UNKNOWN
from training.naming import cubes
from training.naming import train as naming_train
from training.naming.export import export_naming
from training.naming.train import REST_SHARE, draw_cells, losses, train

FEMUR, TIBIA, RIB = (1 + KINDS.index(kind) for kind in ("femur", "tibia", "rib"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three steps, one of which was made after a pause, and what was known before it."""
    folder = tmp_path_factory.mktemp("naming")
    store, out = write_bodies(folder / "store"), folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cubes, "SIZE", 32)
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


@pytest.mark.parametrize("shape", [(48, 32, 16), (32, 16, 16)])
def test_the_bundle_answers_as_torch_does(bundle, shape):
    values = np.random.default_rng(0).integers(-200, 1200, (20, 20, 20)).astype(np.int16)
    volume = Volume(values, np.diag([3.0, 3.0, 3.0, 1.0]), modality="CT")
    grid = ScanGrid(2.0, (60.0, 55.0, 0.0), shape)
    answer = NamingEngine("cpu", 1, bundle).answer(volume, grid)
    model = NamingNetwork().eval()
    model.load_state_dict({name: t.float() for name, t in load_file(bundle / "weights.safetensors").items()})
    scan = scan_on(volume, grid)
    assert scan.std() > 0.05
    inputs = np.stack([scan, np.full_like(scan, spacing_channel(2.0))])[None]
    with torch.no_grad():
        there, mirrored = (model(torch.from_numpy(x.copy()))[0].numpy() for x in (inputs, inputs[..., ::-1]))
    mirrored = mirrored[..., ::-1].copy()
    mirrored[LEFT] *= -1
    expected = (there + mirrored) / 2
    assert np.abs(expected - there).max() > 1e-2
    assert answer.shape == (len(KINDS) + 3, *shape)
    assert expected.std() > 0.01
    assert np.abs(answer - expected).max() < 1e-3


def test_a_mirrored_scan_has_the_mirrored_answer(bundle):
    engine = NamingEngine("cpu", 1, bundle)
    inputs = np.random.default_rng(0).random((1, 2, 32, 16, 16), np.float32)
    answer, mirrored = engine._run(inputs), engine._run(inputs[..., ::-1])[..., ::-1].copy()
    mirrored[LEFT] *= -1
    assert answer[LEFT].std() > 1e-3
    assert np.abs(answer - mirrored).max() < 1e-4


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


def drawn(kind, number=0, side=NO_SIDE, complete=()):
    """2x2x2 cells of one cube: half background, half `kind`."""
    kinds = torch.zeros((64, 8), dtype=torch.uint8)
    kinds[32:] = kind
    known = torch.zeros((1, NUMBER), dtype=torch.bool)
    known[:, list(complete)] = True
    one = kinds[:, 0]
    return {
        "kinds": kinds,
        "kind": one,
        "number": torch.where(one > 0, number, 0).to(torch.uint8),
        "side": torch.where(one > 0, side, NO_SIDE).to(torch.uint8),
        "scan": torch.zeros(64, dtype=torch.long),
        "stands_for": torch.ones(64),
        "complete": known,
    }


def answer(kind, number=0.0, left=0.0, logit=20.0):
    """What is answered for such cells, before a gradient."""
    bone, which = torch.zeros((64, 8)), torch.zeros((64, NUMBER + 1))
    bone[:32], bone[32:] = -logit, logit
    if kind:
        which[32:, kind - 1] = logit
    which[32:, NUMBER - 1] = number / 10
    which[32:, LEFT - 1] = left
    return bone.requires_grad_(), which.requires_grad_()


def test_perfect_answers_cost_nothing():
    loss, facts = losses(*answer(RIB, 7, 20.0), drawn(RIB, 7, 1))
    assert loss.detach() < 1e-4
    assert (facts["right"], facts["found"], facts["precise"], facts["side_right"]) == (1, 1, 1, 1)
    for wrong in (answer(FEMUR, 7, 20.0), answer(RIB, 9, 20.0), answer(RIB, 7, -20.0)):
        assert losses(*wrong, drawn(RIB, 7, 1))[0].detach() > 0.01  # a number has a small share
    bone, which = answer(RIB, 7, 20.0)
    for wrong in (-bone, torch.full_like(bone, 20.0), torch.full_like(bone, -20.0)):
        assert losses(wrong, which, drawn(RIB, 7, 1))[0].detach() > 0.3


def test_voxels_that_nobody_knows_do_not_count():
    bone, which = answer(FEMUR)
    loss, facts = losses(bone, which, drawn(UNKNOWN))
    loss.backward()
    assert not bone.grad[32:].any()
    assert which.grad is None or not which.grad[32:].any()
    assert not {"excluded", "kind"} & set(facts)


def test_kinds_that_are_annotated_are_not_in_the_rest():
    unknown = drawn(UNKNOWN, complete=[FEMUR])
    assert losses(*answer(TIBIA), unknown)[1]["excluded"] < 1e-4
    for logit in (2.0, 20.0):  # the surer it is, the more it has to learn
        bone, which = answer(FEMUR, logit=logit)
        loss, facts = losses(bone, which, unknown)
        loss.backward()
        assert facts["excluded"] > 0.1
        assert (which.grad[32:, FEMUR - 1] > 1e-4).all()
    assert facts["excluded"] > 10
    background = drawn(UNKNOWN, complete=[0])
    assert "excluded" not in losses(*answer(FEMUR), background)[1]


def test_small_kinds_are_learned_beside_large_ones():
    many = drawn(FEMUR)
    many["kinds"][63], many["kind"][63] = RIB, RIB
    bone, which = answer(0)
    losses(bone, which, many)[0].backward()
    femurs = -which.grad[32:63, FEMUR - 1].sum()
    rib = -which.grad[63, RIB - 1]
    assert 0.1 * femurs < rib < femurs


def test_what_the_loss_is_taken_of():
    kinds = torch.zeros((2, 4, 4, 4), dtype=torch.uint8)
    kinds[0, 1, 2, 3] = FEMUR  # corner 5 of the 2x2x2 at (0, 1, 1), the fourth
    kinds[1, :2] = UNKNOWN
    numbers = torch.arange(128, dtype=torch.uint8).reshape(2, 4, 4, 4)
    batch = {"kind": kinds, "number": numbers, "side": numbers, "complete": torch.ones(2, NUMBER)}
    counts = np.zeros(16)
    for seed in range(400):
        found = draw_cells(batch, np.random.default_rng(seed))
        cells = found["cells"].tolist()
        counts[cells] += 1
        assert 3 in cells
        assert found["scan"].tolist() == [cell // 8 for cell in cells]
        bone = [cell == 3 for cell in cells]
        assert found["stands_for"].tolist() == pytest.approx([1 if b else 1 / REST_SHARE for b in bone])
        assert found["kinds"][bone].tolist() == [[0, 0, 0, 0, 0, FEMUR, 0, 0]]
        for key in ("number", "side"):
            assert found[key][bone].tolist() == [numbers[0, 1, 2, 3]]
        unknown = [8 <= cell < 12 for cell in cells]
        assert (found["kinds"][unknown] == UNKNOWN).all()
        assert (found["kind"][unknown] == UNKNOWN).all()
    assert counts[3] == 400
    assert np.delete(counts, 3) / 400 == pytest.approx(np.full(15, REST_SHARE), abs=0.08)


def test_the_loss_sees_what_use_sees():
    network = NamingNetwork().eval()
    scan = torch.rand((2, 2, 32, 32, 32), generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([0, 77, 4100, 8191])
    with torch.no_grad():
        everywhere = fold(network(scan)[:, :1]).transpose(0, 1).flatten(1)[:, cells].T
        bone, which = network.at_cells(scan, cells)
        torch.testing.assert_close(-bone, everywhere, rtol=1e-4, atol=1e-5)
        # Which bone is interpolated between the 2x2x2: the same where it is the same all around.
        outputs = joined(bone[:, :1], which)
        assert outputs.shape == (4, NUMBER + 2)
        probability = outputs[:, :NUMBER].softmax(1)
        torch.testing.assert_close(1 - probability[:, 0], bone[:, 0].sigmoid(), rtol=1e-4, atol=1e-5)


def test_background_that_was_left_out_counts():
    few, all_of_it = drawn(RIB, 7, 1), drawn(RIB, 7, 1)
    for key in ("kinds", "kind", "number", "side", "scan"):
        few[key] = torch.cat([few[key][:8], few[key][32:]])
    few["stands_for"] = torch.cat([torch.full((8,), 4.0), torch.ones(32)])
    outputs = answer(RIB, 7, 20.0, logit=1.0)
    part = [torch.cat([each[:8], each[32:]]) for each in outputs]
    assert float(losses(*part, few)[0]) == pytest.approx(float(losses(*outputs, all_of_it)[0]), rel=1e-5)
