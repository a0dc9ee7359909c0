// Flash attention on tensor cores (sm_80 and later): two warps of 16 queries, 32 keys a step that
// come by cp.async while the step before is computed; scores and weights never leave registers.

#include <cuda_fp16.h>

constexpr int D = 64, ROWS = 32, COLS = 32, PITCH = D + 8;  // 144 bytes: ldmatrix without conflicts
constexpr float NONE = -1e30f;

__device__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

__device__ void mma(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ unsigned pack(float x, float y) {
    __half2 h = __floats2half2_rn(x, y);
    return *reinterpret_cast<unsigned*>(&h);
}

// 32 rows of a matrix with D columns; rows past the end are filled with zeros.
__device__ void fetch(__half (*to)[PITCH], const __half* from, int row0, int n) {
    for (int i = threadIdx.x; i < 32 * D / 8; i += 64) {
        int r = i / (D / 8), c = i % (D / 8) * 8;
        bool in = row0 + r < n;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(shared_address(&to[r][c])), "l"(in ? &from[(row0 + r) * D + c] : from),
                        "r"(in ? 16 : 0) : "memory");
    }
}

template <bool CAUSAL>
__global__ void __launch_bounds__(64)
flash_forward(const __half* q, const __half* k, const __half* v, __half* o, float* lse, int n,
              float scale) {
    __shared__ __align__(16) __half qs[ROWS][PITCH], ks[2][COLS][PITCH], vs[2][COLS][PITCH];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = blockIdx.x * ROWS;
    long long head = static_cast<long long>(blockIdx.y) * n * D;
    q += head, k += head, v += head, o += head, lse += blockIdx.y * n;
    int end = CAUSAL ? min(n, row0 + ROWS) : n, steps = (end + COLS - 1) / COLS;
    scale *= 1.44269504f;  // exponentials are taken to base 2

    fetch(qs, q, row0, n);
    fetch(ks[0], k, 0, n);
    fetch(vs[0], v, 0, n);
    asm volatile("cp.async.commit_group;" ::: "memory");

    unsigned fq[D / 16][4];
    float acc[D / 8][4] = {}, top[2] = {NONE, NONE}, sum[2] = {0.0f, 0.0f};
    for (int s = 0; s < steps; s++) {
        int now = s % 2;
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        if (s + 1 < steps) {
            fetch(ks[now ^ 1], k, (s + 1) * COLS, n);
            fetch(vs[now ^ 1], v, (s + 1) * COLS, n);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        if (s == 0)
            for (int i = 0; i < D / 16; i++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(fq[i][0]), "=r"(fq[i][1]), "=r"(fq[i][2]), "=r"(fq[i][3])
                             : "r"(shared_address(
                                 &qs[warp * 16 + lane % 16][i * 16 + lane / 16 * 8])) : "memory");
        float x[COLS / 8][4] = {};
        #pragma unroll
        for (int i = 0; i < D / 16; i++)
            #pragma unroll
            for (int j = 0; j < COLS / 16; j++) {
                unsigned f[4];
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                             : "r"(shared_address(&ks[now][j * 16 + lane % 8 + lane / 16 * 8]
                                                     [i * 16 + lane / 8 % 2 * 8])) : "memory");
                mma(x[2 * j], fq[i], f[0], f[1]);
                mma(x[2 * j + 1], fq[i], f[2], f[3]);
            }
        int row = row0 + warp * 16 + lane / 4, col = s * COLS + lane % 4 * 2;
        #pragma unroll
        for (int h = 0; h < 2; h++) {  // the thread's two rows
            float best = top[h];
            #pragma unroll
            for (int j = 0; j < COLS / 8; j++)
                #pragma unroll
                for (int i = 0; i < 2; i++) {
                    int c = col + 8 * j + i;
                    bool in = c < n && (!CAUSAL || c <= row + 8 * h);
                    x[j][2 * h + i] = in ? x[j][2 * h + i] * scale : NONE;
                    best = fmaxf(best, x[j][2 * h + i]);
                }
            best = fmaxf(best, __shfl_xor_sync(~0u, best, 1));
            best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
            float shrink = exp2f(top[h] - best), here = 0.0f;
            #pragma unroll
            for (int j = 0; j < COLS / 8; j++)
                #pragma unroll
                for (int i = 0; i < 2; i++) {
                    float p = exp2f(x[j][2 * h + i] - best);
                    x[j][2 * h + i] = p;
                    here += p;
                }
            sum[h] = sum[h] * shrink + here;  // of this thread's columns only
            top[h] = best;
            #pragma unroll
            for (int j = 0; j < D / 8; j++) acc[j][2 * h] *= shrink, acc[j][2 * h + 1] *= shrink;
        }
        #pragma unroll
        for (int i = 0; i < COLS / 16; i++) {
            // Accumulators of two n-tiles are laid out as one operand of the next product.
            unsigned p[4] = {pack(x[2 * i][0], x[2 * i][1]), pack(x[2 * i][2], x[2 * i][3]),
                             pack(x[2 * i + 1][0], x[2 * i + 1][1]),
                             pack(x[2 * i + 1][2], x[2 * i + 1][3])};
            #pragma unroll
            for (int j = 0; j < D / 16; j++) {
                unsigned f[4];
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
                             "{%0, %1, %2, %3}, [%4];"
                             : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                             : "r"(shared_address(&vs[now][i * 16 + lane % 16]
                                                     [j * 16 + lane / 16 * 8])) : "memory");
                mma(acc[2 * j], p, f[0], f[1]);
                mma(acc[2 * j + 1], p, f[2], f[3]);
            }
        }
    }
    for (int h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(~0u, sum[h], 1);
        sum[h] += __shfl_xor_sync(~0u, sum[h], 2);
        int row = row0 + warp * 16 + lane / 4 + 8 * h;
        if (row >= n) continue;
        float factor = 1.0f / sum[h];
        for (int j = 0; j < D / 8; j++)
            *reinterpret_cast<__half2*>(&o[row * D + 8 * j + lane % 4 * 2]) =
                __floats2half2_rn(acc[j][2 * h] * factor, acc[j][2 * h + 1] * factor);
        if (lane % 4 == 0) lse[row] = (top[h] + log2f(sum[h])) * 0.69314718f;
    }
}
