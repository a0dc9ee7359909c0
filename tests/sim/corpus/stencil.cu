// Stencils: neighbours through shared memory with halos, through registers, through caches.

// One dimension, radius 3, coefficients in constant memory, the halo loaded by the first threads.
__constant__ float taps[7];

extern "C" __global__ void convolve_row(float* out, const float* in, int n) {
    __shared__ float tile[64 + 6];
    int i = blockIdx.x * 64 + threadIdx.x, t = threadIdx.x;
    tile[t + 3] = i < n ? in[i] : 0.f;
    if (t < 3) tile[t] = i >= 3 && i - 3 < n ? in[i - 3] : 0.f;
    if (t >= 61) tile[t + 6] = i + 3 < n ? in[i + 3] : 0.f;
    __syncthreads();
    if (i < n) {
        float sum = 0.f;
#pragma unroll
        for (int k = 0; k < 7; ++k) sum += taps[k] * tile[t + k];
        out[i] = sum;
    }
}

// Two dimensions, five points, a tile with a halo loaded by a flat loop; clamped borders.
extern "C" __global__ void heat(float* out, const float* in, int width, int height, float rate) {
    __shared__ float tile[10][34];
    int x0 = blockIdx.x * 32 - 1, y0 = blockIdx.y * 8 - 1;
    int flat = threadIdx.y * 32 + threadIdx.x;
    for (int k = flat; k < 10 * 34; k += 256) {
        int y = min(max(y0 + k / 34, 0), height - 1), x = min(max(x0 + k % 34, 0), width - 1);
        tile[k / 34][k % 34] = in[y * width + x];
    }
    __syncthreads();
    int x = x0 + 1 + threadIdx.x, y = y0 + 1 + threadIdx.y;
    if (x < width && y < height) {
        int r = threadIdx.y + 1, c = threadIdx.x + 1;
        float middle = tile[r][c];
        float around = tile[r - 1][c] + tile[r + 1][c] + tile[r][c - 1] + tile[r][c + 1];
        out[y * width + x] = middle + rate * (around - 4.f * middle);
    }
}

// Three dimensions: each thread walks along z and keeps the planes below and above in registers.
extern "C" __global__ void laplace(float* out, const float* in, int nx, int ny, int nz) {
    __shared__ float plane[6][18];
    int x = blockIdx.x * 16 + threadIdx.x, y = blockIdx.y * 4 + threadIdx.y;
    int tx = threadIdx.x + 1, ty = threadIdx.y + 1, area = nx * ny;
    bool inside = x < nx && y < ny;
    int at = y * nx + x;
    float below = 0.f, here = inside ? in[at] : 0.f;
    for (int z = 0; z < nz; ++z) {
        float above = inside && z + 1 < nz ? in[at + area] : 0.f;
        __syncthreads();
        plane[ty][tx] = here;
        if (tx == 1) plane[ty][0] = inside && x > 0 ? in[at - 1] : 0.f;
        if (tx == 16) plane[ty][17] = inside && x + 1 < nx ? in[at + 1] : 0.f;
        if (ty == 1) plane[0][tx] = inside && y > 0 ? in[at - nx] : 0.f;
        if (ty == 4) plane[5][tx] = inside && y + 1 < ny ? in[at + nx] : 0.f;
        __syncthreads();
        if (inside)
            out[at] = below + above + plane[ty - 1][tx] + plane[ty + 1][tx] + plane[ty][tx - 1]
                    + plane[ty][tx + 1] - 6.f * here;
        below = here;
        here = above;
        at += area;
    }
}

// The game of life on a torus, a bit per cell, 32 cells per thread, counted by full adders.
extern "C" __global__ void life_bits(unsigned* out, const unsigned* in, int words, int height) {
    int w = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y;
    if (w >= words) return;
    int left = (w + words - 1) % words, right = (w + 1) % words;
    unsigned one = 0, two = 0, four = 0;  // the neighbours' count, a bit plane each
    unsigned cell = in[y * words + w];
    for (int dy = -1; dy <= 1; ++dy) {
        const unsigned* row = in + (y + dy + height) % height * words;
        unsigned centre = row[w];
        unsigned west = __funnelshift_l(row[left], centre, 1);
        unsigned east = __funnelshift_r(centre, row[right], 1);
        unsigned votes[3] = {west, east, dy ? centre : 0u};
        for (unsigned vote : votes) {
            unsigned carry = one & vote;
            one ^= vote;
            four |= two & carry;
            two ^= carry;
        }
    }
    out[y * words + w] = two & ~four & (one | cell);
}

// Bytes and plain global reads; two generations per launch are two launches.
extern "C" __global__ void life_bytes(unsigned char* out, const unsigned char* in, int width,
                                      int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) {
        int alive = 0;
        for (int dy = height - 1; dy <= height + 1; ++dy)
            for (int dx = width - 1; dx <= width + 1; ++dx)
                alive += in[(y + dy) % height * width + (x + dx) % width];
        int cell = in[y * width + x];
        out[y * width + x] = alive == 3 || (alive == 4 && cell);
    }
}

// Maximum pooling with its indices, and its backward pass with atomics (windows overlap).
extern "C" __global__ void max_pool(float* out, int* where, const float* in, int height, int width,
                                    int size, int stride, int out_height, int out_width) {
    int ox = threadIdx.x + blockIdx.x * blockDim.x, oy = blockIdx.y, plane = blockIdx.z;
    if (ox >= out_width) return;
    const float* image = in + plane * height * width;
    float best = -3.4e38f;
    int at = -1;
    for (int y = oy * stride; y < min(oy * stride + size, height); ++y)
        for (int x = ox * stride; x < min(ox * stride + size, width); ++x) {
            float v = image[y * width + x];
            if (v > best || at < 0) {
                best = v;
                at = y * width + x;
            }
        }
    int o = (plane * out_height + oy) * out_width + ox;
    out[o] = best;
    where[o] = at;
}

extern "C" __global__ void max_pool_backward(float* grad, const float* dy, const int* where,
                                             int area, int out_area, int total) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x)
        atomicAdd(grad + i / out_area * area + where[i], dy[i]);
}
