"""Every kernel of mlgpu compiles for every architecture, without warnings or spills.

By default each template is compiled for the older of the two kinds of architecture that the sources
know: in every dtype where the source asks which it is, else in the half types, whose headers ask,
and in one of the other dtypes.  One instance is looked at for registers on a newer one, which
changes from source to source.  Which one of those that kernels/instances.txt lists, changes too.
MLGPU_KERNELS_ALL=1 compiles and looks at all for all (hours of one core).
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence

import pytest

from mlgpu.cuda import instances, toolkit
from mlgpu.cuda.resources import compile_together, resources, together
from mlgpu.cuda.signature import with_includes
from mlgpu.cuda.sources import kernels_dir
from mlgpu.errors import MissingExtraError

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
IN_EVERY_DTYPE = ("sm_75",)  # of the other kind, the tests on devices run them
HALVES = ("__half", "__nv_bfloat16")
ALL = os.environ.get("MLGPU_KERNELS_ALL", "") not in ("", "0")
LISTED = instances.read(instances.shipped())

# Kernels that may keep something in local memory, as patterns, each with the reason.
ALLOWED = {
    "double": "its numbers take two registers each, and it is there for gradient checks",
    "ml_logsumexp<ml_complex": "32 bytes, for sines of large angles, which CUDA's own code needs",
    "gemm_simt<long long": "12 bytes of 128 registers; more of these would halve the occupancy",
    "resample_apply<long long": "20 bytes of 64 registers",
    "radix_pass<long long": "8 bytes of 64 registers on sm_90; more would halve the occupancy",
}

# Kernels that the runs of collect.py do not reach, since nothing has values in them: T is a dtype,
# and W what it is computed in.
UNREACHED = ("softmax masked_softmax_rows<T, bool, 4, 1, 32, false>",
             "softmax masked_softmax_long<T, T, 4, true>", "softmax softmax_parts<T, W, 4>",
             "softmax softmax_pieces<T, W, 4, true>", "cross_entropy weight_sums<T, W>",
             "components components_measure", "mask coordinates",
             "morphology morphology_take<T, unsigned char>", "nms nms_mask<T, W>",
             "optimizer advance", "optimizer grads_unscale<T>",
             "pool pool_choose<T, long long, 2>", "random random_advance", "random random_place",
             "random random_check<T>", "resample resample_divided<T, T, W>")
DTYPES = {"float": "float", "__half": "float", "__nv_bfloat16": "float", "double": "double"}


def unreached() -> Iterator[instances.Instance]:
    for line, (dtype, wide) in itertools.product(UNREACHED, DTYPES.items()):
        family, _, name = re.sub(r"\bW\b", wide, re.sub(r"\bT\b", dtype, line)).partition(" ")
        yield instances.Instance(f"{family}.cu", (name,))


KNOWN = sorted({*LISTED, *unreached()}, key=lambda instance: (instance.filename, instance.names))
FAMILIES = sorted({i.filename for i in KNOWN})


def template(instance: instances.Instance) -> str:
    """The name of an instance's kernel."""
    return instance.names[0].partition("<")[0].strip()


TYPE = re.compile(r"\b(__half|__nv_bfloat16|double|float|bool|ml_complex<\w+>"
                  r"|((un)?signed )?(char|short|int|long long))(?![\w*])")


def in_dtype(instance: instances.Instance) -> tuple[str, str]:
    """The name of its kernel, and the first type that it is an instance for."""
    found = TYPE.search(instance.names[0].partition("<")[2])
    return template(instance), found[0] if found else ""


def asks(family: str) -> bool:
    """Whether a source, with what it includes, depends on the architecture."""
    return "__CUDA_ARCH__" in with_includes(kernels_dir() / family)


def in_half_types(instance: instances.Instance) -> tuple[str, str]:
    """As `in_dtype`, with the other types as one."""
    name, dtype = in_dtype(instance)
    return name, dtype if dtype in HALVES else ""


def sample(members: Sequence[instances.Instance], arch: str,
           kind: Callable[[instances.Instance], object]) -> list[instances.Instance]:
    """One of each kind, another one for each architecture."""
    place = ARCHS.index(arch)
    groups: dict[object, list[instances.Instance]] = {}
    for instance in members:
        groups.setdefault(kind(instance), []).append(instance)
    return [group[(place * len(group) // len(ARCHS) + place) % len(group)]
            for group in groups.values()]


def chosen(family: str, arch: str) -> list[instances.Instance]:
    """The instances of a file to compile for an architecture."""
    members = [i for i in KNOWN if i.filename == family]
    if ALL:
        return members
    kind = in_dtype if asks(family) else in_half_types
    return sample(members, arch, kind if arch in IN_EVERY_DTYPE else template)


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
    assert {template(i) for i in KNOWN if i.filename == family} == declared(
        with_includes(kernels_dir() / family))


def test_sources_know_two_kinds_of_architecture():
    """So that what compiles for one of each compiles for all."""
    known = {found for path in kernels_dir().glob("*.cu*")
             for found in re.findall(r"__CUDA_ARCH__[^\n]*", path.read_text())}
    assert known == {"__CUDA_ARCH__ >= 800"}


@pytest.mark.parametrize("arch", IN_EVERY_DTYPE)
@pytest.mark.parametrize("family", FAMILIES)
def test_they_compile_without_warnings(family, arch):
    for part in together(chosen(family, arch)):
        assert compile_together(part, arch).log == ""


def looked_at() -> Iterator[tuple[str, str]]:
    """Files and architectures: by default one of the newer, in turn."""
    turns = itertools.cycle([arch for arch in ARCHS if arch not in IN_EVERY_DTYPE])
    for family in FAMILIES:
        for arch in ARCHS if ALL else [next(turns)]:
            yield family, arch


@pytest.mark.parametrize(("family", "arch"), list(looked_at()))
def test_they_compile_without_warnings_and_keep_all_in_registers(family, arch):
    for part in together(chosen(family, arch)):
        made = compile_together(part, arch)
        assert made.log == ""
        try:
            taken = resources(part, arch, made)
        except MissingExtraError as missing:
            pytest.skip(str(missing))
        if arch not in IN_EVERY_DTYPE:  # the bar is for newer ones
            assert [row for row in taken if row.spills or row.local
                    if not any(re.search(pattern, row.kernel) for pattern in ALLOWED)] == []


def test_the_sample_has_every_template_in_every_dtype_that_matters():
    assert {in_dtype(i) for i in LISTED if template(i) == "softmax_rows"} >= {
        ("softmax_rows", name) for name in ("float", "__half", "__nv_bfloat16", "double")}
    for family, arch in itertools.product(FAMILIES, IN_EVERY_DTYPE):
        wanted = {in_dtype(i) for i in KNOWN if i.filename == family}
        found = {in_dtype(i) for i in chosen(family, arch)}
        assert found == wanted if asks(family) or ALL else found <= wanted
        assert found >= {(name, dtype) for name, dtype in wanted if dtype in HALVES}
        assert {name for name, _ in found} == {name for name, _ in wanted}
