// Races between blocks that go by flags, locks and tickets.

// The last block to finish adds up what all have left; without a fence it may read old values.
extern "C" __global__ void last_block_without_fence(const float* x, float* partial, unsigned* done, float* sum) {
    __shared__ bool last;
    float mine = 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < 64; ++i) mine += x[blockIdx.x * 64 + i];
        partial[blockIdx.x] = mine;
#ifdef FIXED
        __threadfence();
#endif
        last = atomicAdd(done, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x) return;
#ifdef FIXED
    __threadfence();
#endif
    float total = 0;
    for (int b = 0; b < gridDim.x; ++b) total += partial[b];  // FAULT(last_block_without_fence): racecheck: read after write
    *sum = total;
    *done = 0;  // FAULT(last_block_without_fence): racecheck: write after write, write after read
}

// A block hands data to another by a flag, without a fence on either side.
extern "C" __global__ void flag_without_fence(const float* x, float* data, volatile int* flag, float* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = 2 * x[t];
        __syncthreads();
        if (t == 0) {
#ifdef FIXED
            __threadfence();
#endif
            *flag = 1;
        }
    } else {
        if (t == 0) {
            while (*flag == 0) {}
#ifdef FIXED
            __threadfence();
#endif
        }
        __syncthreads();
        y[t] = data[t] + 1;  // FAULT(flag_without_fence): racecheck: read after write
    }
}

// The fence stands behind the flag, which may be seen before the data then.
extern "C" __global__ void fence_after_flag(const float* x, float* data, volatile int* flag, float* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = 2 * x[t];
#ifdef FIXED
        __threadfence();
        flag[t] = 1;
#else
        flag[t] = 1;
        __threadfence();
#endif
    } else {
        while (flag[t] == 0) {}
        __threadfence();
        y[t] = data[t] + 1;  // FAULT(fence_after_flag): racecheck: read after write
    }
}

// The fence orders writes for the block only; the reader is in another.
extern "C" __global__ void fence_of_the_block(const float* x, float* data, volatile int* flag, float* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = 2 * x[t];
#ifdef FIXED
        __threadfence();
#else
        __threadfence_block();
#endif
        flag[t] = 1;
    } else {
        while (flag[t] == 0) {}
        __threadfence();
        y[t] = data[t] + 1;  // FAULT(fence_of_the_block): racecheck: read after write
    }
}

// One thread publishes for its block, but the block has not met before.
extern "C" __global__ void published_too_early(const float* x, float* data, volatile int* flag, float* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = 2 * x[t];  // FAULT(published_too_early): racecheck: write after read
#ifdef FIXED
        __syncthreads();
#endif
        if (t == 0) {
            __threadfence();
            *flag = 1;
        }
    } else {
        if (t == 0) {
            while (*flag == 0) {}
            __threadfence();
        }
        __syncthreads();
        y[t] = data[t] + 1;  // FAULT(published_too_early): racecheck: read after write; initcheck: uninitialized read
    }
}

// The same within a warp: lane 0 publishes what the other lanes wrote.
extern "C" __global__ void published_by_lane_0(const float* x, float* data, volatile int* flag, float* y) {
    int lane = threadIdx.x;
    if (blockIdx.x == 0) {
        data[lane] = 2 * x[lane];  // FAULT(published_by_lane_0): racecheck: write after read
#ifdef FIXED
        __syncwarp();
#endif
        if (lane == 0) {
            __threadfence();
            *flag = 1;
        }
    } else {
        if (lane == 0) {
            while (*flag == 0) {}
            __threadfence();
        }
        __syncwarp();
        y[lane] = data[lane] + 1;  // FAULT(published_by_lane_0): racecheck: read after write; initcheck: uninitialized read
    }
}

// The readers of the flag are one thread; the others of its block do not wait for it.
extern "C" __global__ void waited_for_alone(const float* x, float* data, volatile int* flag, float* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = 2 * x[t];  // FAULT(waited_for_alone): racecheck: write after read
        __syncthreads();
        if (t == 0) {
            __threadfence();
            *flag = 1;
        }
    } else {
        if (t == 0) {
            while (*flag == 0) {}
            __threadfence();
        }
#ifdef FIXED
        __syncthreads();
#endif
        y[t] = data[t] + 1;  // FAULT(waited_for_alone): racecheck: read after write; initcheck: uninitialized read
    }
}

// A lock keeps blocks out of each other's way, but says nothing of when their writes are seen.
extern "C" __global__ void lock_without_fences(int* lock, int* data, int rounds) {
    if (threadIdx.x) return;
    for (int r = 0; r < rounds; ++r) {
        while (atomicCAS(lock, 0, 1) != 0) {}
#ifdef FIXED
        __threadfence();
#endif
        data[0] += 1;  // FAULT(lock_without_fences): racecheck: read after write, write after read, write after write
        data[1] += data[0];  // FAULT(lock_without_fences): racecheck: read after write, write after read, write after write
#ifdef FIXED
        __threadfence();
#endif
        atomicExch(lock, 0);
    }
}

// The lock is given back before the last write under it.
extern "C" __global__ void unlocked_too_early(int* lock, int* data, int rounds) {
    if (threadIdx.x) return;
    for (int r = 0; r < rounds; ++r) {
        while (atomicCAS(lock, 0, 1) != 0) {}
        __threadfence();
        int sum = data[0] + 1;  // FAULT(unlocked_too_early): racecheck: read after write
#ifdef FIXED
        data[0] = sum;
        __threadfence();
        atomicExch(lock, 0);
#else
        __threadfence();
        atomicExch(lock, 0);
        data[0] = sum;  // FAULT(unlocked_too_early): racecheck: write after read, write after write
#endif
    }
}

