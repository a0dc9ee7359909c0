// Convolution, pooling and batch normalisation over images [n, channels, height, width].

struct Shape {
    int n, c, h, w;  // the input
    int k;           // output channels
    int r, s;        // the filter's height and width
    int pad, stride;
    int oh, ow;      // the output
};

// Direct 3 x 3, padding 1: a block of 16 x 8 threads makes a tile of one output channel; the input
// tile with its halo and the channel's filter pass through shared memory.
extern "C" __global__ void conv3x3(const float* x, const float* filter, const float* bias, float* y,
                                   Shape p) {
    __shared__ float tile[10][18], weights[9];
    int tx = threadIdx.x, ty = threadIdx.y, t = ty * 16 + tx;
    int image = blockIdx.z / p.k, k = blockIdx.z % p.k;
    int row0 = blockIdx.y * 8, col0 = blockIdx.x * 16;
    float sum = bias[k];
    for (int c = 0; c < p.c; c++) {
        for (int i = t; i < 180; i += 128) {
            int row = row0 + i / 18 - 1, col = col0 + i % 18 - 1;
            bool in = 0 <= row && row < p.h && 0 <= col && col < p.w;
            tile[i / 18][i % 18] = in ? x[((image * p.c + c) * p.h + row) * p.w + col] : 0.0f;
        }
        if (t < 9) weights[t] = filter[(k * p.c + c) * 9 + t];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 9; i++) sum += weights[i] * tile[ty + i / 3][tx + i % 3];
        __syncthreads();
    }
    int row = row0 + ty, col = col0 + tx;
    if (row < p.h && col < p.w) y[(blockIdx.z * p.h + row) * p.w + col] = fmaxf(sum, 0.0f);
}

// Any filter as a matrix product whose right operand, the columns of patches, exists only as tiles:
// [k, c*r*s] times [c*r*s, n*oh*ow].
extern "C" __global__ void conv_implicit(const float* x, const float* filter, float* y, Shape p) {
    __shared__ float as[16][17], bs[16][16];
    int tx = threadIdx.x, ty = threadIdx.y, inner = p.c * p.r * p.s, area = p.oh * p.ow;
    int k = blockIdx.y * 16 + ty, pixel = blockIdx.x * 16 + tx;
    int image = pixel / area, oy = pixel % area / p.ow, ox = pixel % area % p.ow;
    bool live = pixel < p.n * area;
    float sum = 0.0f;
    for (int i0 = 0; i0 < inner; i0 += 16) {
        int i = i0 + tx;
        as[ty][tx] = k < p.k && i < inner ? filter[k * inner + i] : 0.0f;
        i = i0 + ty;
        int c = i / (p.r * p.s), r = i % (p.r * p.s) / p.s, s = i % p.s;
        int row = oy * p.stride + r - p.pad, col = ox * p.stride + s - p.pad;
        // One comparison for both ends: negative indices are huge as unsigned numbers.
        bool in = live && i < inner && unsigned(row) < unsigned(p.h)
                  && unsigned(col) < unsigned(p.w);
        bs[ty][tx] = in ? x[((image * p.c + c) * p.h + row) * p.w + col] : 0.0f;
        __syncthreads();
        #pragma unroll
        for (int j = 0; j < 16; j++) sum += as[ty][j] * bs[j][tx];
        __syncthreads();
    }
    if (live && k < p.k) y[((image * p.k + k) * p.oh + oy) * p.ow + ox] = sum;
}

// 1 x 1: a product of matrices for each image, four output channels a thread, the filters in
// dynamic shared memory.
extern "C" __global__ void conv1x1(const float* x, const float* filter, float* y, int c, int k,
                                   int area) {
    extern __shared__ float weights[];  // [c][4]
    int image = blockIdx.z, k0 = blockIdx.y * 4, pixel = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = threadIdx.x; i < 4 * c; i += blockDim.x)
        weights[i] = k0 + i % 4 < k ? filter[(k0 + i % 4) * c + i / 4] : 0.0f;
    __syncthreads();
    if (pixel < area) {
        float sum[4] = {};
        for (int i = 0; i < c; i++) {
            float value = x[(image * c + i) * area + pixel];
            #pragma unroll
            for (int j = 0; j < 4; j++) sum[j] += weights[4 * i + j] * value;
        }
        for (int j = 0; j < 4; j++)
            if (k0 + j < k) y[(image * k + k0 + j) * area + pixel] = sum[j];
    }
}

// Depthwise with any filter and stride, the filters in constant memory.
__constant__ float depthwise_filter[8 * 25];

extern "C" __global__ void depthwise(const float* x, float* y, Shape p) {
    int total = p.n * p.c * p.oh * p.ow;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < total; i += gridDim.x * blockDim.x) {
        int ox = i % p.ow, oy = i / p.ow % p.oh, plane = i / (p.ow * p.oh), c = plane % p.c;
        float sum = 0.0f;
        for (int r = 0; r < p.r; r++)
            for (int s = 0; s < p.s; s++) {
                int row = oy * p.stride + r - p.pad, col = ox * p.stride + s - p.pad;
                if (row < 0 || row >= p.h || col < 0 || col >= p.w) continue;
                sum += x[(plane * p.h + row) * p.w + col]
                       * depthwise_filter[(c * p.r + r) * p.s + s];
            }
        y[i] = sum;
    }
}

