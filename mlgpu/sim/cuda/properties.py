"""What a simulated device tells of itself: cudaDeviceProp and the attributes of cudaDeviceAttr.

The architecture's limits are sim/arch.py's; clocks, bus and what the table there does not have are
of the card that it names (NVIDIA's data sheets).  Sizes of textures are those of "Technical
Specifications per Compute Capability" in the CUDA C++ Programming Guide.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.sim.arch import Arch


class Card(NamedTuple):
    """What a data sheet says of a card."""

    clock: int  # kHz
    memory_clock: int  # kHz
    bus: int  # bits
    double_ratio: int  # float32 operations for each of float64
    engines: int = 3  # copies at once
    ecc: int = 1


CARDS = {"T4": Card(1_590_000, 5_001_000, 256, 32), "A100": Card(1_410_000, 1_215_000, 5120, 2),
         "A10": Card(1_695_000, 6_251_000, 384, 32), "L4": Card(2_040_000, 6_251_000, 192, 64),
         "H100 SXM": Card(1_980_000, 2_619_000, 5120, 2),
         "B200": Card(1_965_000, 3_996_000, 8192, 2),
         "RTX 5090": Card(2_407_000, 14_001_000, 512, 64, engines=1, ecc=0)}


def name(arch: Arch) -> str:
    """The device's name, which says what it is."""
    return f"Simulated {arch.card} (sm_{arch.capability[0]}{arch.capability[1]})"


def properties(arch: Arch, device: int, memory: int, version: int) -> dict[str, Any]:
    """cudaDeviceProp as CuPy gives it, for a CUDA version such as 12090."""
    card = CARDS[arch.card]
    major, minor = arch.capability
    result: dict[str, Any] = {
        "name": name(arch).encode(), "totalGlobalMem": memory,
        "sharedMemPerBlock": arch.shared_per_block, "regsPerBlock": arch.registers_per_block,
        "warpSize": arch.warp_size, "maxThreadsPerBlock": arch.max_threads_per_block,
        "maxThreadsDim": arch.max_block, "maxGridSize": arch.max_grid,
        "totalConstMem": arch.constant_bytes, "major": major, "minor": minor,
        "textureAlignment": 512, "texturePitchAlignment": 32, "multiProcessorCount": arch.sms,
        "integrated": 0, "canMapHostMemory": 1,
        "maxTexture1D": 131072, "maxTexture2D": (131072, 65536),
        "maxTexture3D": (16384, 16384, 16384), "concurrentKernels": 1, "ECCEnabled": card.ecc,
        "pciBusID": device + 1, "pciDeviceID": 0, "pciDomainID": 0, "tccDriver": 0,
        "memoryBusWidth": card.bus, "l2CacheSize": arch.l2_bytes,
        "maxThreadsPerMultiProcessor": arch.threads_per_sm, "isMultiGpuBoard": 0,
        "cooperativeLaunch": 1,
        "maxTexture1DMipmap": 32768, "maxTexture1DLayered": (32768, 2048),
        "maxTexture2DMipmap": (32768, 32768), "maxTexture2DLinear": (131072, 65000, 2097120),
        "maxTexture2DLayered": (32768, 32768, 2048), "maxTexture2DGather": (32768, 32768),
        "maxTexture3DAlt": (8192, 8192, 32768), "maxTextureCubemap": 32768,
        "maxTextureCubemapLayered": (32768, 2046), "maxSurface1D": 32768,
        "maxSurface1DLayered": (32768, 2048), "maxSurface2D": (131072, 65536),
        "maxSurface2DLayered": (32768, 32768, 1048576), "maxSurface3D": (16384, 16384, 16384),
        "maxSurfaceCubemap": 32768, "maxSurfaceCubemapLayered": (32768, 2046),
        "surfaceAlignment": 512, "asyncEngineCount": card.engines, "unifiedAddressing": 1,
        "streamPrioritiesSupported": 1, "globalL1CacheSupported": 1, "localL1CacheSupported": 1,
        "sharedMemPerMultiprocessor": arch.shared_per_sm,
        "regsPerMultiprocessor": arch.registers_per_sm, "managedMemory": 1,
        "multiGpuBoardGroupID": device, "hostNativeAtomicSupported": 0,
        "pageableMemoryAccess": 0, "concurrentManagedAccess": 1, "computePreemptionSupported": 1,
        "canUseHostPointerForRegisteredMem": 1, "sharedMemPerBlockOptin": arch.shared_optin,
        "pageableMemoryAccessUsesHostPageTables": 0, "directManagedMemAccessFromHost": 0,
        "uuid": bytes([0x51, *bytes(14), device]), "luid": b"", "luidDeviceNodeMask": 0,
        "persistingL2CacheMaxSize": arch.l2_bytes * 3 // 4 if major >= 8 else 0,
        "maxBlocksPerMultiProcessor": arch.blocks_per_sm,
        "accessPolicyMaxWindowSize": 128 << 20 if major >= 8 else 0,
        "reservedSharedMemPerBlock": arch.shared_reserved,
    }
    if version < 13000:  # CUDA 13 has these as attributes only
        result |= {"clockRate": card.clock, "memoryClockRate": card.memory_clock,
                   "kernelExecTimeoutEnabled": 0, "computeMode": 0, "deviceOverlap": 1,
                   "cooperativeMultiDeviceLaunch": 1, "maxTexture1DLinear": 268435456,
                   "singleToDoublePrecisionPerfRatio": card.double_ratio}
    return result