// The lock is given back by a plain store, which may be kept back or torn from the atomics' order.
extern "C" __global__ void unlocked_by_plain_store(int* lock, int* data, int rounds) {
    if (threadIdx.x) return;
    for (int r = 0; r < rounds; ++r) {
        while (atomicCAS(lock, 0, 1) != 0) {}  // FAULT(unlocked_by_plain_store): racecheck: read after write, write after write
        __threadfence();
        data[0] += 1;  // FAULT(unlocked_by_plain_store): racecheck: read after write, write after read, write after write
        __threadfence();
#ifdef FIXED
        atomicExch(lock, 0);
#else
        *lock = 0;  // FAULT(unlocked_by_plain_store): racecheck: write after read, write after write
#endif
    }
}

// A scan that looks back: sums and their state are two words, and nothing orders them.
extern "C" __global__ void look_back_without_fence(const int* x, int* sums, volatile int* state, int* y) {
    __shared__ int before;
    int t = threadIdx.x, b = blockIdx.x;
    int mine = x[b * 32 + t];
    for (int d = 1; d < 32; d *= 2) {
        int left = __shfl_up_sync(0xffffffff, mine, d);
        if (t >= d) mine += left;
    }
    if (t == 31) {
        int sum = 0;
        if (b) {
            while (state[b - 1] == 0) {}
#ifdef FIXED
            __threadfence();
#endif
            sum = sums[b - 1];  // FAULT(look_back_without_fence): racecheck: read after write
        }
        before = sum;
        sums[b] = sum + mine;
#ifdef FIXED
        __threadfence();
#endif
        state[b] = 1;
    }
    __syncwarp();
    y[b * 32 + t] = before + mine;
}

// A queue: a place is taken and counted before its item is there.
extern "C" __global__ void queue_before_item(const int* x, int* items, int* taken, int* ready, int* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        int at = atomicAdd(taken, 1);
        items[at] = x[t] + 100;  // FAULT(queue_before_item): racecheck: write after read
#ifdef FIXED
        __threadfence();
        atomicExch(&ready[at], 1);
#endif
    } else {
#ifdef FIXED
        while (atomicAdd(&ready[t], 0) == 0) {}
        __threadfence();
#else
        while (atomicAdd(taken, 0) <= t) {}
        __threadfence();
#endif
        y[t] = items[t];  // FAULT(queue_before_item): racecheck: read after write; initcheck: uninitialized read
    }
}

// A barrier of the grid whose threads pass when all have come, but without fences.
extern "C" __global__ void grid_barrier_without_fence(const float* x, float* data, unsigned* arrived, float* y) {
    int n = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    data[i] = 3 * x[i];
    __syncthreads();
    if (threadIdx.x == 0) {
#ifdef FIXED
        __threadfence();
#endif
        atomicAdd(arrived, 1u);
        while (atomicAdd(arrived, 0u) < gridDim.x) {}
#ifdef FIXED
        __threadfence();
#endif
    }
    __syncthreads();
    y[i] = data[n - 1 - i];  // FAULT(grid_barrier_without_fence): racecheck: read after write
}

// The reader of the flag acquires, but the writer does not release.
extern "C" __global__ void flag_is_relaxed(const int* x, int* data, int* flag, int* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = x[t] * 5;
#ifdef FIXED
        asm volatile("st.release.gpu.global.u32 [%0], %1;" :: "l"(flag + t), "r"(1) : "memory");
#else
        asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" :: "l"(flag + t), "r"(1) : "memory");
#endif
    } else {
        int seen = 0;
        while (!seen)
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(flag + t) : "memory");
        y[t] = data[t];  // FAULT(flag_is_relaxed): racecheck: read after write
    }
}

// One thread waits for the flag, relaxed; the barrier behind it is no fence for another block's data.
extern "C" __global__ void barrier_for_fence(const float* x, float* data, unsigned* flag, float* y) {
    int t = threadIdx.x;
    if (blockIdx.x == 0) {
        data[t] = 2 * x[t];
        __syncthreads();
        if (t == 0) asm volatile("st.release.gpu.global.u32 [%0], 1;" :: "l"(flag) : "memory");
    } else {
        unsigned seen = 0;
        while (t == 0 && !seen)
#ifdef FIXED
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(flag) : "memory");
#else
            asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(flag) : "memory");
#endif
        __syncthreads();
        y[t] = data[t] + 1;  // FAULT(barrier_for_fence): racecheck: read after write
    }
}

// The last block is found by a ticket, but only its first warp has passed a fence since.
extern "C" __global__ void ticket_for_fence(const float* x, float* partial, unsigned* ticket, float* y) {
    __shared__ bool last;
    int t = threadIdx.x;
    if (t < 2) partial[2 * blockIdx.x + t] = x[2 * blockIdx.x + t] * 3;
    __threadfence();
    __syncthreads();
    if (t == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    __syncthreads();
#ifdef FIXED
    __threadfence();
#else
    if (t < 32) __threadfence();
#endif
    if (last) y[t] = partial[t];  // FAULT(ticket_for_fence): racecheck: read after write
}
