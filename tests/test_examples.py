"""The examples: they run, they resume bit for bit, they survive being killed, they stop cleanly."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mlgpu

pytest.importorskip("tqdm", reason="the examples need the extra mlgpu[examples]")
pytest.importorskip("matplotlib", reason="the examples need the extra mlgpu[examples]")

EXAMPLES = Path(__file__).parent.parent / "examples"
TINY = ("--device cpu --dim 16 --heads 2 --layers 1 --context 16 --batch 4 --dropout 0.1 "
        "--val-every 20 --val-batches 2 --save-every 3").split()


def gpt(out: Path, *options: str, steps: int = 40, text: Path | None = None) -> list[str]:
    source = ["--text", str(text)] if text else []
    return [sys.executable, str(EXAMPLES / "train_gpt.py"), *TINY, "--steps", str(steps),
            "--out", str(out), *source, *options]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text("".join(f"def f{i}(x):\n    return x + {i}\n\n" for i in range(400)))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, text):
    """An uninterrupted run: its output and its losses."""
    out = tmp_path_factory.mktemp("whole")
    done = subprocess.run(gpt(out, text=text), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, mlgpu.load(out / "checkpoint.safetensors")["losses"], out


def test_gpt_trains_validates_samples_and_draws(whole):
    output, losses, out = whole
    assert "bigram entropy" in output
    assert "validation loss" in output
    assert "def " in output
    assert losses[-1] < losses[0]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_killed_at_any_moment_resumes_bit_for_bit(whole, text, tmp_path):
    """SIGKILL at random moments; the checkpoint always loads and the losses come out the same."""
    clock = random.Random(0)
    checkpoint = tmp_path / "checkpoint.safetensors"
    kills = 0
    for _ in range(6):
        resume = ["--resume"] if checkpoint.exists() else []
        process = subprocess.Popen(gpt(tmp_path, *resume, text=text), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        before = checkpoint.stat().st_mtime_ns if resume else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline and not (
                checkpoint.exists() and checkpoint.stat().st_mtime_ns != before):
            time.sleep(0.005)
        time.sleep(clock.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        finished = process.wait() == 0
        assert mlgpu.load(checkpoint)["step"] > 0
        if finished:
            break
        kills += 1
    done = subprocess.run(gpt(tmp_path, "--resume", text=text), capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    assert mlgpu.load(checkpoint)["losses"] == whole[1]


def test_ctrl_c_saves_and_leaves_cleanly(whole, text, tmp_path):
    process = subprocess.Popen(gpt(tmp_path, text=text, steps=100_000), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume continues" in output
    saved = mlgpu.load(tmp_path / "checkpoint.safetensors")
    assert f"stopped at step {saved['step']};" in output


def test_resume_of_another_shape_is_refused(whole, text, tmp_path):
    done = subprocess.run(gpt(whole[2], "--resume", "--dim", "32", text=text), capture_output=True,
                          text=True, check=False)
    assert done.returncode != 0
    assert "is of a run with" in done.stderr


def test_digits_reach_the_accuracy():
    pytest.importorskip("sklearn", reason="the digits need the extra mlgpu[examples]")
    done = subprocess.run([sys.executable, str(EXAMPLES / "train_digits.py"), "--device", "cpu",
                           "--seeds", "0", "--epochs", "8"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    mean = float(done.stdout.rsplit(":", 1)[1].strip().rstrip("%"))
    assert mean > 98.0, done.stdout
