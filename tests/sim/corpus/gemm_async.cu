// Matrix products whose tiles come by cp.async (sm_80 and later): C[m, n] = A[m, k] B[k, n].
// Blocks of 64 threads make tiles of 32 x 32 results in steps of 16.

constexpr int TM = 32, TN = 32, TK = 16, THREADS = 64;

struct Stage {
    float a[TM][TK];
    float b[TK][TN];
};

__device__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

// 16 bytes past the first-level cache; only the first `bytes` are read, zeros follow.
__device__ void copy16(void* to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}

template <int BYTES>
__device__ void copy_narrow(void* to, const void* from, bool in) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(in ? BYTES : 0) : "memory");
}

__device__ void commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING>
__device__ void wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

struct Shape {
    int m, n, k, lda, ldb;
};

// Start the copies of one step: rows begin at multiples of 16 bytes, but m, n and k are arbitrary.
__device__ void fetch(Stage& s, const float* a, const float* b, Shape p, int row0, int col0,
                      int k0) {
    #pragma unroll 1
    for (int i = threadIdx.x; i < TM * TK / 4; i += THREADS) {
        int r = i / (TK / 4), q = i % (TK / 4) * 4;
        int left = row0 + r < p.m ? min(4, max(0, p.k - k0 - q)) : 0;
        copy16(&s.a[r][q], left ? &a[(row0 + r) * p.lda + k0 + q] : a, 4 * left);
    }
    #pragma unroll 1
    for (int i = threadIdx.x; i < TK * TN / 4; i += THREADS) {
        int r = i / (TN / 4), q = i % (TN / 4) * 4;
        int left = k0 + r < p.k ? min(4, max(0, p.n - col0 - q)) : 0;
        copy16(&s.b[r][q], left ? &b[(k0 + r) * p.ldb + col0 + q] : b, 4 * left);
    }
}

__device__ void multiply(const Stage& s, float (&acc)[4][4]) {
    int tx = threadIdx.x % 8, ty = threadIdx.x / 8;
    #pragma unroll 4
    for (int p = 0; p < TK; p++) {
        float4 y = *reinterpret_cast<const float4*>(&s.b[p][4 * tx]);
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            float x = s.a[ty + 8 * i][p];
            acc[i][0] += x * y.x, acc[i][1] += x * y.y;
            acc[i][2] += x * y.z, acc[i][3] += x * y.w;
        }
    }
}

__device__ void store(float* c, Shape p, int row0, int col0, const float (&acc)[4][4]) {
    int tx = threadIdx.x % 8, ty = threadIdx.x / 8;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int row = row0 + ty + 8 * i, col = col0 + 4 * tx + j;
            if (row < p.m && col < p.n) c[row * p.n + col] = acc[i][j];
        }
}

// Two buffers; the copies of the next step are in flight while this one is multiplied.
extern "C" __global__ void gemm_groups(const float* a, const float* b, float* c, Shape p) {
    __shared__ __align__(16) Stage stages[2];
    int row0 = blockIdx.y * TM, col0 = blockIdx.x * TN, steps = (p.k + TK - 1) / TK;
    float acc[4][4] = {};
    fetch(stages[0], a, b, p, row0, col0, 0);
    commit();
    for (int s = 0; s < steps; s++) {
        if (s + 1 < steps) {
            fetch(stages[(s + 1) % 2], a, b, p, row0, col0, (s + 1) * TK);
            commit();
            wait<1>();
        } else {
            wait<0>();
        }
        __syncthreads();  // what the other threads have copied is there too
        multiply(stages[s % 2], acc);
        __syncthreads();  // all have read the buffer that the next step overwrites
    }
    store(c, p, row0, col0, acc);
}

