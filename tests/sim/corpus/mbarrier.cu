// Barrier objects in shared memory (sm_80 and later): phases, counted arrivals, stages that are
// handed between producer and consumer warps.

__device__ unsigned shared_address(const void* p) {
    return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

typedef unsigned long long Barrier;

__device__ void init(Barrier& barrier, int count) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;"
                 :: "r"(shared_address(&barrier)), "r"(count) : "memory");
}

__device__ Barrier arrive(Barrier& barrier) {
    Barrier state;
    asm volatile("mbarrier.arrive.shared.b64 %0, [%1];"
                 : "=l"(state) : "r"(shared_address(&barrier)) : "memory");
    return state;
}

__device__ Barrier drop(Barrier& barrier) {
    Barrier state;
    asm volatile("mbarrier.arrive_drop.shared.b64 %0, [%1];"
                 : "=l"(state) : "r"(shared_address(&barrier)) : "memory");
    return state;
}

// Wait for the end of the phase in which `state` was returned.
__device__ void wait(Barrier& barrier, Barrier state) {
    unsigned done;
    do {
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.test_wait.shared.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done) : "r"(shared_address(&barrier)), "l"(state) : "memory");
    } while (!done);
}

__device__ void wait_parity(Barrier& barrier, unsigned parity) {
    unsigned done;
    do {
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done) : "r"(shared_address(&barrier)), "r"(parity) : "memory");
    } while (!done);
}

// An inclusive scan of a block whose steps are separated by phases instead of __syncthreads.
extern "C" __global__ void scan_by_phases(const int* x, int* y, int n) {
    __shared__ int values[2][128];
    __shared__ Barrier barrier;
    int t = threadIdx.x, i = blockIdx.x * 128 + t, now = 0;
    if (t == 0) init(barrier, 128);
    __syncthreads();
    values[0][t] = i < n ? x[i] : 0;
    wait(barrier, arrive(barrier));
    for (int step = 1; step < 128; step *= 2, now ^= 1) {
        values[now ^ 1][t] = values[now][t] + (t >= step ? values[now][t - step] : 0);
        wait(barrier, arrive(barrier));
    }
    if (i < n) y[i] = values[now][t];
}

// Split arrive and wait: what needs nobody else's values is done between them.
extern "C" __global__ void neighbours(const float* x, float* y, int n) {
    __shared__ float values[96];
    __shared__ Barrier barrier;
    int t = threadIdx.x, i = blockIdx.x * 96 + t;
    if (t == 0) init(barrier, blockDim.x);
    __syncthreads();
    float mine = i < n ? x[i] : 0.0f;
    values[t] = mine;
    Barrier state = arrive(barrier);
    float root = sqrtf(fabsf(mine));
    wait(barrier, state);
    if (i < n) y[i] = root + values[(t + 1) % 96] + values[(t + 95) % 96];
}

// Two producer warps and two consumer warps share a ring of two stages.
extern "C" __global__ void specialised(const float* x, float* sums, int chunks) {
    __shared__ float stage[2][64];
    __shared__ Barrier full[2], empty[2];
    int t = threadIdx.x;
    if (t == 0)
        for (int s = 0; s < 2; s++) init(full[s], 64), init(empty[s], 64);
    __syncthreads();
    if (t < 64) {
        for (int i = 0; i < chunks; i++) {
            wait_parity(empty[i % 2], i / 2 % 2 ^ 1);
            stage[i % 2][t] = x[(blockIdx.x * chunks + i) * 64 + t];
            arrive(full[i % 2]);
        }
    } else {
        float sum = 0.0f;
        t -= 64;
        for (int i = 0; i < chunks; i++) {
            wait_parity(full[i % 2], i / 2 % 2);
            sum += stage[i % 2][t] * stage[i % 2][63 - t];
            arrive(empty[i % 2]);
        }
        sums[blockIdx.x * 64 + t] = sum;
    }
}

// A thread that leaves the loop takes itself out of all later phases.  Thread 0 stays longest.
extern "C" __global__ void dropping_out(const int* rounds, int* last, int n) {
    __shared__ int total;
    __shared__ Barrier barrier;
    int t = threadIdx.x, mine = t < n ? rounds[t] : 0;
    if (t == 0) {
        init(barrier, blockDim.x);
        total = 0;
    }
    __syncthreads();
    int seen = 0;
    for (int r = 0; r < mine; r++) {
        atomicAdd(&total, 1);
        wait(barrier, arrive(barrier));
        seen = *(volatile int*)&total;
        wait(barrier, arrive(barrier));
    }
    if (t > 0) drop(barrier);
    if (t < n) last[t] = seen;
}

// Arrivals that cannot complete the phase, and the count that is still pending after each.
extern "C" __global__ void pending(unsigned* counts) {
    __shared__ Barrier barrier;
    if (threadIdx.x == 0) {
        init(barrier, 7);
        Barrier state;
        for (unsigned i = 1; i <= 3; i++) {
            asm volatile("mbarrier.arrive.noComplete.shared.b64 %0, [%1], %2;"
                         : "=l"(state) : "r"(shared_address(&barrier)), "r"(i) : "memory");
            unsigned left;
            asm volatile("mbarrier.pending_count.b64 %0, %1;" : "=r"(left) : "l"(state));
            counts[i - 1] = left;
        }
        state = arrive(barrier);  // the seventh
        wait(barrier, state);
        asm volatile("mbarrier.inval.shared.b64 [%0];"
                     :: "r"(shared_address(&barrier)) : "memory");
        *(volatile Barrier*)&barrier = 5;  // plain memory again
        counts[3] = *(volatile Barrier*)&barrier;
    }
}
