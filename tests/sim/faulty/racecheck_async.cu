// Races around named barriers, barriers in shared memory and asynchronous copies (sm_80).
#include "async.cuh"

// Two halves of a block exchange their rows, but each waits at a barrier of its own.
extern "C" __global__ void barrier_of_the_half(const float* x, float* y) {
    __shared__ float row[128];
    int t = threadIdx.x, half = t / 64;
    row[t] = x[t] * x[t];  // FAULT(barrier_of_the_half): racecheck: write after read
#ifdef FIXED
    bar_sync(1, 128);
#else
    bar_sync(1 + half, 64);
#endif
    y[t] = row[t ^ 64] + half;  // FAULT(barrier_of_the_half): racecheck: read after write; initcheck: uninitialized read
}

// One warp produces, another consumes; the consumer says nowhere that it is done with a tile.
extern "C" __global__ void no_empty_barrier(const float* x, float* sums, int steps) {
    __shared__ float tile[32];
    int lane = threadIdx.x % 32;
    if (threadIdx.x < 32) {
        for (int s = 0; s < steps; ++s) {
#ifdef FIXED
            if (s) bar_sync(2, 64);
#endif
            tile[lane] = x[s * 32 + lane];  // FAULT(no_empty_barrier): racecheck: write after read
            bar_sync(1, 64);
        }
    } else {
        float sum = 0;
        for (int s = 0; s < steps; ++s) {
            bar_sync(1, 64);
            sum += tile[31 - lane];  // FAULT(no_empty_barrier): racecheck: read after write
#ifdef FIXED
            if (s + 1 < steps) bar_sync(2, 64);
#endif
        }
        sums[lane] = sum;
    }
}

// Producers arrive and go on; the consumers meet at another barrier than theirs.
extern "C" __global__ void consumer_at_own_barrier(const float* x, float* y) {
    __shared__ float tile[64];
    int t = threadIdx.x;
    if (t < 64) {
        tile[t] = 2 * x[t];  // FAULT(consumer_at_own_barrier): racecheck: write after read
        bar_arrive(1, 128);
    } else {
#ifdef FIXED
        bar_sync(1, 128);
#else
        bar_sync(2, 64);
#endif
        y[t - 64] = tile[127 - t];  // FAULT(consumer_at_own_barrier): racecheck: read after write; initcheck: uninitialized read
    }
}

// The consumer does not flip the parity that it waits for: from the second tile on it waits for one
// that it has had (or in vain, if the producer is quick).
extern "C" __global__ void parity_not_flipped(const float* x, float* sums, int steps) {
    __shared__ float tile[32];
    __shared__ mbarrier full, empty;
    int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        mbarrier_init(&full, 32);
        mbarrier_init(&empty, 32);
    }
    __syncthreads();
    if (threadIdx.x >= 32) {
        for (int s = 0; s < steps; ++s) {
            mbarrier_wait(&empty, (s + 1) % 2);  // FAULT(parity_not_flipped): synccheck: deadlock; watchdog: endless loop
            tile[lane] = x[s * 32 + lane];  // FAULT(parity_not_flipped): racecheck: write after read
            mbarrier_arrive(&full);
        }
    } else {
        float sum = 0;
        for (int s = 0; s < steps; ++s) {
#ifdef FIXED
            mbarrier_wait(&full, s % 2);
#else
            mbarrier_wait(&full, 0);  // FAULT(parity_not_flipped): synccheck: deadlock; watchdog: endless loop
#endif
            sum += tile[31 - lane];  // FAULT(parity_not_flipped): racecheck: read after write
            mbarrier_arrive(&empty);
        }
        sums[lane] = sum;
    }
}

// Each thread waits for its own copies, which says nothing of the others'.
extern "C" __global__ void waited_for_own_copies(const float4* x, float4* y) {
    __shared__ float4 tile[128];
    int t = threadIdx.x;
    cp_async_16(&tile[t], x + t);  // FAULT(waited_for_own_copies): racecheck: write after read
    cp_async_commit();
    cp_async_wait<0>();
#ifdef FIXED
    __syncthreads();
#endif
    y[t] = tile[127 - t];  // FAULT(waited_for_own_copies): racecheck: read after write; initcheck: uninitialized read
}

// The next stage is fetched into the place that slow warps still read.
extern "C" __global__ void prefetch_too_early(const float4* x, float4* y, int steps) {
    __shared__ float4 ring[2][64];
    int t = threadIdx.x;
    float4 sum = make_float4(0, 0, 0, 0);
    cp_async_16(&ring[0][t], x + t);
    cp_async_commit();
    for (int s = 0; s < steps; ++s) {
        if (s + 1 < steps)
            cp_async_16(&ring[(s + 1) % 2][t], x + (s + 1) * 64 + t);  // FAULT(prefetch_too_early): racecheck: write after read
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        float4 v = ring[s % 2][63 - t];  // FAULT(prefetch_too_early): racecheck: read after write
        sum.x += v.x; sum.y += v.y; sum.z += v.z; sum.w += v.w;
#ifdef FIXED
        __syncthreads();
#endif
    }
    y[t] = sum;
}

// Fragments are loaded with ldmatrix before the other warps have stored their rows.
extern "C" __global__ void ldmatrix_too_early(const uint4* x, uint4* fragments) {
    __shared__ uint4 tile[64];
    int t = threadIdx.x;
    tile[t] = x[t];  // FAULT(ldmatrix_too_early): racecheck: write after read
#ifdef FIXED
    __syncthreads();
#endif
    unsigned r[4];
    ldmatrix_x4(r, &tile[63 - t]);  // FAULT(ldmatrix_too_early): racecheck: read after write; initcheck: uninitialized read
    fragments[t] = make_uint4(r[0], r[1], r[2], r[3]);
}

// A split barrier: between arrival and wait a thread writes what the others may read already.
extern "C" __global__ void written_after_arrival(const float* x, float* y) {
    __shared__ float row[64];
    __shared__ mbarrier ready;
    int t = threadIdx.x;
    if (t == 0) mbarrier_init(&ready, 64);
    __syncthreads();
#ifdef FIXED
    row[t] = x[t] + 3;
    mbarrier_arrive(&ready);
#else
    mbarrier_arrive(&ready);
    row[t] = x[t] + 3;  // FAULT(written_after_arrival): racecheck: write after read
#endif
    mbarrier_wait(&ready, 0);
    y[t] = row[63 - t];  // FAULT(written_after_arrival): racecheck: read after write; initcheck: uninitialized read
}
