// A training step's small kernels: losses with their gradients, norms of gradients, optimisers.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define FULL 0xffffffffu

struct Pair {
    float top, sum;
};

__device__ __forceinline__ Pair join(Pair a, Pair b) {
    float top = fmaxf(a.top, b.top);
    return {top, a.sum * __expf(a.top - top) + b.sum * __expf(b.top - top)};
}

// Cross-entropy with label smoothing and an ignored class: a block per row, the log-sum-exp kept.
extern "C" __global__ void cross_entropy(float* losses, float* log_sums, const float* logits,
                                         const int* labels, int n, int ignore, float smoothing) {
    __shared__ Pair pairs[8];
    __shared__ float totals[8];
    const float* row = logits + (size_t)blockIdx.x * n;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    Pair p = {-3.4e38f, 0.f};
    float total = 0.f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float v = row[i];
        p = join(p, Pair{v, 1.f});
        total += v;
    }
    for (int step = 16; step > 0; step >>= 1) {
        Pair other = {__shfl_xor_sync(FULL, p.top, step), __shfl_xor_sync(FULL, p.sum, step)};
        p = join(p, other);
        total += __shfl_xor_sync(FULL, total, step);
    }
    if (lane == 0) {
        pairs[warp] = p;
        totals[warp] = total;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < warps; ++w) {
            p = join(p, pairs[w]);
            total += totals[w];
        }
        float log_sum = p.top + logf(p.sum);
        log_sums[blockIdx.x] = log_sum;
        int label = labels[blockIdx.x];
        losses[blockIdx.x] = label == ignore ? 0.f
            : (1.f - smoothing) * (log_sum - row[label]) + smoothing * (log_sum - total / n);
    }
}

// Its gradient, a thread per element over a two-dimensional grid, in place over the logits.
extern "C" __global__ void cross_entropy_backward(float* logits, const float* log_sums,
                                                  const int* labels, int n, int ignore,
                                                  float smoothing, float scale) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (i >= n) return;
    int label = labels[row];
    float* at = logits + (size_t)row * n + i;
    float p = expf(*at - log_sums[row]);
    float target = smoothing / n + (i == label ? 1.f - smoothing : 0.f);
    *at = label == ignore ? 0.f : scale * (p - target);
}

// Binary cross-entropy with logits: loss added up by one atomic per block, gradient at once.
extern "C" __global__ void bce_with_logits(float* loss, __half* grad, const __half* x,
                                           const unsigned char* target, int n) {
    __shared__ float sum;
    if (threadIdx.x == 0) sum = 0.f;
    __syncthreads();
    float mine = 0.f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float v = __half2float(x[i]), t = target[i];
        mine += fmaxf(v, 0.f) - v * t + log1pf(expf(-fabsf(v)));
        grad[i] = __float2half((1.f / (1.f + expf(-v)) - t) / n);
    }
    atomicAdd(&sum, mine);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(loss, sum / n);
}

struct Tensors {  // a launch's worth of tensors, as a parameter of about a kilobyte
    float* parameter[16];
    const float* gradient[16];
    float* first[16];
    float* second[16];
    int size[16];
    unsigned char block_tensor[64];  // which tensor and which chunk of it each block has
    unsigned short block_chunk[64];
};

// AdamW over many tensors in one launch.
extern "C" __global__ void adamw_many(Tensors t, int chunk, float rate, float beta1, float beta2,
                                      float eps, float decay, float correction1, float correction2) {
    int tensor = t.block_tensor[blockIdx.x];
    int start = t.block_chunk[blockIdx.x] * chunk;
    int end = min(start + chunk, t.size[tensor]);
    float* p = t.parameter[tensor];
    const float* g = t.gradient[tensor];
    float *m = t.first[tensor], *v = t.second[tensor];
    for (int i = start + threadIdx.x; i < end; i += blockDim.x) {
        float grad = g[i];
        float first = beta1 * m[i] + (1.f - beta1) * grad;
        float second = beta2 * v[i] + (1.f - beta2) * grad * grad;
        m[i] = first;
        v[i] = second;
        float step = first / correction1 / (sqrtf(second / correction2) + eps);
        p[i] = p[i] * (1.f - rate * decay) - rate * step;
    }
}

struct Entry {  // the same table in device memory, a struct per tensor
    float* master;
    __nv_bfloat16* weight;
    const __nv_bfloat16* gradient;
    float* momentum;
    long long size;
};

// SGD with momentum: bfloat16 weights and gradients, float master weights; skipped on overflow.
extern "C" __global__ void sgd_mixed(const Entry* table, const int* overflow, float rate,
                                     float momentum, float unscale) {
    if (*overflow) return;
    Entry e = table[blockIdx.y];
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < e.size;
         i += (long long)gridDim.x * blockDim.x) {
        float g = __bfloat162float(e.gradient[i]) * unscale;
        float m = momentum * e.momentum[i] + g;
        float w = e.master[i] - rate * m;
        e.momentum[i] = m;
        e.master[i] = w;
        e.weight[i] = __float2bfloat16_rn(w);
    }
}

// Squares of all gradients added up in double; the flag says whether any is not finite.
extern "C" __global__ void gradient_norm(double* sum, int* not_finite, float* const* tensors,
                                         const int* sizes) {
    float* x = tensors[blockIdx.y];
    int n = sizes[blockIdx.y];
    double mine = 0.0;
    bool bad = false;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        double v = x[i];
        mine += v * v;
        bad |= !isfinite(x[i]);
    }
    bad = __syncthreads_or(bad);
    if (bad && threadIdx.x == 0) *not_finite = 1;  // all blocks store the same value
    for (int step = 16; step > 0; step >>= 1) mine += __shfl_xor_sync(FULL, mine, step);
    if (threadIdx.x % 32 == 0) atomicAdd(sum, mine);
}

// Gradients scaled so that their norm is at most one; the norm comes from the kernel before.
extern "C" __global__ void clip(float* const* tensors, const int* sizes, const double* sum,
                                float most) {
    float factor = most / ((float)sqrt(*sum) + 1e-6f);
    if (factor >= 1.f) return;
    float* x = tensors[blockIdx.y];
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < sizes[blockIdx.y];
         i += gridDim.x * blockDim.x)
        x[i] *= factor;
}

// Counting right answers: two predicates counted over the block by barriers that add.
extern "C" __global__ void accuracy(int* right, int* seen, const int* predicted, const int* labels,
                                    int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool valid = i < n && labels[i] >= 0;
    int hits = __syncthreads_count(valid && predicted[i] == labels[i]);
    int all = __syncthreads_count(valid);
    int everyone = __syncthreads_and(valid);
    if (threadIdx.x == 0) {
        atomicAdd(right, hits);
        atomicAdd(seen, all);
        atomicAdd(seen + 1, everyone);
    }
}
