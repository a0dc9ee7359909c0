// Element by element: how the threads of a grid find their elements, and how wide they load them.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// One thread per element, the tail cut by a comparison.
extern "C" __global__ void saxpy(float* y, const float* x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}

// float4 loads of a body aligned to 16 bytes; the first threads take the tail.
extern "C" __global__ void saxpy_float4(float* __restrict__ y, const float* __restrict__ x,
                                        float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int quads = n / 4;
    if (i < quads) {
        float4 u = reinterpret_cast<const float4*>(x)[i];
        float4 v = reinterpret_cast<float4*>(y)[i];
        v.x = fmaf(a, u.x, v.x);
        v.y = fmaf(a, u.y, v.y);
        v.z = fmaf(a, u.z, v.z);
        v.w = fmaf(a, u.w, v.w);
        reinterpret_cast<float4*>(y)[i] = v;
    }
    if (i < n % 4) y[4 * quads + i] = fmaf(a, x[4 * quads + i], y[4 * quads + i]);
}

// A grid of any size strides over the elements; read-only and streaming cache hints.
extern "C" __global__ void gelu_grid_stride(float* y, const float* x, long long n) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        float v = __ldg(x + i);
        __stcs(y + i, 0.5f * v * (1.f + erff(v * 0.70710678f)));
    }
}

// Four independent elements per thread in flight, unrolled.
extern "C" __global__ void swish_unrolled(float* y, const float* x, int n) {
    const int base = blockIdx.x * blockDim.x * 4 + threadIdx.x;
    float v[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        int i = base + k * blockDim.x;
        v[k] = i < n ? x[i] : 0.f;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        int i = base + k * blockDim.x;
        if (i < n) y[i] = v[k] / (1.f + __expf(-v[k]));
    }
}

// Packed half arithmetic, eight values per 16-byte load.
extern "C" __global__ void bias_relu_half8(__half* y, const __half* x, const __half* bias,
                                           int rows, int columns) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int vectors = columns / 8;
    if (i >= rows * vectors) return;
    int c = i % vectors;
    uint4 raw = reinterpret_cast<const uint4*>(x)[i];
    uint4 add = reinterpret_cast<const uint4*>(bias)[c];
    __half2* v = reinterpret_cast<__half2*>(&raw);
    const __half2* b = reinterpret_cast<const __half2*>(&add);
    const __half2 zero = __float2half2_rn(0.f);
#pragma unroll
    for (int k = 0; k < 4; ++k) v[k] = __hmax2(__hadd2(v[k], b[k]), zero);
    reinterpret_cast<uint4*>(y)[i] = raw;
}

// half2 fma, comparison and selection; the odd last element is done alone.
extern "C" __global__ void half2_fma(__half* z, const __half* x, const __half* y, __half a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int pairs = n / 2;
    if (i < pairs) {
        __half2 u = reinterpret_cast<const __half2*>(x)[i];
        __half2 v = reinterpret_cast<const __half2*>(y)[i];
        reinterpret_cast<__half2*>(z)[i] = __hfma2(__half2half2(a), u, v);
    } else if (i == pairs && n % 2) {
        z[n - 1] = __hfma(a, x[n - 1], y[n - 1]);
    }
}

// Packed bfloat16: multiply and add, each rounded.
extern "C" __global__ void bfloat2_mul_add(__nv_bfloat16* z, const __nv_bfloat16* x,
                                           const __nv_bfloat16* y, const __nv_bfloat16* w, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n / 2) {
        __nv_bfloat162 u = reinterpret_cast<const __nv_bfloat162*>(x)[i];
        __nv_bfloat162 v = reinterpret_cast<const __nv_bfloat162*>(y)[i];
        __nv_bfloat162 t = reinterpret_cast<const __nv_bfloat162*>(w)[i];
        reinterpret_cast<__nv_bfloat162*>(z)[i] = __hadd2_rn(__hmul2_rn(u, v), t);
    }
}

