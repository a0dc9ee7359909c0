// Bulk copies (sm_90 and later): one thread starts them, mbarriers count the bytes that arrive.

#include <cuda_fp16.h>

__device__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

__device__ void init(unsigned long long& barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                 :: "r"(shared_address(&barrier)), "r"(count) : "memory");
}

__device__ void arrive(unsigned long long& barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
                 :: "r"(shared_address(&barrier)) : "memory");
}

__device__ void arrive_expect(unsigned long long& barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(shared_address(&barrier)), "r"(bytes) : "memory");
}

__device__ void wait(unsigned long long& barrier, unsigned parity) {
    asm volatile("{\n\t.reg .pred done;\n"
                 "again:\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                 "@!done bra again;\n\t}"
                 :: "r"(shared_address(&barrier)), "r"(parity) : "memory");
}

__device__ void fetch(void* to, const void* from, unsigned bytes, unsigned long long& barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];"
                 :: "r"(shared_address(to)), "l"(from), "r"(bytes), "r"(shared_address(&barrier))
                 : "memory");
}

__device__ void put(void* to, const void* from, unsigned bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                 :: "l"(to), "r"(shared_address(from)), "r"(bytes) : "memory");
}

__device__ void commit() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// What threads have written to shared memory becomes visible to bulk copies.
__device__ void fence_for_copies() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Reverse every row of 32 floats: one bulk copy in, one out.
extern "C" __global__ void reverse_rows(const float* x, float* y, int rows) {
    __shared__ __align__(128) float in[8][32];
    __shared__ __align__(128) float out[8][32];
    __shared__ unsigned long long full;
    int t = threadIdx.x, first = blockIdx.x * 8, count = min(8, rows - first);
    if (t == 0) {
        init(full, 1);
        fence_for_copies();
    }
    __syncthreads();
    if (t == 0) {
        arrive_expect(full, count * 128);
        fetch(in, x + first * 32, count * 128, full);
    }
    wait(full, 0);
    for (int i = t; i < count * 32; i += blockDim.x) out[i / 32][31 - i % 32] = in[i / 32][i % 32];
    fence_for_copies();
    __syncthreads();
    if (t == 0) {
        put(y + first * 32, out, count * 128);
        commit();
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}

// A warp brings in rows of 64 floats through a ring of three stages, three warps normalise them and
// one of their threads sends each row out of the place where it lies.
constexpr int STAGES = 3, ROW = 64;

extern "C" __global__ void __launch_bounds__(128) rms_norm(const float* x, float* y, int rows) {
    __shared__ __align__(128) float stage[STAGES][ROW];
    __shared__ unsigned long long full[STAGES], empty[STAGES];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) init(full[s], 1), init(empty[s], 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (warp == 3) {
        if (lane == 0)
            for (int i = 0, row = blockIdx.x; row < rows; row += gridDim.x, i++) {
                int s = i % STAGES;
                wait(empty[s], i / STAGES % 2 ^ 1);  // the first pass finds every stage free
                arrive_expect(full[s], ROW * 4);
                fetch(stage[s], x + row * ROW, ROW * 4, full[s]);
            }
        return;
    }
    int i = warp;  // the consumers take turns: warp w has the rows w, w + 3, ...
    for (int row = blockIdx.x + warp * gridDim.x; row < rows; row += 3 * gridDim.x, i += 3) {
        int s = i % STAGES;
        wait(full[s], i / STAGES % 2);
        float2* mine = reinterpret_cast<float2*>(stage[s]);
        float2 v = mine[lane];
        float sum = v.x * v.x + v.y * v.y;
        for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
        float scale = rsqrtf(sum / ROW + 1e-5f);
        mine[lane] = make_float2(v.x * scale, v.y * scale);
        fence_for_copies();
        __syncwarp();
        if (lane == 0) {
            put(y + row * ROW, stage[s], ROW * 4);
            commit();
            // The stage may be overwritten as soon as the copy has read it.
            asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
            arrive(empty[s]);
        }
    }
    if (lane == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Column sums: every block adds its partial sums to the result by one reducing bulk copy.
extern "C" __global__ void column_sums(const float* x, float* sums, int rows, int cols) {
    extern __shared__ __align__(128) float partial[];  // [cols], a multiple of 4
    for (int c = threadIdx.x; c < cols; c += blockDim.x) {
        float sum = 0.0f;
        for (int r = blockIdx.x; r < rows; r += gridDim.x) sum += x[r * cols + c];
        partial[c] = sum;
    }
    fence_for_copies();
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;"
                     :: "l"(sums), "r"(shared_address(partial)), "r"(cols * 4) : "memory");
        commit();
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}

// The same for unsigned maxima, with a copy of 16-byte pieces that several threads start.
extern "C" __global__ void column_max(const unsigned* x, unsigned* tops, int rows, int cols) {
    __shared__ __align__(16) unsigned partial[64][4];
    int c = threadIdx.x * 4;  // a thread has four columns, so no barrier is needed
    if (c < cols) {
        for (int i = 0; i < 4; i++) {
            unsigned top = 0;
            for (int r = blockIdx.x; r < rows; r += gridDim.x) top = max(top, x[r * cols + c + i]);
            partial[threadIdx.x][i] = top;
        }
        fence_for_copies();
        asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.max.u32 [%0], [%1], 16;"
                     :: "l"(tops + c), "r"(shared_address(partial[threadIdx.x])) : "memory");
        commit();
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}

// Half product with tensor cores: tiles of A (32 x 32) and B (32 x 32) are stored whole, so that
// one bulk copy brings each.  A producer warp fills two stages, four consumer warps empty them.
extern "C" __global__ void __launch_bounds__(160)
gemm_blocked(const __half* a, const __half* b, float* c, int n, int steps) {
    __shared__ __align__(128) __half as[2][32][32], bs[2][32][32];
    __shared__ unsigned long long full[2], empty[2];
    int t = threadIdx.x, warp = t / 32, lane = t % 32;
    if (t == 0) {
        for (int s = 0; s < 2; s++) init(full[s], 1), init(empty[s], 4);
        fence_for_copies();
    }
    __syncthreads();
    if (warp == 4) {
        unsigned elected;
        asm volatile("{\n\t.reg .pred p;\n\telect.sync _|p, 0xffffffff;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}" : "=r"(elected));
        if (elected)
            for (int i = 0; i < steps; i++) {
                int s = i % 2;
                wait(empty[s], i / 2 % 2 ^ 1);
                arrive_expect(full[s], 2 * sizeof(as[0]));
                fetch(as[s], a + (blockIdx.y * steps + i) * 1024, sizeof(as[0]), full[s]);
                fetch(bs[s], b + (i * gridDim.x + blockIdx.x) * 1024, sizeof(bs[0]), full[s]);
            }
    } else {
        int row = warp / 2 * 16, col = warp % 2 * 16;
        float d[2][4] = {};
        for (int i = 0; i < steps; i++) {
            int s = i % 2;
            wait(full[s], i / 2 % 2);
            for (int kk = 0; kk < 32; kk += 16) {
                unsigned x[4], y[4];
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                             : "r"(shared_address(&as[s][row + lane % 16][kk + lane / 16 * 8]))
                             : "memory");
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 "
                             "{%0, %1, %2, %3}, [%4];"
                             : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3])
                             : "r"(shared_address(&bs[s][kk + lane % 16][col + lane / 16 * 8]))
                             : "memory");
                for (int j = 0; j < 2; j++)
                    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                        : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
                        : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[2 * j]),
                          "r"(y[2 * j + 1]));
            }
            __syncwarp();
            if (lane == 0) arrive(empty[s]);
        }
        for (int j = 0; j < 2; j++)
            for (int h = 0; h < 2; h++) {
                int r = blockIdx.y * 32 + row + lane / 4 + 8 * h;
                int q = blockIdx.x * 32 + col + 8 * j + lane % 4 * 2;
                *reinterpret_cast<float2*>(&c[r * n + q]) =
                    make_float2(d[j][2 * h], d[j][2 * h + 1]);
            }
    }
}

// The copy named by the block's own window, several at once on one barrier, a prefetch before.
extern "C" __global__ void gather_rows(const float* table, const int* index, float* y, int count) {
    __shared__ __align__(16) float rows[8][16];
    __shared__ unsigned long long full;
    int t = threadIdx.x, first = blockIdx.x * 8, here = min(8, count - first);
    if (t == 0) {
        init(full, 32);
        fence_for_copies();
    }
    __syncthreads();
    // Every lane of the one warp arrives; those with a row expect its bytes too.
    if (t < here) {
        const float* from = table + index[first + t] * 16;
        asm volatile("cp.async.bulk.prefetch.L2.global [%0], 64;" :: "l"(from) : "memory");
        arrive_expect(full, 64);
        asm volatile("cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes "
                     "[%0], [%1], 64, [%2];"
                     :: "r"(shared_address(rows[t])), "l"(from), "r"(shared_address(&full))
                     : "memory");
    } else {
        arrive(full);
    }
    wait(full, 0);
    for (int i = t; i < here * 16; i += 32) y[first * 16 + i] = rows[i / 16][i % 16];
}
