"""The command line and what it knows of the machine."""

from __future__ import annotations

import json
import subprocess
import sys

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


def test_gpus_are_reported_with_a_reason_where_there_are_none():
    found = info.collect()
    assert found.gpus or found.gpu_note


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
