// Attention: forward and backward on CUDA cores, decoding from a paged cache.
// Sequences have any length; a head has 32 values.

constexpr int D = 32, ROWS = 16, COLS = 16;
constexpr float NONE = -1e30f;  // instead of an infinity, whose differences are NaN

// One block of 64 threads for 16 queries of a head, four threads a query: each has four of the 16
// scores of a step and eight of the 32 results.
extern "C" __global__ void __launch_bounds__(64)
forward(const float* q, const float* k, const float* v, float* o, float* lse, int n, int causal,
        float scale) {
    __shared__ float qs[ROWS][D + 1], ks[COLS][D + 1], vs[COLS][D], ps[ROWS][COLS + 1];
    int t = threadIdx.x, row = t / 4, part = t % 4, head = blockIdx.y, row0 = blockIdx.x * ROWS;
    q += head * n * D, k += head * n * D, v += head * n * D, o += head * n * D, lse += head * n;
    for (int i = t; i < ROWS * D; i += 64)
        qs[i / D][i % D] = row0 + i / D < n ? q[row0 * D + i] * scale : 0.0f;
    float top = NONE, sum = 0.0f, acc[D / 4] = {};
    int end = causal ? min(n, row0 + ROWS) : n;
    for (int col0 = 0; col0 < end; col0 += COLS) {
        __syncthreads();  // all are done with the last step's keys and values
        for (int i = t; i < COLS * D; i += 64) {
            bool in = col0 + i / D < n;
            ks[i / D][i % D] = in ? k[col0 * D + i] : 0.0f;
            vs[i / D][i % D] = in ? v[col0 * D + i] : 0.0f;
        }
        __syncthreads();
        float s[COLS / 4], best = NONE;
        for (int j = 0; j < COLS / 4; j++) {
            int col = 4 * j + part;
            s[j] = 0.0f;
            #pragma unroll 4
            for (int d = 0; d < D; d++) s[j] += qs[row][d] * ks[col][d];
            if (col0 + col >= n || (causal && col0 + col > row0 + row)) s[j] = NONE;
            best = fmaxf(best, s[j]);
        }
        best = fmaxf(best, __shfl_xor_sync(~0u, best, 1));
        best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
        float next = fmaxf(top, best), shrink = __expf(top - next), here = 0.0f;
        for (int j = 0; j < COLS / 4; j++) {
            float p = s[j] == NONE ? 0.0f : __expf(s[j] - next);
            ps[row][4 * j + part] = p;
            here += p;
        }
        here += __shfl_xor_sync(~0u, here, 1);
        here += __shfl_xor_sync(~0u, here, 2);
        sum = sum * shrink + here;
        top = next;
        __syncwarp();  // a query's four threads are in one warp
        for (int d = 0; d < D / 4; d++) {
            float value = acc[d] * shrink;
            #pragma unroll 4
            for (int col = 0; col < COLS; col++) value += ps[row][col] * vs[col][4 * d + part];
            acc[d] = value;
        }
    }
    if (row0 + row < n) {
        for (int d = 0; d < D / 4; d++) o[(row0 + row) * D + 4 * d + part] = acc[d] / sum;
        if (part == 0) lse[row0 + row] = top + __logf(sum);
    }
}

