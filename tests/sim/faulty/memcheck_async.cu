// Matrix loads and asynchronous copies that go astray (sm_80).
#include "async.cuh"

// Sixteen rows of halves; the lanes 16 to 31 are meant for the right half, not for more rows.
extern "C" __global__ void ldmatrix_rows(const uint4* x, uint4* fragments) {
    __shared__ __align__(16) unsigned short tile[16][16];
    ((uint4*)tile)[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    unsigned r[4];
#ifdef FIXED
    ldmatrix_x4(r, &tile[threadIdx.x % 16][threadIdx.x / 16 * 8]);
#else
    ldmatrix_x4(r, &tile[threadIdx.x][threadIdx.x / 16 * 8]);  // FAULT(ldmatrix_rows): memcheck: out of bounds
#endif
    fragments[threadIdx.x] = make_uint4(r[0], r[1], r[2], r[3]);
}

// One half of padding keeps rows out of each other's banks, but not on 16 bytes.
extern "C" __global__ void ldmatrix_padding(const unsigned short* x, uint4* fragments) {
#ifdef FIXED
    __shared__ __align__(16) unsigned short tile[16][24];
#else
    __shared__ __align__(16) unsigned short tile[16][17];
#endif
    for (int i = threadIdx.x; i < 256; i += 32) tile[i / 16][i % 16] = x[i];
    __syncwarp();
    unsigned r[4];
    ldmatrix_x4(r, &tile[threadIdx.x % 16][threadIdx.x / 16 * 8]);  // FAULT(ldmatrix_padding): memcheck: misaligned
    fragments[threadIdx.x] = make_uint4(r[0], r[1], r[2], r[3]);
}

// The last tile of a row is not whole: its copy reads past the end.
extern "C" __global__ void cp_async_tail(const float* x, float* y, int n) {
    __shared__ __align__(16) float tile[256];
    int at = blockIdx.x * 256 + 4 * threadIdx.x;
#ifdef FIXED
    int bytes = max(0, min(16, 4 * (n - at)));
    cp_async_16(&tile[4 * threadIdx.x], bytes ? x + at : x, bytes);
#else
    cp_async_16(&tile[4 * threadIdx.x], x + at);  // FAULT(cp_async_tail): memcheck: out of bounds
#endif
    cp_async_commit();
    cp_async_wait<0>();
    for (int i = 0; i < 4; ++i)
        if (at + i < n) y[at + i] = tile[4 * threadIdx.x + i] + 1;
}

// Stages of a pipeline in a ring, whose index is not brought back to its start.
extern "C" __global__ void stage_past_the_ring(const float4* x, float4* y, int steps) {
    __shared__ float4 ring[3][32];
    int t = threadIdx.x;
    float4 sum = make_float4(0, 0, 0, 0);
    for (int s = 0; s < 2; ++s) {
        cp_async_16(&ring[s][t], x + s * 32 + t);
        cp_async_commit();
    }
    for (int s = 0; s < steps; ++s) {
        if (s + 2 < steps)
#ifdef FIXED
            cp_async_16(&ring[(s + 2) % 3][t], x + (s + 2) * 32 + t);
#else
            cp_async_16(&ring[s % 3 + 2][t], x + (s + 2) * 32 + t);  // FAULT(stage_past_the_ring): memcheck: out of bounds
#endif
        cp_async_commit();
        cp_async_wait<2>();
        float4 v = ring[s % 3][t];
        sum.x += v.x; sum.y += v.y; sum.z += v.z; sum.w += v.w;
    }
    y[t] = sum;
}

// Rows of odd length cannot be copied sixteen bytes at a time.
extern "C" __global__ void cp_async_misaligned(const float* x, float* y, int cols) {
    __shared__ __align__(16) float row[128];
    int t = threadIdx.x;
    const float* from = x + blockIdx.x * cols;
#ifdef FIXED
    for (int c = t; c < cols; c += 32) cp_async_4(&row[c], from + c);
#else
    for (int c = 4 * t; c < cols - 3; c += 128) cp_async_16(&row[c], from + c);  // FAULT(cp_async_misaligned): memcheck: misaligned
    if (t < cols % 4) row[cols / 4 * 4 + t] = from[cols / 4 * 4 + t];
#endif
    cp_async_commit();
    cp_async_wait<0>();
    __syncwarp();
    float sum = 0;
    for (int c = t; c < cols; c += 32) sum += row[c];
    for (int d = 16; d; d /= 2) sum += __shfl_down_sync(0xffffffff, sum, d);
    if (t == 0) y[blockIdx.x] = sum;
}
