"""Volumes that do not fit are refused by their header, and the run goes on."""

import gzip
import struct

import numpy as np
import pytest

from BoneSAMLib.batch import BatchPrompts, find_cases, memory, run_batch
from BoneSAMLib.errors import BoneSAMError
from Testing.lib.batch_scans import write_scan, write_series
from Testing.lib.bright_segmenter import BrightSegmenter

HUGE = (30000, 20000, 10000)  # 6 TB of voxels; none of the files has them
GIGABYTE = 1_000_000_000


def huge_nifti(path):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *HUGE, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<4s", header, 344, b"n+1")
    path.write_bytes(gzip.compress(bytes(header) + bytes(1000)))


def huge_nrrd(path):
    sizes = " ".join(map(str, HUGE))
    header = f"NRRD0005\ntype: uint8\ndimension: 3\nsizes: {sizes}\nspacings: 1 1 1\nencoding: raw\n\n"
    path.write_bytes(header.encode() + bytes(1000))


def huge_metaimage(path):
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", f"DimSize = {' '.join(map(str, HUGE))}"]
    lines += ["ElementSpacing = 1 1 1", "ElementType = MET_UCHAR", "ElementDataFile = LOCAL", ""]
    path.write_bytes("\n".join(lines).encode() + bytes(1000))


def huge_series(path):
    write_series(path, Rows=60000, Columns=60000)


FILES = {"huge.nii.gz": huge_nifti, "huge.nrrd": huge_nrrd, "huge.mha": huge_metaimage, "huge": huge_series}


@pytest.mark.parametrize("name", FILES)
def test_huge_volume_is_refused_and_stops_no_other(tmp_path, name):
    write_scan(tmp_path / "in" / "good.nii.gz")
    FILES[name](tmp_path / "in" / name)
    cases = find_cases(tmp_path / "in", tmp_path / "out", BatchPrompts(everything=True))
    outcome = run_batch(
        cases, tmp_path / "out", workers=0, memory=2 * GIGABYTE, make_segmenter=BrightSegmenter
    )
    endings = {one.case.name: one.ending for one in outcome.outcomes}
    assert endings == {"good": "done", "huge": "failed"}
    message = outcome.failed[0].error
    assert "is too large: its " in message
    assert "a volume may take 2.0 GB here" in message
    assert message.endswith("use fewer workers.")
    assert not (tmp_path / "out" / "huge.seg.nrrd").exists()


def test_refusal_keeps_the_mask_of_an_earlier_run(tmp_path):
    write_scan(tmp_path / "in" / "a.nii.gz")
    cases = find_cases(tmp_path / "in", tmp_path / "out", BatchPrompts(everything=True))
    run_batch(cases, tmp_path / "out", workers=0, make_segmenter=BrightSegmenter)
    mask = (tmp_path / "out" / "a.seg.nrrd").read_bytes()
    huge_nifti(tmp_path / "in" / "a.nii.gz")
    outcome = run_batch(cases, tmp_path / "out", workers=0, memory=GIGABYTE, make_segmenter=BrightSegmenter)
    assert "too large" in outcome.failed[0].error
    assert (tmp_path / "out" / "a.seg.nrrd").read_bytes() == mask


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float64])
def test_need_is_told_by_the_header(tmp_path, name, kind):
    path = write_scan(tmp_path / name, np.zeros((5, 40, 30), kind))
    needed = memory.needed_memory(6000, np.dtype(kind).itemsize)
    memory.check_memory(path, needed)
    with pytest.raises(BoneSAMError, match="30 x 40 x 5 voxels"):
        memory.check_memory(path, needed - 1)


def test_need_of_a_series_counts_its_slices(tmp_path):
    path = min(write_series(tmp_path / "p").iterdir())
    for one in (path, path.parent):
        with pytest.raises(BoneSAMError, match="20 x 24 x 6 voxels"):
            memory.check_memory(one, memory.needed_memory(20 * 24 * 6, 2) - 1)


def test_rescaled_values_take_more(tmp_path):
    path = write_scan(tmp_path / "a.nii", np.zeros((5, 40, 30), np.uint8))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, 2.0, 1.0)
    path.write_bytes(content)
    with pytest.raises(BoneSAMError):
        memory.check_memory(path, memory.needed_memory(6000, 4) - 1)


def test_damaged_header_is_left_to_the_reader(tmp_path):
    for name in ("a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.dcm"):
        (tmp_path / name).write_bytes(b"\x1f\x8bnothing")
        memory.check_memory(tmp_path / name, 1)


def system(folder, **files):
    for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   8000 kB\n", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_job_of_a_cluster_leaves_less(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path)
    system(tmp_path)
    assert memory.available_memory() == 8000 * 1024
    job = "sys/fs/cgroup/slurm/job_7"
    system(tmp_path, **{"proc/self/cgroup": "0::/slurm/job_7/step_0\n", f"{job}/memory.max": "5000000"})
    system(tmp_path, **{f"{job}/memory.current": "3000000", f"{job}/memory.stat": "anon 1\nfile 500000\n"})
    assert memory.available_memory() == 2500000
    system(tmp_path, **{f"{job}/memory.max": "max"})
    assert memory.available_memory() == 8000 * 1024


def test_first_version_of_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path)
    job = "sys/fs/cgroup/memory/job_7"
    system(tmp_path, **{"proc/self/cgroup": "4:memory:/job_7\n3:cpu:/\n"})
    system(tmp_path, **{f"{job}/memory.limit_in_bytes": "3000000", f"{job}/memory.usage_in_bytes": "1000000"})
    system(tmp_path, **{f"{job}/memory.stat": "total_cache 0\n"})
    assert memory.available_memory() == 2000000


def test_memory_is_shared_among_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("BoneSAMLib.batch.batch_run.available_memory", lambda: GIGABYTE)
    write_scan(tmp_path / "in" / "a.nii.gz")
    cases = find_cases(tmp_path / "in", tmp_path / "out", BatchPrompts(everything=True))
    outcome = run_batch(cases, tmp_path / "out", workers=2, make_segmenter=BrightSegmenter)
    assert "a volume may take 0.5 GB here" in outcome.failed[0].error


def test_too_little_memory_is_refused(tmp_path):
    write_scan(tmp_path / "in" / "a.nii.gz")
    cases = find_cases(tmp_path / "in", tmp_path / "out", BatchPrompts(everything=True))
    with pytest.raises(BoneSAMError, match="at least 1 GB"):
        run_batch(cases, tmp_path / "out", workers=0, memory=12, make_segmenter=BrightSegmenter)
