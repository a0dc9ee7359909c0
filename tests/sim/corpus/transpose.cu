// Transposes: the same movement, coalesced better from kernel to kernel.

// Naive: reads are coalesced, writes are not.
extern "C" __global__ void transpose_naive(float* out, const float* in, int rows, int columns) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < columns && y < rows) out[x * rows + y] = in[y * columns + x];
}

// Through a padded tile in shared memory: 33 columns keep the banks of a column apart.
extern "C" __global__ void transpose_padded(float* out, const float* in, int rows, int columns) {
    __shared__ float tile[32][33];
    int x = blockIdx.x * 32 + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += blockDim.y) {
        int y = blockIdx.y * 32 + k;
        if (x < columns && y < rows) tile[k][threadIdx.x] = in[y * columns + x];
    }
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x;
    for (int k = threadIdx.y; k < 32; k += blockDim.y) {
        int y = blockIdx.x * 32 + k;
        if (x < rows && y < columns) out[y * rows + x] = tile[threadIdx.x][k];
    }
}

// The tile swizzled by exclusive or instead of padded.
extern "C" __global__ void transpose_swizzled(int* out, const int* in, int n) {
    __shared__ int tile[32 * 32];
    int bx = blockIdx.x * 32, by = blockIdx.y * 32, t = threadIdx.x;
#pragma unroll
    for (int k = threadIdx.y; k < 32; k += 8) tile[k * 32 + (t ^ k)] = in[(by + k) * n + bx + t];
    __syncthreads();
#pragma unroll
    for (int k = threadIdx.y; k < 32; k += 8) out[(bx + k) * n + by + t] = tile[t * 32 + (k ^ t)];
}

// A square matrix in place: a block exchanges the tiles (i, j) and (j, i); the grid is a triangle.
extern "C" __global__ void transpose_in_place(double* x, int n) {
    __shared__ double upper[16][17], lower[16][17];
    int i = 0, first = 0;
    while (first + i + 1 <= (int)blockIdx.x) first += ++i;  // row of the triangle
    int j = blockIdx.x - first;
    int r = threadIdx.y, c = threadIdx.x;
    bool in_a = i * 16 + r < n && j * 16 + c < n, in_b = j * 16 + r < n && i * 16 + c < n;
    if (in_a) lower[r][c] = x[(i * 16 + r) * n + j * 16 + c];
    if (in_b && i != j) upper[r][c] = x[(j * 16 + r) * n + i * 16 + c];
    __syncthreads();
    if (in_b) x[(j * 16 + r) * n + i * 16 + c] = lower[c][r];
    if (in_a && i != j) x[(i * 16 + r) * n + j * 16 + c] = upper[c][r];
}

// Warp transpose of 4 x 4 blocks held in registers, by shuffles (no shared memory).
extern "C" __global__ void transpose_registers(float4* out, const float4* in) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 4;
    float4 v = in[i];  // row `lane` of its 4 x 4 block
    float row[4] = {v.x, v.y, v.z, v.w}, column[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {  // round k: lane l gives element l^k and gets element of lane l^k
        float give = (lane ^ k) == 0 ? row[0] : (lane ^ k) == 1 ? row[1] : (lane ^ k) == 2 ? row[2]
                   : row[3];
        float got = __shfl_xor_sync(0xffffffffu, give, k, 4);
#pragma unroll
        for (int d = 0; d < 4; ++d)
            if (d == (lane ^ k)) column[d] = got;
    }
    out[i] = make_float4(column[0], column[1], column[2], column[3]);
}

// Any permutation of up to five dimensions, one element per thread.
struct Permutation {
    int rank, shape[5], stride[5];
};
extern "C" __global__ void permute(unsigned short* out, const unsigned short* in, Permutation p,
                                   int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= total) return;
    int rest = i, at = 0;
    for (int d = p.rank - 1; d >= 0; --d) {
        at += rest % p.shape[d] * p.stride[d];
        rest /= p.shape[d];
    }
    out[i] = in[at];
}
