"""The command line and what it knows of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from mlgpu import cli, info
from mlgpu.errors import MissingExtraError
from mlgpu.extras import require


def test_info_prints_versions_devices_and_features(capsys):
    assert cli.main(["info"]) == 0
    text = capsys.readouterr().out
    for word in ("numpy", "BLAS", "threads", "cpu", "CUDA", "active"):
        assert word in text


def test_info_json_is_the_same(capsys):
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["python"] == sys.version.split()[0]
    assert all(f["active"] or f["reason"] for f in found["features"])


def test_module_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "mlgpu", "--version"], capture_output=True,
                          text=True, check=True)
    assert done.stdout.startswith("mlgpu ")


class NVMLError(Exception):
    """As pynvml's."""


@pytest.fixture
def nvml(monkeypatch):
    """A driver with one GPU, in place of pynvml; `silence` names queries that it refuses."""
    fake = ModuleType("pynvml")
    answers = {"nvmlInit": None, "nvmlShutdown": None, "nvmlDeviceGetCount": 1,
               "nvmlSystemGetDriverVersion": "580.65", "nvmlDeviceGetHandleByIndex": "handle",
               "nvmlDeviceGetName": "NVIDIA H100", "nvmlDeviceGetTemperature": 41,
               "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=2**30, total=80 * 2**30),
               "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=7)}
    fake.calls = []

    def query(name):
        def answer(*arguments):
            fake.calls.append(name)
            if name in fake.silence:
                raise NVMLError("Not Supported")
            return answers[name]

        return answer

    for name in answers:
        setattr(fake, name, query(name))
    fake.silence, fake.answers = set(), answers
    fake.NVMLError, fake.NVML_TEMPERATURE_GPU = NVMLError, 0
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_gpus_are_reported_by_pynvml(nvml):
    found = info.collect()
    assert found.gpus == [info.Gpu(0, "NVIDIA H100", "580.65", 2**30, 80 * 2**30, 7, 41)]
    assert found.gpu_note == ""
    assert ("GPU 0: NVIDIA H100, driver 580.65, 1.00 GiB of 80.00 GiB used, 7 % busy, 41 °C"
            in info.text(found))
    assert nvml.calls[-1] == "nvmlShutdown"


@pytest.mark.parametrize(("query", "shown"), [
    ("nvmlDeviceGetUtilizationRates", "unknown % busy"),
    ("nvmlDeviceGetTemperature", "unknown °C"),
    ("nvmlDeviceGetMemoryInfo", "memory unknown"),
    ("nvmlDeviceGetName", "unknown name"),
    ("nvmlSystemGetDriverVersion", "driver unknown"),
    ("nvmlDeviceGetHandleByIndex", "unknown name, driver 580.65, memory unknown"),
])
def test_what_the_driver_does_not_answer_is_unknown(nvml, query, shown):
    nvml.silence.add(query)
    text = info.text(info.collect())
    assert shown in text
    assert text.count("unknown") <= 5
    assert nvml.calls[-1] == "nvmlShutdown"


def test_names_may_be_bytes(nvml):
    nvml.answers["nvmlDeviceGetName"] = b"Tesla T4"
    assert info.collect().gpus[0].name == "Tesla T4"


@pytest.mark.parametrize(("query", "reason"), [
    ("nvmlInit", "no NVIDIA driver answers: Not Supported"),
    ("nvmlDeviceGetCount", "the driver does not count its GPUs: Not Supported"),
])
def test_a_driver_that_is_not_there_is_a_reason(nvml, query, reason):
    nvml.silence.add(query)
    found = info.collect()
    assert not found.gpus
    assert reason in info.text(found)


def test_no_gpu_is_a_reason(nvml):
    nvml.answers["nvmlDeviceGetCount"] = 0
    assert info.collect().gpu_note == "the driver reports no GPU"


def test_without_pynvml_the_reason_names_the_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'mlgpu[cuda12]'" in info.collect().gpu_note


def test_an_unknown_blas_is_the_one_numpy_was_built_with(monkeypatch):
    import threadpoolctl

    monkeypatch.setattr(threadpoolctl, "threadpool_info", list)
    (blas,) = info.collect().blas
    assert blas.name
    assert blas.threads is None
    assert "unknown threads" in info.text(info.collect())


def test_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["fly"])
    assert stopped.value.code == 2
    assert "fly" in capsys.readouterr().err


def test_missing_extra_names_the_install():
    with pytest.raises(MissingExtraError, match=r"pip install 'mlgpu\[examples\]'"):
        require("no_such_module_anywhere", "examples", "a feature")
    with pytest.raises(ImportError):
        require("no_such_module_anywhere.sub", "examples", "a feature")
    assert require("json", "examples", "a feature") is json
