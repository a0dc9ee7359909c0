"""The cache on disk: whole entries or none, whatever happens to the folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlgpu.cuda import cache

KEY = cache.key("ptx", "source", b"header")


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MLGPU_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(root):
    return [p for p in root.rglob("*") if p.is_file() and p.name != "pruned"]


def test_a_value_comes_back_in_another_process():
    cache.put(KEY, b"\0value")
    code = f"from mlgpu.cuda import cache; print(cache.get({KEY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(b"\0value")
    assert cache.get(cache.key("ptx", "other")) is None


def test_keys_tell_parts_apart():
    keys = [cache.key("ptx", "ab", "c"), cache.key("ptx", "a", "bc"), cache.key("ptx", "abc"),
            cache.key("ptx", "abc", ""), cache.key("module", "ab", "c")]
    assert len(set(keys)) == len(keys)
    assert cache.key("ptx", "é", "\udcff") == cache.key("ptx", "é".encode(), b"\xff")


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1], lambda data: data[:5], lambda data: b"",
    lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_a_damaged_entry_is_missing_and_written_again(root, damage):
    cache.put(KEY, b"a value of some length")
    (entry,) = entries(root)
    entry.write_bytes(damage(entry.read_bytes()))
    assert cache.get(KEY) is None
    cache.put(KEY, b"again")
    assert cache.get(KEY) == b"again"
    assert entries(root) == [entry]


def test_an_entry_under_another_name_is_missing(root):
    cache.put(KEY, b"value")
    other = cache.key("ptx", "other")
    cache.put(other, b"other")
    first, second = sorted(entries(root))
    second.write_bytes(first.read_bytes())
    assert sorted([cache.get(KEY) or b"", cache.get(other) or b""])[0] == b""


def test_an_empty_setting_switches_it_off(monkeypatch, root):
    monkeypatch.setenv("MLGPU_CACHE_DIR", "")
    cache.put(KEY, b"value")
    assert cache.get(KEY) is None
    assert not root.exists()
    assert cache.folder() is None


def test_the_folder_is_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("MLGPU_CACHE_DIR")
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache.folder() == tmp_path / "mlgpu"
    monkeypatch.delenv(variable)
    assert cache.folder() == Path.home() / ".cache" / "mlgpu"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions as of POSIX")
def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("MLGPU_CACHE_DIR", str(blocked / "cache"))
    cache.put(KEY, b"value")
    assert cache.get(KEY) is None
    assert blocked.read_text() == "no folder"


def test_a_failed_write_leaves_nothing(root, monkeypatch):
    cache.put(KEY, b"value")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:3])
        raise OSError("no space")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put(KEY, b"newer")
    assert cache.get(KEY) == b"value"
    assert len(entries(root)) == 1


def test_old_entries_go_and_read_ones_stay(root):
    old, read = cache.key("ptx", "old"), cache.key("ptx", "read")
    for name in (old, read):
        cache.put(name, b"value")
    left = root / "ptx" / "00" / "dead.tmp"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    for path in [*entries(root), root / "pruned"]:
        os.utime(path, (0, time.time() - 100 * 86400))
    assert cache.get(read) == b"value"  # which marks it as in use
    cache.put(KEY, b"new")
    assert cache.get(old) is None
    assert cache.get(read) == b"value"
    assert not left.exists()


def test_many_processes_write_the_same_entries():
    code = """
from mlgpu.cuda import cache
for i in range(200):
    name = cache.key("ptx", str(i % 5))
    cache.put(name, str(i % 5).encode() * 5000)
    value = cache.get(name)
    assert value == str(i % 5).encode() * 5000, (i, value)
"""
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
