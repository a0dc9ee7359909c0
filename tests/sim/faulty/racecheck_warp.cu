// Races of one warp's lanes, which no longer run in step since sm_70.

// The last steps of a reduction as written for Kepler: no barrier, no volatile.
extern "C" __global__ void last_warp_in_step(const float* x, float* sums) {
    __shared__ float s[128];
    int t = threadIdx.x;
    s[t] = x[blockIdx.x * 128 + t];
    __syncthreads();
    if (t < 64) s[t] += s[t + 64];
    __syncthreads();
    if (t >= 32) return;
#ifdef FIXED
    for (int d = 32; d; d /= 2) {
        float other = s[t + d];
        __syncwarp();
        s[t] += other;
        __syncwarp();
    }
#else
    s[t] += s[t + 32];  // FAULT(last_warp_in_step): racecheck: read after write, write after read
    s[t] += s[t + 16];  // FAULT(last_warp_in_step): racecheck: read after write, write after read
    s[t] += s[t + 8];  // FAULT(last_warp_in_step): racecheck: read after write, write after read
    s[t] += s[t + 4];  // FAULT(last_warp_in_step): racecheck: read after write, write after read
    s[t] += s[t + 2];  // FAULT(last_warp_in_step): racecheck: read after write, write after read
    s[t] += s[t + 1];  // FAULT(last_warp_in_step): racecheck: read after write, write after read
#endif
    if (t == 0) sums[blockIdx.x] = s[0];
}

// A tree within each warp: the steps are barriers' business even among its lanes.
extern "C" __global__ void warp_tree(const float* x, float* sums) {
    __shared__ float s[4][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    s[warp][lane] = x[threadIdx.x];
    __syncwarp();
    for (int d = 16; d; d /= 2) {
        if (lane < d)
            s[warp][lane] += s[warp][lane + d];  // FAULT(warp_tree): racecheck: read after write, write after read
#ifdef FIXED
        __syncwarp();
#endif
    }
    if (lane == 0) sums[warp] = s[warp][0];
}

// Lane 0 collects what the others have just left.
extern "C" __global__ void lane_0_collects(const int* x, int* y) {
    __shared__ int seen[32];
    int lane = threadIdx.x;
    seen[lane] = x[lane] * x[lane];  // FAULT(lane_0_collects): racecheck: write after read
#ifdef FIXED
    __syncwarp();
#endif
    if (lane == 0) {
        int sum = 0;
        for (int i = 0; i < 32; ++i) sum += seen[i];  // FAULT(lane_0_collects): racecheck: read after write; initcheck: uninitialized read
        *y = sum;
    }
}

// A broadcast through shared memory where a shuffle would have done.
extern "C" __global__ void broadcast_without_shuffle(const float* x, float* y) {
    __shared__ float pivot[2];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) pivot[warp] = x[threadIdx.x];  // FAULT(broadcast_without_shuffle): racecheck: write after read
#ifdef FIXED
    __syncwarp();
#endif
    y[threadIdx.x] = x[threadIdx.x] / pivot[warp];  // FAULT(broadcast_without_shuffle): racecheck: read after write; initcheck: uninitialized read
}

// Lanes exchange values again and again through one row; reading is not waited for.
extern "C" __global__ void exchange_in_a_loop(const int* x, int* y, int steps) {
    __shared__ int row[32];
    int lane = threadIdx.x, value = x[lane];
    for (int s = 0; s < steps; ++s) {
        row[lane] = value;  // FAULT(exchange_in_a_loop): racecheck: write after read
        __syncwarp();
        value += row[(lane + 1) % 32];  // FAULT(exchange_in_a_loop): racecheck: read after write
#ifdef FIXED
        __syncwarp();
#endif
    }
    y[lane] = value;
}

// The barrier covers half of the warp; the other half's values are read too.
extern "C" __global__ void syncwarp_of_half(const int* x, int* y) {
    __shared__ int row[32];
    int lane = threadIdx.x;
    row[lane] = x[lane] + 1;  // FAULT(syncwarp_of_half): racecheck: write after read
#ifdef FIXED
    __syncwarp();
#else
    __syncwarp(lane < 16 ? 0x0000ffff : 0xffff0000);
#endif
    y[lane] = row[31 - lane];  // FAULT(syncwarp_of_half): racecheck: read after write; initcheck: uninitialized read
}
