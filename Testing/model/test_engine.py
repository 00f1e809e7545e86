"""A bundle runs alike in ONNX Runtime and in PyTorch, and is refused where it is not whole."""

import json
import os
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file, save_file

from BoneSAMLib.bundle import GRAPHS, MANIFEST, WEIGHTS, file_digest, open_bundle
from BoneSAMLib.engine import DEVICES, DecoderInputs, OnnxEngine
from BoneSAMLib.errors import BoneSAMError
from BoneSAMLib.model.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def engines(random_bundle):
    bundle = open_bundle(random_bundle)
    return OnnxEngine(bundle, "cpu"), TorchEngine(bundle, "cpu")


@pytest.fixture
def bundle_copy(random_bundle, tmp_path):
    """A bundle whose files may be replaced, but not written into."""
    return shutil.copytree(random_bundle, tmp_path / "weights", copy_function=os.link)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def change_manifest(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    replace(folder / MANIFEST, json.dumps(manifest | changes).encode())


def prompts(slices, count):
    """Points and labels: a box, clicks of both kinds, and padding, as many as asked for."""
    rng = np.random.default_rng(count)
    points = rng.uniform(40, 200, (slices, count, 3)).astype(np.float32)
    points[..., 2] = rng.uniform(-30, 30, (slices, count))
    labels = np.resize(np.array([2, 3, 1, 0, -1], np.int64), count)
    return points, np.tile(labels, (slices, 1))


# Batches of 1 and of 8 slices are what a session sends; others must work as well.
@pytest.mark.parametrize(("slices", "count"), [(1, 3), (3, 8), (9, 12)])
def test_both_engines_give_the_same_masks(engines, slices, count):
    rng = np.random.default_rng(slices)
    images = rng.random((slices, 3, 256, 256), np.float32)
    attention = rng.random((slices, 2, 64, 64), np.float32)
    masks = rng.normal(0, 4, (slices, 1, 64, 64)).astype(np.float32)
    use = (np.arange(slices) % 2).astype(np.float32)
    answers = []
    for engine in engines:
        embedding, skip = engine.encode(images)
        assert embedding.shape == (slices, 128, 64, 64)
        assert skip.shape == (slices, 32, 128, 128)
        kinds = np.arange(slices, dtype=np.int64)
        inputs = DecoderInputs(embedding, skip, attention, use, *prompts(slices, count), masks, kinds)
        answers.append(engine.decode(inputs))
    (logits, iou), (other_logits, other_iou) = answers
    assert logits.shape == (slices, 4, 128, 128)
    assert iou.shape == (slices, 4)
    assert logits.std() > 0.1
    assert np.abs(logits - other_logits).max() < 1e-2
    assert np.abs(iou - other_iou).max() < 1e-3
    clear = np.abs(logits) > 1e-3
    assert clear.mean() > 0.99
    assert np.array_equal((logits > 0)[clear], (other_logits > 0)[clear])


@pytest.mark.parametrize("count", [1, 2])
def test_both_engines_attend_alike(engines, count):
    cubes = np.random.default_rng(0).random((count, 2, 64, 64, 64), np.float32)
    answer, other = (engine.attend(cubes) for engine in engines)
    assert answer.shape == cubes.shape
    assert 0 <= answer.min() < answer.max() <= 1
    assert np.abs(answer - other).max() < 1e-3


def test_every_answer_is_float32(engines):
    for engine in engines:
        embedding, skip = engine.encode(np.zeros((1, 3, 256, 256), np.float32))
        assert (embedding.dtype, skip.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("kind", [OnnxEngine, TorchEngine])
def test_an_unknown_device_is_refused(random_bundle, kind):
    with pytest.raises(BoneSAMError, match="Unknown device 'tpu': use one of auto, cpu, cuda"):
        kind(open_bundle(random_bundle), "tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", [OnnxEngine, TorchEngine])
def test_without_a_cuda_device_auto_is_the_cpu_and_cuda_is_refused(random_bundle, monkeypatch, kind):
    bundle = open_bundle(random_bundle)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert kind(bundle, "auto").device == "cpu"
    with pytest.raises(BoneSAMError, match="No CUDA device can be used"):
        kind(bundle, "cuda")
    assert DEVICES == ("auto", "cpu", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_an_onnxruntime_with_cuda_on_a_machine_without(random_bundle, monkeypatch):
    """onnxruntime-gpu names its CUDA provider wherever it is installed."""
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    engine = OnnxEngine(open_bundle(random_bundle), "auto")
    engine.encode(np.zeros((1, 3, 256, 256), np.float32))
    assert engine.device == "cpu"
    engine = OnnxEngine(open_bundle(random_bundle), "cuda")
    with pytest.raises(BoneSAMError, match="No CUDA device can be used"):
        engine.encode(np.zeros((1, 3, 256, 256), np.float32))


def test_a_whole_bundle_says_what_it_is(random_bundle):
    bundle = open_bundle(str(random_bundle))
    assert bundle.name == "random"
    assert bundle.digest == file_digest(random_bundle / WEIGHTS)


def test_a_folder_without_weights(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BoneSAMError, match=r"no weights in .*manifest.json is missing.*install BoneSAM"):
            open_bundle(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"format": 1, "files": "none"}', b"\xff\xfe"])
def test_an_unreadable_manifest(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(BoneSAMError, match=r"manifest '.*' cannot be read"):
        open_bundle(tmp_path)


def test_another_format(bundle_copy):
    change_manifest(bundle_copy, format=1)
    with pytest.raises(BoneSAMError, match=r"have format 1, this version reads format 2: export them again"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", [*(f"{part}.onnx" for part in GRAPHS), WEIGHTS])
def test_a_missing_file(bundle_copy, name):
    (bundle_copy / name).unlink()
    with pytest.raises(BoneSAMError, match=rf"weights file '.*{name}' is missing"):
        open_bundle(bundle_copy)


def test_a_file_that_the_manifest_does_not_name(bundle_copy):
    files = json.loads((bundle_copy / MANIFEST).read_text())["files"]
    change_manifest(bundle_copy, files={name: digest for name, digest in files.items() if name != WEIGHTS})
    with pytest.raises(BoneSAMError, match="is missing"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", ["decoder.onnx", WEIGHTS])
def test_a_damaged_file(bundle_copy, name):
    content = bytearray((bundle_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    replace(bundle_copy / name, bytes(content))
    with pytest.raises(BoneSAMError, match=rf"weights file '.*{name}' is damaged"):
        open_bundle(bundle_copy)


def test_a_file_that_is_no_network(bundle_copy):
    replace(bundle_copy / "encoder.onnx", b"no network")
    files = json.loads((bundle_copy / MANIFEST).read_text())["files"]
    digest = file_digest(bundle_copy / "encoder.onnx")
    change_manifest(bundle_copy, files=files | {"encoder.onnx": digest})
    engine = OnnxEngine(open_bundle(bundle_copy), "cpu")
    with pytest.raises(BoneSAMError, match=r"network '.*encoder.onnx' cannot be loaded: "):
        engine.encode(np.zeros((1, 3, 256, 256), np.float32))


def test_weights_of_another_network(bundle_copy):
    state = load_file(bundle_copy / WEIGHTS)
    state["encoder.surplus.weight"] = state.pop("encoder.neck.weight")
    (bundle_copy / WEIGHTS).unlink()
    save_file(state, bundle_copy / WEIGHTS)
    files = json.loads((bundle_copy / MANIFEST).read_text())["files"]
    change_manifest(bundle_copy, files=files | {WEIGHTS: file_digest(bundle_copy / WEIGHTS)})
    with pytest.raises(BoneSAMError, match=r"are of another network: .*encoder.neck.weight"):
        TorchEngine(open_bundle(bundle_copy), "cpu")


def test_a_network_of_another_width(bundle_copy):
    change_manifest(bundle_copy, dim=64)
    with pytest.raises(BoneSAMError, match="are of another network: "):
        TorchEngine(open_bundle(bundle_copy), "cpu")
