"""Every kernel of mlgpu compiles for every architecture, without warnings or spills.

By default one instance of each template is compiled for each architecture, another one for each;
MLGPU_KERNELS_ALL=1 compiles all that kernels/instances.txt lists for all (an hour of one core).
"""

from __future__ import annotations

import os
import re

import pytest

from mlgpu.cuda import instances, toolkit
from mlgpu.cuda.resources import compile_together, resources, together
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import MissingExtraError

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
ALL = os.environ.get("MLGPU_KERNELS_ALL", "") not in ("", "0")
LISTED = instances.read(instances.shipped())
FAMILIES = sorted({i.filename for i in LISTED})

# Kernels that may keep something in local memory, as patterns, each with the reason.
ALLOWED = {
    "double": "its numbers take two registers each, and it is there for gradient checks",
    "long long|ml_complex": "wide numbers, of which products and sums are no hot path",
    # With 255 registers, some bytes outside the inner loop's accumulators.  To be improved.
    r"attention_(forward|backward)<\w+, bool, (64|96|128|256),": "16 to 84 bytes, with a mask",
}

# Kernels that the runs of collect.py do not reach, since nothing has values in them.
UNLISTED = {*(("softmax.cu", name) for name in ("masked_softmax_rows", "masked_softmax_long",
                                                "softmax_parts", "softmax_pieces")),
            ("cross_entropy.cu", "weight_sums"), ("mask.cu", "coordinates"),
            ("optimizer.cu", "grads_unscale"), ("pool.cu", "pool_choose"),
            ("random.cu", "random_check"), ("random.cu", "random_place"),
            ("random.cu", "random_advance"), ("optimizer.cu", "advance"),
            ("resample.cu", "resample_divided")}


def template(instance: instances.Instance) -> str:
    """The name of an instance's kernel."""
    return instance.names[0].partition("<")[0].strip()


def chosen(family: str, arch: str) -> list[instances.Instance]:
    """The instances of a file to compile for an architecture."""
    members = [i for i in LISTED if i.filename == family]
    if ALL:
        return members
    place = ARCHS.index(arch)
    groups = [[i for i in members if template(i) == name]
              for name in dict.fromkeys(map(template, members))]
    return [group[(place * len(group) // len(ARCHS) + place) % len(group)] for group in groups]


@pytest.fixture(scope="module", autouse=True)
def compiler():
    try:
        toolkit.nvrtc()
    except MissingExtraError as missing:
        pytest.skip(str(missing))


def declared(text: str) -> set[str]:
    """The names of a source's kernels."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
    bounds = r"(?:\s*__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\))?"
    return set(re.findall(rf"__global__{bounds}\s+void{bounds}\s+(\w+)\s*\(", text))


@pytest.mark.parametrize("family", sorted(path.name for path in kernels_dir().glob("*.cu")))
def test_every_kernel_is_listed(family):
    """tests/kernels/collect.py makes the list; to be run again when kernels came or went."""
    there = {template(i) for i in LISTED if i.filename == family}
    names = declared((kernels_dir() / family).read_text())
    assert not there - names
    assert not names - there - {name for other, name in UNLISTED if other == family}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_they_compile_without_warnings_and_keep_all_in_registers(family, arch):
    for part in together(chosen(family, arch)):
        made = compile_together(part, arch)
        assert made.log == ""
        try:
            taken = resources(part, arch, made)
        except MissingExtraError as missing:
            pytest.skip(str(missing))
        if arch != "sm_75":  # the bar is for newer ones
            assert [row for row in taken if row.spills or row.local
                    if not any(re.search(pattern, row.kernel) for pattern in ALLOWED)] == []