def attributes(arch: Arch, device: int) -> dict[int, int]:
    """cudaDeviceAttr -> value."""
    card = CARDS[arch.card]
    p = properties(arch, device, 0, 12000)
    block, grid = arch.max_block, arch.max_grid
    result = {
        1: arch.max_threads_per_block, 2: block[0], 3: block[1], 4: block[2], 5: grid[0],
        6: grid[1], 7: grid[2], 8: arch.shared_per_block, 9: arch.constant_bytes,
        10: arch.warp_size, 11: 2**31 - 1, 12: arch.registers_per_block, 13: card.clock, 14: 512,
        15: 1, 16: arch.sms, 17: 0, 18: 0, 19: 1, 20: 0, 21: p["maxTexture1D"], 30: 512, 31: 1,
        32: card.ecc, 33: device + 1, 34: 0, 35: 0, 36: card.memory_clock, 37: card.bus,
        38: arch.l2_bytes, 39: arch.threads_per_sm, 40: card.engines, 41: 1, 50: 0, 51: 32,
        52: p["maxTextureCubemap"], 55: p["maxSurface1D"], 66: p["maxSurfaceCubemap"],
        69: p["maxTexture1DLinear"], 77: p["maxTexture1DMipmap"], 78: 1, 79: 1, 80: 1,
        81: arch.shared_per_sm, 82: arch.registers_per_sm, 83: 1, 84: 0, 85: device, 86: 0,
        87: card.double_ratio, 88: 0, 89: 1, 90: 1, 91: 1, 92: 0, 93: 0, 94: 0, 95: 1, 96: 1,
        97: arch.shared_optin, 98: 0, 99: 1, 100: 0, 101: 0, 106: arch.blocks_per_sm,
        111: arch.shared_reserved, 112: 0, 113: 0, 114: 0, 115: 1, 116: 0, 117: 0, 118: 0, 119: 1,
        75: arch.capability[0], 76: arch.capability[1],
    }
    for first, key in ((22, "maxTexture2D"), (24, "maxTexture3D"), (27, "maxTexture2DLayered"),
                       (42, "maxTexture1DLayered"), (45, "maxTexture2DGather"),
                       (47, "maxTexture3DAlt"), (53, "maxTextureCubemapLayered"),
                       (56, "maxSurface2D"), (58, "maxSurface3D"), (61, "maxSurface1DLayered"),
                       (63, "maxSurface2DLayered"), (67, "maxSurfaceCubemapLayered"),
                       (70, "maxTexture2DLinear"), (73, "maxTexture2DMipmap")):
        for offset, value in enumerate(p[key]):
            result[first + offset] = value
    return result