// The gradient of depthwise filters: a block for each channel and tap, a sum over all pixels.
extern "C" __global__ void depthwise_filter_gradient(const float* x, const float* dy, float* dw,
                                                     Shape p) {
    __shared__ float warps[4];
    int c = blockIdx.x, r = blockIdx.y / p.s, s = blockIdx.y % p.s, t = threadIdx.x;
    float sum = 0.0f;
    for (int i = t; i < p.n * p.oh * p.ow; i += 128) {
        int ox = i % p.ow, oy = i / p.ow % p.oh, image = i / (p.ow * p.oh);
        int row = oy * p.stride + r - p.pad, col = ox * p.stride + s - p.pad;
        if (row >= 0 && row < p.h && col >= 0 && col < p.w)
            sum += x[((image * p.c + c) * p.h + row) * p.w + col]
                   * dy[((image * p.c + c) * p.oh + oy) * p.ow + ox];
    }
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (t % 32 == 0) warps[t / 32] = sum;
    __syncthreads();
    if (t == 0) dw[(c * p.r + r) * p.s + s] = warps[0] + warps[1] + warps[2] + warps[3];
}

extern "C" __global__ void max_pool(const float* x, float* y, int* where, Shape p) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.n * p.c * p.oh * p.ow) return;
    int ox = i % p.ow, oy = i / p.ow % p.oh, plane = i / (p.ow * p.oh);
    float best = -3.402823466e38f;
    int at = -1;
    for (int r = 0; r < p.r; r++)
        for (int s = 0; s < p.s; s++) {
            int row = oy * p.stride + r - p.pad, col = ox * p.stride + s - p.pad;
            if (row < 0 || row >= p.h || col < 0 || col >= p.w) continue;
            float value = x[(plane * p.h + row) * p.w + col];
            if (value > best || at < 0) best = value, at = row * p.w + col;
        }
    y[i] = best;
    where[i] = at;
}

// Windows overlap, so an input may be the largest of several.
extern "C" __global__ void max_pool_backward(const float* dy, const int* where, float* dx,
                                             Shape p) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.n * p.c * p.oh * p.ow) return;
    atomicAdd(&dx[i / (p.ow * p.oh) * p.h * p.w + where[i]], dy[i]);
}

// The same without atomics: each input looks for the windows that it is in.
extern "C" __global__ void average_pool_backward(const float* dy, float* dx, Shape p) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= p.n * p.c * p.h * p.w) return;
    int col = i % p.w, row = i / p.w % p.h, plane = i / (p.w * p.h);
    int first_y = max(0, (row + p.pad - p.r + p.stride) / p.stride);
    int first_x = max(0, (col + p.pad - p.s + p.stride) / p.stride);
    int last_y = min(p.oh - 1, (row + p.pad) / p.stride);
    int last_x = min(p.ow - 1, (col + p.pad) / p.stride);
    float sum = 0.0f;
    for (int oy = first_y; oy <= last_y; oy++)
        for (int ox = first_x; ox <= last_x; ox++) sum += dy[(plane * p.oh + oy) * p.ow + ox];
    dx[i] = sum / (p.r * p.s);
}

struct Moments {
    float count, mean, squares;
};

__device__ Moments merge(Moments a, Moments b) {
    float count = a.count + b.count;
    if (count == 0.0f) return a;
    float delta = b.mean - a.mean, part = b.count / count;
    return {count, a.mean + delta * part, a.squares + b.squares + delta * delta * a.count * part};
}

// Batch statistics of a channel by Welford's method, merged within warps and then between them.
extern "C" __global__ void batch_norm_statistics(const float* x, float* mean, float* inverse,
                                                 float* running, int n, int c, int area,
                                                 float momentum, float eps) {
    __shared__ Moments warps[32];
    int channel = blockIdx.x, t = threadIdx.x, lane = t % 32, warp = t / 32;
    Moments m = {0.0f, 0.0f, 0.0f};
    for (int i = t; i < n * area; i += blockDim.x) {
        float value = x[(i / area * c + channel) * area + i % area], delta = value - m.mean;
        m.count += 1.0f;
        m.mean += delta / m.count;
        m.squares += delta * (value - m.mean);
    }
    for (int step = 16; step; step /= 2) {
        Moments other = {__shfl_down_sync(~0u, m.count, step), __shfl_down_sync(~0u, m.mean, step),
                         __shfl_down_sync(~0u, m.squares, step)};
        m = merge(m, other);
    }
    if (lane == 0) warps[warp] = m;
    __syncthreads();
    if (t == 0) {
        for (int w = 1; w < blockDim.x / 32; w++) m = merge(m, warps[w]);
        float variance = m.squares / m.count;
        mean[channel] = m.mean;
        inverse[channel] = rsqrtf(variance + eps);
        float unbiased = m.squares / (m.count - 1.0f);
        running[channel] += momentum * (m.mean - running[channel]);
        running[c + channel] += momentum * (unbiased - running[c + channel]);
    }
}

extern "C" __global__ void batch_norm_apply(const float* x, const float* mean, const float* inverse,
                                            const float* gamma, const float* beta, float* y, int c,
                                            int area) {
    int channel = blockIdx.y % c;
    float scale = gamma[channel] * inverse[channel], shift = beta[channel] - mean[channel] * scale;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < area; i += gridDim.x * blockDim.x)
        y[blockIdx.y * area + i] = fmaf(x[blockIdx.y * area + i], scale, shift);
}
