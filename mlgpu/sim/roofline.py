"""How long a launch would take at least on a described GPU: an estimate, not a measurement.

Each resource alone needs some time for what the launch asks of it; the longest is a bound, reached
only by a kernel that keeps that resource busy all the time.  Latency, launch overhead and cache
bandwidth are left out, and PTX instructions stand for those of the machine.

Peak rates are those of the data sheets, dense (without structured sparsity), at boost clock:
"NVIDIA A100 Tensor Core GPU" and "NVIDIA H100 Tensor Core GPU" data sheets with the Ampere and
Hopper architecture white papers; "NVIDIA L4 Tensor Core GPU" data sheet; "NVIDIA Ada GPU
Architecture" white paper, appendix A (RTX 4090; rates of tensor cores with sums in FP32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlgpu.sim.errors import SimError
from mlgpu.sim.metrics import Metrics


@dataclass(frozen=True)
class Device:
    """Peak rates of a GPU: operations a second (a multiply-add is two), bytes a second."""

    name: str
    source: str
    sms: int
    clock: float  # Hz, boost
    dram: float  # bytes a second
    l2_bytes: int
    fp16: float  # half precision outside tensor cores
    fp32: float
    fp64: float
    tensor: Mapping[str, float]  # source type -> operations a second


@dataclass(frozen=True)
class Estimate:
    """Seconds that each resource needs at least, and the longest of them."""

    device: str
    seconds: float
    limiter: str
    bounds: Mapping[str, float]  # resource -> seconds, the longest first
    left_out: tuple[str, ...] = ()  # tensor-core types for which the device has no rate

    def __str__(self) -> str:
        head = (f"estimate for {self.device} (roofline; not a measurement): at least "
                f"{_time(self.seconds)}, bound by {self.limiter}")
        lines = [head]
        lines += [f"  estimate  {name:28} {_time(seconds):>10}  "
                  f"{100 * seconds / self.seconds if self.seconds else 0:5.1f} %"
                  for name, seconds in self.bounds.items()]
        lines += [f"  estimate  without {kind} tensor operations: the device has no rate for them"
                  for kind in self.left_out]
        return "\n".join(lines)


_T, _G, _MIB = 1e12, 1e9, 1024**2

DEVICES = {device.name: device for device in (
    Device("A100-SXM4-80GB", "NVIDIA A100 Tensor Core GPU data sheet; Ampere white paper",
           sms=108, clock=1.410 * _G, dram=2039 * _G, l2_bytes=40 * _MIB,
           fp16=78 * _T, fp32=19.5 * _T, fp64=9.7 * _T,
           tensor={"fp64": 19.5 * _T, "tf32": 156 * _T, "fp16": 312 * _T, "bf16": 312 * _T,
                   "int8": 624 * _T, "int4": 1248 * _T, "int1": 4992 * _T}),
    Device("H100-SXM5-80GB", "NVIDIA H100 Tensor Core GPU data sheet; Hopper white paper",
           sms=132, clock=1.980 * _G, dram=3350 * _G, l2_bytes=50 * _MIB,
           fp16=133.8 * _T, fp32=66.9 * _T, fp64=33.5 * _T,
           tensor={"fp64": 66.9 * _T, "tf32": 494.7 * _T, "fp16": 989.4 * _T, "bf16": 989.4 * _T,
                   "fp8": 1978.9 * _T, "int8": 1978.9 * _T}),
    Device("L4", "NVIDIA L4 Tensor Core GPU data sheet; Ada white paper",
           sms=58, clock=2.040 * _G, dram=300 * _G, l2_bytes=48 * _MIB,
           fp16=30.3 * _T, fp32=30.3 * _T, fp64=30.3 * _T / 64,
           tensor={"tf32": 60 * _T, "fp16": 121 * _T, "bf16": 121 * _T, "fp8": 242.5 * _T,
                   "int8": 242.5 * _T, "int4": 485 * _T}),
    Device("RTX 4090", "NVIDIA Ada GPU Architecture white paper, appendix A",
           sms=128, clock=2.520 * _G, dram=1008 * _G, l2_bytes=72 * _MIB,
           fp16=82.6 * _T, fp32=82.6 * _T, fp64=82.6 * _T / 64,
           tensor={"tf32": 82.6 * _T, "fp16": 165.2 * _T, "fp16 summed in fp16": 330.3 * _T,
                   "bf16": 165.2 * _T, "fp8": 330.3 * _T, "int8": 660.6 * _T,
                   "int4": 1321.2 * _T}),
)}

# What tensor cores were asked for -> whose rate counts.
_TENSOR = {
    "sm__ops_path_tensor_op_hmma_src_fp16_dst_fp16.sum": "fp16 summed in fp16",
    "sm__ops_path_tensor_op_hmma_src_fp16_dst_fp32.sum": "fp16",
    "sm__ops_path_tensor_src_bf16_dst_fp32.sum": "bf16",
    "sm__ops_path_tensor_src_tf32_dst_fp32.sum": "tf32",
    "sm__ops_path_tensor_src_fp64.sum": "fp64",
    "sm__ops_path_tensor_src_fp8.sum": "fp8",
    "sm__ops_path_tensor_src_int8.sum": "int8",
    "mlgpu__ops_tensor_src_int4.sum": "int4",
    "sm__ops_path_tensor_src_int1.sum": "int1",
}


def find(name: str) -> Device:
    """The device of a name or the beginning of one ("H100").  SimError where there is none."""
    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    found = [d for d in DEVICES.values() if plain(name) and plain(d.name).startswith(plain(name))]
    if len(found) != 1:
        raise SimError(f"device {name!r}: described are {', '.join(DEVICES)}")
    return found[0]


def estimate(device_name: str, metrics: Mapping[str, float]) -> Estimate:
    """How long a launch with these counters (`report.metrics`) takes at least, an estimate.

    Counters that are missing count as zero.  A grid of fewer blocks than the device has
    multiprocessors has only those to compute on.
    """
    device, counted = find(device_name), Metrics(metrics)

    def total(*names: str) -> float:
        return sum(counted.get(name, 0.0) for name in names)

    def flops(letter: str) -> float:
        # An addition takes the place of a multiply-add, so each counts as the two of its peak.
        return 2 * total(*(f"smsp__sass_thread_inst_executed_op_{letter}{op}_pred_on.sum"
                           for op in ("add", "mul", "fma")))

    blocks = total("launch__grid_size") or device.sms
    used = min(1.0, blocks / device.sms)  # of the multiprocessors: those that have a block
    cycles = device.sms * device.clock * used
    tensor, left_out = 0.0, []
    for name, kind in _TENSOR.items():
        rate = device.tensor.get(kind) or device.tensor.get(kind.split()[0])
        if rate:
            tensor += total(name) / (rate * used)
        elif total(name):
            left_out.append(kind)
    wavefronts = "l1tex__data_pipe_lsu_wavefronts_mem_shared"
    bounds = {
        "DRAM bytes": total("dram__bytes_read.sum", "dram__bytes_write.sum") / device.dram,
        "FP32 operations": flops("f") / (device.fp32 * used),
        "FP64 operations": flops("d") / (device.fp64 * used),
        "FP16 operations": flops("h") / (device.fp16 * used),
        "tensor operations": tensor,
        # A multiprocessor passes over its banks once a cycle; its 4 schedulers issue once each.
        "shared-memory wavefronts": (total("memory_l1_wavefronts_shared") or total(
            *(f"{wavefronts}_op_{op}.sum" for op in ("ld", "st", "atom")))) / cycles,
        "issue slots": total("smsp__inst_executed.sum") / (4 * cycles),
    }
    ordered = dict(sorted(bounds.items(), key=lambda bound: -bound[1]))
    limiter = next(iter(ordered))
    return Estimate(device.name, ordered[limiter], limiter, ordered, tuple(left_out))


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
