"""Saving is atomic: an error or a kill at any moment leaves the old file whole."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time

import pytest

import mlgpu
from mlgpu.io.atomic import replace_file

needs_posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files and signals")


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "checkpoint.safetensors"
    mlgpu.save({"step": 0}, target)
    return target


def only(path):
    return [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_error_leaves_the_old_file_and_nothing_else(path, monkeypatch, failing):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space"):
        mlgpu.save({"step": 1, "x": mlgpu.ones(10)}, path)
    monkeypatch.undo()
    assert mlgpu.load(path) == {"step": 0}
    assert only(path)


def test_an_interrupt_leaves_the_old_file_and_nothing_else(path):
    with pytest.raises(KeyboardInterrupt), replace_file(path) as file:  # noqa: PT012
        file.write(b"half")
        raise KeyboardInterrupt
    assert mlgpu.load(path) == {"step": 0}
    assert only(path)


@needs_posix
def test_data_is_on_the_disk_before_the_name_is(path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        calls.append((f"fsync {kind}", os.fstat(descriptor).st_size if kind == "file" else None))
        fsync(descriptor)

    def note_replace(source, target):
        calls.append(("replace", os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    mlgpu.save(mlgpu.ones(1000), path)
    size = path.stat().st_size
    assert calls == [("fsync file", size), ("replace", size), ("fsync directory", None)]


@needs_posix
def test_permissions_and_links_stay(path, tmp_path):
    path.chmod(0o640)
    link = tmp_path / "latest"
    link.symlink_to(path.name)
    mlgpu.save("new", link)
    assert link.is_symlink()
    assert mlgpu.load(path) == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    fresh = tmp_path / "fresh"
    mlgpu.save("x", fresh)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o666 & ~umask


@needs_posix
def test_devices_and_directories_are_not_replaced(tmp_path):
    for target in (os.devnull, tmp_path):
        with pytest.raises(OSError, match="no regular file"):
            mlgpu.save(1, target)
    with pytest.raises(FileNotFoundError):
        mlgpu.save(1, tmp_path / "none" / "x")


SAVER = """
import sys, mlgpu
path, step = sys.argv[1], 0
while True:
    step += 1
    mlgpu.save({"step": step, "x": mlgpu.full((200_000,), float(step))}, path)
    if step == 1:  # however slow the machine, the kill comes amid the saves that follow
        print("ready", flush=True)
"""


@needs_posix
def test_a_kill_at_any_moment_leaves_a_whole_file(path):
    source = os.path.dirname(os.path.dirname(mlgpu.__file__))
    last, delays = 0, random.Random(0)
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", SAVER, str(path)], stdout=subprocess.PIPE,
                                 env={**os.environ, "PYTHONPATH": source})
        with child:
            child.stdout.readline()
            time.sleep(0.01 + 0.05 * delays.random())
            child.send_signal(signal.SIGKILL)
        found = mlgpu.load(path)
        last = max(last, found["step"])
        if found["step"]:
            assert found["x"].tolist() == [float(found["step"])] * 200_000
    assert last > 0