// bfloat16 computed in float and rounded once.
extern "C" __global__ void bfloat_silu(__nv_bfloat16* y, const __nv_bfloat16* x, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float v = __bfloat162float(x[i]);
        y[i] = __float2bfloat16(v / (1.f + expf(-v)));
    }
}

struct Strided {
    const float* data;
    int shape[3];
    long long stride[3];  // in elements; 0 broadcasts, negative reverses
};

// Broadcast and strided operands described by structs passed by value.
extern "C" __global__ void add_strided(float* out, Strided a, Strided b) {
    int total = a.shape[0] * a.shape[1] * a.shape[2];
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        int rest = i;
        long long at_a = 0, at_b = 0;
#pragma unroll
        for (int d = 2; d >= 0; --d) {
            int index = rest % a.shape[d];
            rest /= a.shape[d];
            at_a += index * a.stride[d];
            at_b += index * b.stride[d];
        }
        out[i] = a.data[at_a] + b.data[at_b];
    }
}

// Three-dimensional grid and block; the dimensions of the launch are part of the arithmetic.
extern "C" __global__ void volume(int* out, int nx, int ny, int nz) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    int z = blockIdx.z * blockDim.z + threadIdx.z;
    if (x >= nx || y >= ny || z >= nz) return;
    int code = threadIdx.x + 16 * threadIdx.y + 256 * threadIdx.z;
    code += 4096 * (gridDim.x + 8 * gridDim.y + 64 * gridDim.z);
    out[(z * ny + y) * nx + x] = code;
}

// A table of pointers in device memory: one launch over tensors of different sizes.
extern "C" __global__ void scale_many(float* const* tensors, const int* sizes, float factor) {
    float* x = tensors[blockIdx.y];
    int n = sizes[blockIdx.y];
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        x[i] *= factor;
}

struct Table {
    float* pointer[6];
    int size[6];
    int count;
};

// The same table as a parameter, indexed by the block: a dynamic index into parameter space.
extern "C" __global__ void fill_many(const __grid_constant__ Table table, float start) {
    int which = blockIdx.x % table.count;
    float* x = table.pointer[which];
    for (int i = threadIdx.x; i < table.size[which]; i += blockDim.x) x[i] = start + which;
}

// Indices that do not fit 32 bits before they are shifted down: 64-bit division and remainder.
extern "C" __global__ void far_index(long long* out, long long first, long long pitch, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        long long linear = first + (long long)i * pitch;
        out[3 * i] = linear / 1000003;
        out[3 * i + 1] = linear % 1000003;
        out[3 * i + 2] = (long long)((unsigned long long)linear / (unsigned)(i + 7));
    }
}

// Complex numbers as float2, interleaved.
extern "C" __global__ void complex_multiply(float2* z, const float2* x, const float2* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float2 a = x[i], b = y[i];
        z[i] = make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
    }
}

// Bytes: uchar4 loads, conversion to float with scaling, planes out (an image for a network).
extern "C" __global__ void image_to_planes(float* out, const uchar4* pixels, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) {
        uchar4 p = pixels[y * width + x];
        int plane = width * height, at = y * width + x;
        out[at] = p.x / 255.f;
        out[plane + at] = p.y / 255.f;
        out[2 * plane + at] = p.z * (1.f / 255.f);
    }
}

// A scalar function of every dtype from one template.
template <typename T, typename U>
__global__ void convert(T* out, const U* in, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = static_cast<T>(in[i]);
}

// Rotary position embedding: pairs of a head turned by an angle that depends on the position.
extern "C" __global__ void rotary(float* q, const int* positions, int heads, int width,
                                  float log_base) {
    int token = blockIdx.x, head = blockIdx.y, half = width / 2;
    float* row = q + ((long long)token * heads + head) * width;
    for (int k = threadIdx.x; k < half; k += blockDim.x) {
        float angle = positions[token] * expf(-log_base * k / half);
        float s, c;
        sincosf(angle, &s, &c);
        float a = row[k], b = row[k + half];
        row[k] = a * c - b * s;
        row[k + half] = a * s + b * c;
    }
}
