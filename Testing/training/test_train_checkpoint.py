"""A checkpoint is whole or not there, wherever its writing stops."""

import json
import resource
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from BoneSAMLib.errors import BoneSAMError
from training import checkpoint
from training.checkpoint import finish_saving, read_state, save_checkpoint

NAMES = ("model.safetensors", "optimizer.pt")


def writers(number, length=4):
    tensors = {"x": torch.full((length,), float(number))}
    return {
        "model.safetensors": lambda path: save_file(tensors, path),
        "optimizer.pt": lambda path: torch.save(tensors, path),
    }


def numbers(out):
    """What each file says once a run goes on; None where there is no checkpoint."""
    finish_saving(out)
    state = read_state(out)
    if state is None:
        return None
    model = load_file(out / "model.safetensors")["x"][0]
    moments = torch.load(out / "optimizer.pt", weights_only=True)["x"][0]
    return {state["step"], int(model), int(moments)}


def test_a_checkpoint_is_read_as_written(tmp_path):
    assert numbers(tmp_path) is None
    save_checkpoint(tmp_path, writers(3), {"step": 3})
    assert numbers(tmp_path) == {3}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NAMES, "state.json"])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("had_one", [True, False])
@pytest.mark.parametrize("place", range(12))
def test_a_process_killed_anywhere_while_saving_leaves_one_whole_checkpoint(
    tmp_path, monkeypatch, place, had_one
):
    """Killed before the `place`-th change on the disk: a file's writing, half of it, or a renaming."""
    if had_one:
        save_checkpoint(tmp_path, writers(1), {"step": 1})
    changes = 0

    def count():
        nonlocal changes
        changes += 1
        if changes > place:
            raise Killed

    def slow(write):
        def writing(path):
            count()
            path.write_bytes(b"half of it")
            count()
            write(path)

        return writing

    rename = checkpoint.Path.replace

    def renaming(self, target):
        count()
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Path, "replace", renaming)
        try:
            save_checkpoint(tmp_path, {k: slow(w) for k, w in writers(2).items()}, {"step": 2})
            died = False
        except Killed:
            died = True
    assert died == (place < 8)
    # State is renamed to say that all are whole (5th change), and from then on the new one counts.
    expected = {2} if place >= 5 else {1} if had_one else None
    assert numbers(tmp_path) == expected
    finish_saving(tmp_path)
    assert not list(tmp_path.glob("*.part"))
    save_checkpoint(tmp_path, writers(4), {"step": 4})
    assert numbers(tmp_path) == {4}


def test_who_only_reads_touches_nothing(tmp_path):
    save_checkpoint(tmp_path, writers(1), {"step": 1})
    for name in ("model.safetensors.part", "film.mp4.part"):
        (tmp_path / name).write_bytes(b"being written")
    assert read_state(tmp_path) == {"step": 1}
    assert (tmp_path / "model.safetensors.part").exists()
    finish_saving(tmp_path)
    assert not (tmp_path / "model.safetensors.part").exists()
    assert (tmp_path / "film.mp4.part").exists()  # nobody's but a browser's


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    """The system itself refuses to write on: files may not grow beyond a megabyte."""
    save_checkpoint(tmp_path, writers(1), {"step": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(BoneSAMError, match=r"cannot be written .* before it is whole: make room"):
            save_checkpoint(tmp_path, writers(2, 1_000_000), {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert numbers(tmp_path) == {1}
    assert not list(tmp_path.glob("*.part"))


def test_a_disk_that_is_nearly_full_is_told_before_anything_is_written(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, writers(1), {"step": 1})
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=10))
    with pytest.raises(BoneSAMError, match=r"0 MB are free and .* MB are needed"):
        save_checkpoint(tmp_path, {"model.safetensors": lambda path: pytest.fail("written")}, {"step": 2})
    assert numbers(tmp_path) == {1}


def test_a_state_that_is_no_state_is_named(tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(BoneSAMError, match=r"state of the training in .* cannot be read"):
        read_state(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"step": 1}))
    assert read_state(tmp_path) == {"step": 1}
