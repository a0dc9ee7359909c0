// Masks of warp operations that do not go with the lanes that are there.

// A reduction by half of a warp, whose mask names all of it.
extern "C" __global__ void full_mask_in_branch(const float* x, float* y) {
    int lane = threadIdx.x;
    float v = x[lane];
    if (lane < 16) {
#ifdef FIXED
        for (int d = 8; d; d /= 2) v += __shfl_down_sync(0x0000ffff, v, d);
#else
        for (int d = 8; d; d /= 2)
            v += __shfl_down_sync(0xffffffff, v, d);  // FAULT(full_mask_in_branch): synccheck: invalid mask
#endif
    }
    y[lane] = v;
}

// Lanes without data leave, and are named by the mask.
extern "C" __global__ void mask_of_the_gone(const float* x, float* y, int n) {
    int lane = threadIdx.x;
#ifdef FIXED
    float v = lane < n ? x[lane] : 0;
#else
    if (lane >= n) return;
    float v = x[lane];
#endif
    for (int d = 16; d; d /= 2)
        v += __shfl_xor_sync(0xffffffff, v, d);  // FAULT(mask_of_the_gone): synccheck: invalid mask
    if (lane < n) y[lane] = v;
}

// Both halves of a warp reduce at once, under the mask of the first.
extern "C" __global__ void mask_without_caller(const float* x, float* y) {
    int lane = threadIdx.x;
    float v = x[lane];
#ifdef FIXED
    unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
#else
    unsigned mask = 0x0000ffffu;
#endif
    for (int d = 8; d; d /= 2)
        v += __shfl_xor_sync(mask, v, d);  // FAULT(mask_without_caller): synccheck: invalid mask
    y[lane] = v;
}

// Groups of eight lanes; the barrier's mask is that of the first group.
extern "C" __global__ void syncwarp_of_first_group(const int* x, int* y) {
    __shared__ int row[32];
    int lane = threadIdx.x, group = lane / 8;
    row[lane] = x[lane];
#ifdef FIXED
    __syncwarp(0xffu << 8 * group);
#else
    __syncwarp(0xffu);  // FAULT(syncwarp_of_first_group): synccheck: invalid mask
#endif
    y[lane] = row[8 * group + (lane + 1) % 8];  // FAULT(syncwarp_of_first_group): racecheck: read after write
}

// Lanes go round as often as their lists are long, and vote in each round.
extern "C" __global__ void vote_in_uneven_loop(const int* lengths, int* rounds) {
    int lane = threadIdx.x, count = 0;
#ifdef FIXED
    for (int left = lengths[lane]; __any_sync(0xffffffff, left > 0); --left)
        count += __popc(__ballot_sync(0xffffffff, left > 0)) > 16;
#else
    for (int left = lengths[lane]; left > 0; --left)
        count += __popc(__ballot_sync(0xffffffff, left > 0)) > 16;  // FAULT(vote_in_uneven_loop): synccheck: invalid mask
#endif
    rounds[lane] = count;
}

// The mask was taken for those who vote yes, and is used by those who vote no.
extern "C" __global__ void mask_of_the_others(const int* x, int* y) {
    int lane = threadIdx.x;
    unsigned positive = __ballot_sync(0xffffffff, x[lane] > 0);
    if (x[lane] > 0) {
        y[lane] = __popc(positive);
    } else {
#ifdef FIXED
        unsigned group = __match_any_sync(~positive, x[lane]);
#else
        unsigned group = __match_any_sync(positive, x[lane]);  // FAULT(mask_of_the_others): synccheck: invalid mask
#endif
        y[lane] = -__popc(group);
    }
}

// A prefix sum by shuffles: each step asks only the lanes that have a left neighbour.
extern "C" __global__ void shuffle_under_condition(const int* x, int* y) {
    int lane = threadIdx.x, v = x[lane];
    for (int d = 1; d < 32; d *= 2) {
#ifdef FIXED
        int left = __shfl_up_sync(0xffffffff, v, d);
        if (lane >= d) v += left;
#else
        if (lane >= d) v += __shfl_up_sync(0xffffffff, v, d);  // FAULT(shuffle_under_condition): synccheck: invalid mask
#endif
    }
    y[lane] = v;
}