// delta = sum(do * o) of each row, one warp a row: a head has as many values as a warp has lanes.
extern "C" __global__ void backward_delta(const float* o, const float* d_o, float* delta,
                                          int rows) {
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    float sum = o[row * D + lane] * d_o[row * D + lane];
    for (int step = 16; step; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
    if (lane == 0) delta[row] = sum;
}

// One block for 16 keys of a head: it sums their gradients over the queries and adds its part of
// the queries' gradients by atomics.
extern "C" __global__ void __launch_bounds__(64)
backward(const float* q, const float* k, const float* v, const float* d_o, const float* lse,
         const float* delta, float* dq, float* dk, float* dv, int n, int causal, float scale) {
    __shared__ float qs[ROWS][D + 1], gs[ROWS][D + 1], ks[COLS][D + 1], vs[COLS][D + 1];
    __shared__ float ps[ROWS][COLS + 1], ds[ROWS][COLS + 1], ls[ROWS], es[ROWS];
    int t = threadIdx.x, own = t / 4, part = t % 4, col0 = blockIdx.x * COLS;
    long long base = static_cast<long long>(blockIdx.y) * n;
    for (int i = t; i < COLS * D; i += 64) {
        bool in = col0 + i / D < n;
        ks[i / D][i % D] = in ? k[(base + col0) * D + i] : 0.0f;
        vs[i / D][i % D] = in ? v[(base + col0) * D + i] : 0.0f;
    }
    float sum_k[D / 4] = {}, sum_v[D / 4] = {};
    for (int row0 = causal ? col0 / ROWS * ROWS : 0; row0 < n; row0 += ROWS) {
        __syncthreads();
        for (int i = t; i < ROWS * D; i += 64) {
            bool in = row0 + i / D < n;
            qs[i / D][i % D] = in ? q[(base + row0) * D + i] : 0.0f;
            gs[i / D][i % D] = in ? d_o[(base + row0) * D + i] : 0.0f;
        }
        if (t < ROWS) {
            bool in = row0 + t < n;
            ls[t] = in ? lse[base + row0 + t] : 0.0f;
            es[t] = in ? delta[base + row0 + t] : 0.0f;
        }
        __syncthreads();
        for (int j = 0; j < COLS / 4; j++) {  // here `own` is a query
            int col = 4 * j + part;
            float s = 0.0f, g = 0.0f;
            #pragma unroll 4
            for (int d = 0; d < D; d++) {
                s += qs[own][d] * ks[col][d];
                g += gs[own][d] * vs[col][d];
            }
            bool in = row0 + own < n && col0 + col < n && (!causal || col0 + col <= row0 + own);
            float p = in ? __expf(s * scale - ls[own]) : 0.0f;
            ps[own][col] = p;
            ds[own][col] = p * (g - es[own]) * scale;
        }
        __syncthreads();
        for (int d = 0; d < D / 4; d++) {  // and here a query and a key
            float to_q = 0.0f, to_k = sum_k[d], to_v = sum_v[d];
            #pragma unroll 4
            for (int i = 0; i < 16; i++) {
                to_q += ds[own][i] * ks[i][4 * d + part];
                to_k += ds[i][own] * qs[i][4 * d + part];
                to_v += ps[i][own] * gs[i][4 * d + part];
            }
            sum_k[d] = to_k;
            sum_v[d] = to_v;
            if (row0 + own < n) atomicAdd(&dq[(base + row0 + own) * D + 4 * d + part], to_q);
        }
    }
    if (col0 + own < n)
        for (int d = 0; d < D / 4; d++) {
            dk[(base + col0 + own) * D + 4 * d + part] = sum_k[d];
            dv[(base + col0 + own) * D + 4 * d + part] = sum_v[d];
        }
}

// One query a sequence against keys and values in pages of 8 tokens, found through a table;
// groups of query heads share a key head.  Each of four warps takes every fourth page.
constexpr int PAGE = 8;

struct Part {
    float top, sum, acc[D];
};

extern "C" __global__ void __launch_bounds__(128)
paged_decode(const float* q, const float* k_pages, const float* v_pages, const int* table,
             const int* lengths, float* o, int max_pages, int heads, int kv_heads, float scale) {
    __shared__ Part parts[4];
    int head = blockIdx.x, sequence = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int kv = head / (heads / kv_heads), length = lengths[sequence];
    float mine = q[(sequence * heads + head) * D + lane] * scale;
    float top = NONE, sum = 0.0f, acc = 0.0f;
    for (int page = warp; page * PAGE < length; page += 4) {
        long long at = (static_cast<long long>(table[sequence * max_pages + page]) * kv_heads + kv)
                       * PAGE * D;
        int tokens = min(PAGE, length - page * PAGE);
        for (int i = 0; i < tokens; i++) {
            float s = mine * k_pages[at + i * D + lane];
            for (int step = 16; step; step /= 2) s += __shfl_xor_sync(~0u, s, step);
            float next = fmaxf(top, s), shrink = __expf(top - next), p = __expf(s - next);
            acc = acc * shrink + p * v_pages[at + i * D + lane];
            sum = sum * shrink + p;
            top = next;
        }
    }
    parts[warp].acc[lane] = acc;
    if (lane == 0) parts[warp].top = top, parts[warp].sum = sum;
    __syncthreads();
    if (warp == 0) {
        float best = fmaxf(fmaxf(parts[0].top, parts[1].top), fmaxf(parts[2].top, parts[3].top));
        float total = 0.0f, value = 0.0f;
        for (int w = 0; w < 4; w++) {
            float weight = __expf(parts[w].top - best);
            total += weight * parts[w].sum;
            value += weight * parts[w].acc[lane];
        }
        o[(sequence * heads + head) * D + lane] = value / total;
    }
}

// A long sequence split over blocks: each leaves its maximum, sum and result, a second launch
// merges them.  Half a warp has a key, two values a thread.
extern "C" __global__ void split_decode(const float2* q, const float2* k, const float2* v,
                                        float2* acc_out, float2* top_sum, int n, float scale) {
    __shared__ float2 accs[4];
    __shared__ float2 merged[4][16];
    int t = threadIdx.x, team = t / 16, d = t % 16;  // 64 threads, four teams
    int each = (n + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * each;
    int end = min(n, begin + each);
    float2 x = q[d];
    float top = NONE, sum = 0.0f, a = 0.0f, b = 0.0f;
    for (int i0 = begin; i0 < end; i0 += 4) {
        int i = i0 + team;
        float2 y = i < end ? k[i * 16 + d] : make_float2(0.0f, 0.0f);
        float s = (x.x * y.x + x.y * y.y) * scale;
        for (int step = 8; step; step /= 2) s += __shfl_xor_sync(~0u, s, step, 16);
        if (i < end) {
            float2 z = v[i * 16 + d];
            float next = fmaxf(top, s), shrink = __expf(top - next), p = __expf(s - next);
            a = a * shrink + p * z.x, b = b * shrink + p * z.y;
            sum = sum * shrink + p;
            top = next;
        }
    }
    if (d == 0) accs[team] = make_float2(top, sum);
    merged[team][d] = make_float2(a, b);
    __syncthreads();
    if (t < 16) {
        float best = NONE, total = 0.0f;
        for (int w = 0; w < 4; w++) best = fmaxf(best, accs[w].x);
        a = b = 0.0f;
        for (int w = 0; w < 4; w++) {
            float weight = __expf(accs[w].x - best);
            total += weight * accs[w].y;
            a += weight * merged[w][d].x, b += weight * merged[w][d].y;
        }
        acc_out[blockIdx.x * 16 + d] = make_float2(a, b);
        if (d == 0) top_sum[blockIdx.x] = make_float2(best, total);
    }
}

extern "C" __global__ void merge_splits(const float* acc, const float2* top_sum, float* o,
                                        int splits) {
    float best = NONE, total = 0.0f, value = 0.0f;
    for (int i = 0; i < splits; i++) best = fmaxf(best, top_sum[i].x);
    for (int i = 0; i < splits; i++) {
        float weight = __expf(top_sum[i].x - best);
        total += weight * top_sum[i].y;
        value += weight * acc[i * D + threadIdx.x];
    }
    o[threadIdx.x] = value / total;
}