// A ring of four stages in dynamic shared memory, with one barrier a step.  A group is committed in
// every step, empty at the end, so that the number of pending groups stays the same.
extern "C" __global__ void gemm_ring(const float* a, const float* b, float* c, Shape p) {
    extern __shared__ __align__(16) unsigned char memory[];
    constexpr int STAGES = 4;
    Stage* stages = reinterpret_cast<Stage*>(memory);
    int row0 = blockIdx.y * TM, col0 = blockIdx.x * TN, steps = (p.k + TK - 1) / TK;
    float acc[4][4] = {};
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) fetch(stages[s], a, b, p, row0, col0, s * TK);
        commit();
    }
    for (int s = 0; s < steps; s++) {
        wait<STAGES - 2>();
        __syncthreads();
        int next = s + STAGES - 1;
        if (next < steps) fetch(stages[next % STAGES], a, b, p, row0, col0, next * TK);
        commit();
        multiply(stages[s % STAGES], acc);
    }
    store(c, p, row0, col0, acc);
}

// Arbitrary alignment: A is copied by 4 bytes and transposed on the way, B is copied by 8 bytes.
extern "C" __global__ void gemm_narrow(const float* a, const float* b, float* c, Shape p) {
    __shared__ __align__(16) float as[2][TK][TM + 1], bs[2][TK][TN];
    int row0 = blockIdx.y * TM, col0 = blockIdx.x * TN, steps = (p.k + TK - 1) / TK;
    int t = threadIdx.x, tx = t % 8, ty = t / 8;
    auto get = [&](int s) {
        int k0 = s * TK;
        #pragma unroll 1
        for (int i = t; i < TM * TK; i += THREADS) {
            int r = i / TK, q = i % TK;
            bool in = row0 + r < p.m && k0 + q < p.k;
            copy_narrow<4>(&as[s % 2][q][r], in ? &a[(row0 + r) * p.lda + k0 + q] : a, in);
        }
        #pragma unroll 1
        for (int i = t; i < TK * TN / 2; i += THREADS) {
            int r = i / (TN / 2), q = i % (TN / 2) * 2;
            bool in = k0 + r < p.k && col0 + q < p.n;  // n is even
            copy_narrow<8>(&bs[s % 2][r][q], in ? &b[(k0 + r) * p.ldb + col0 + q] : b, in);
        }
    };
    float acc[4][4] = {};
    get(0);
    commit();
    for (int s = 0; s < steps; s++) {
        asm volatile("cp.async.wait_all;" ::: "memory");
        __syncthreads();
        if (s + 1 < steps) {
            get(s + 1);
            commit();
        }
        #pragma unroll 2
        for (int q = 0; q < TK; q++)
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++)
                    acc[i][j] += as[s % 2][q][ty + 8 * i] * bs[s % 2][q][4 * tx + j];
    }
    store(c, p, row0, col0, acc);
}

// Instead of groups and barriers, an mbarrier a stage: every thread's arrival counts when the
// copies that it has started before are done.
extern "C" __global__ void gemm_mbarrier(const float* a, const float* b, float* c, Shape p) {
    __shared__ __align__(16) Stage stages[2];
    __shared__ unsigned long long full[2];
    int row0 = blockIdx.y * TM, col0 = blockIdx.x * TN, steps = (p.k + TK - 1) / TK;
    if (threadIdx.x < 2)
        asm volatile("mbarrier.init.shared.b64 [%0], %1;"
                     :: "r"(shared_address(&full[threadIdx.x])), "r"(THREADS) : "memory");
    __syncthreads();
    auto start = [&](int s) {
        fetch(stages[s % 2], a, b, p, row0, col0, s * TK);
        asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];"
                     :: "r"(shared_address(&full[s % 2])) : "memory");
    };
    float acc[4][4] = {};
    start(0);
    for (int s = 0; s < steps; s++) {
        if (s + 1 < steps) start(s + 1);
        unsigned done = 0;
        while (!done)
            asm volatile("{\n\t.reg .pred p;\n\t"
                         "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n\t"
                         "selp.u32 %0, 1, 0, p;\n\t}"
                         : "=r"(done) : "r"(shared_address(&full[s % 2])), "r"(s / 2 % 2)
                         : "memory");
        multiply(stages[s % 2], acc);
        __syncthreads();  // before the stage is overwritten
    }
    store(c, p, row0, col0, acc);
    if (threadIdx.x < 2)
        asm volatile("mbarrier.inval.shared.b64 [%0];"
                     :: "r"(shared_address(&full[threadIdx.x])) : "memory");
}
