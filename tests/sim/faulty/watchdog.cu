// Loops that never end.

// Values out of range are skipped, and the index with them.
extern "C" __global__ void index_not_advanced(const float* x, float* y, int n) {
    int i = threadIdx.x;
    while (i < n) {  // FAULT(index_not_advanced): watchdog: endless loop
        if (x[i] < 0) {  // FAULT(index_not_advanced): watchdog: endless loop
#ifdef FIXED
            y[i] = 0;
            i += blockDim.x;
#else
            y[i] = 0;  // FAULT(index_not_advanced): watchdog: endless loop
#endif
            continue;
        }
        y[i] = x[i];
        i += blockDim.x;
    }
}

// Bits from the highest to the lowest: an unsigned counter is never negative.
extern "C" __global__ void unsigned_countdown(const unsigned* x, unsigned char* bits) {
    unsigned value = x[threadIdx.x];
#ifdef FIXED
    for (int bit = 31; bit >= 0; --bit)
#else
    for (unsigned bit = 31; bit >= 0; --bit)  // FAULT(unsigned_countdown): watchdog: endless loop
#endif
        bits[32 * threadIdx.x + bit % 32] = value >> bit % 32 & 1;  // FAULT(unsigned_countdown): watchdog: endless loop
}

// A flag is waited for that nobody sets.
extern "C" __global__ void flag_never_set(volatile int* flags, float* y) {
    if (blockIdx.x == 0) {
        y[0] = 1;
        __threadfence();
#ifdef FIXED
        flags[1] = 1;
#else
        flags[0] = 1;
#endif
    } else {
        while (flags[blockIdx.x] == 0) {}  // FAULT(flag_never_set): watchdog: endless loop; synccheck: deadlock
        __threadfence();
        y[blockIdx.x] = y[0] + 1;
    }
}

// A lock is taken, and not given back by those who find nothing to do.
extern "C" __global__ void lock_not_given_back(int* lock, volatile int* most, const int* x) {
    int value = x[threadIdx.x];
    bool done = false;
    while (!done) {  // FAULT(lock_not_given_back): watchdog: endless loop; synccheck: deadlock
        if (atomicCAS(lock, 0, 1) == 0) {  // FAULT(lock_not_given_back): watchdog: endless loop; synccheck: deadlock
            __threadfence();
            if (value > *most) {
                *most = value;
#ifndef FIXED
                __threadfence();
                atomicExch(lock, 0);
#endif
            }
#ifdef FIXED
            __threadfence();
            atomicExch(lock, 0);
#endif
            done = true;
        }
    }
}

// Open addressing: a key that finds no place goes round and round in a full table.
extern "C" __global__ void full_hash_table(const int* keys, int* table, int slots, int* dropped) {
    int key = keys[threadIdx.x];
#ifdef FIXED
    for (int tried = 0; tried < slots; ++tried) {
        int before = atomicCAS(&table[(key + tried) % slots], -1, key);
        if (before == -1 || before == key) return;
    }
    atomicAdd(dropped, 1);
#else
    for (int at = key % slots;; at = (at + 1) % slots) {  // FAULT(full_hash_table): watchdog: endless loop
        int before = atomicCAS(&table[at], -1, key);
        if (before == -1 || before == key) return;  // FAULT(full_hash_table): watchdog: endless loop
    }
#endif
}

// A search by halving, which does not shrink an interval of two.
extern "C" __global__ void search_by_halving(const int* sorted, int n, const int* wanted, int* at) {
    int low = 0, high = n, key = wanted[threadIdx.x];
    while (low < high) {  // FAULT(search_by_halving): watchdog: endless loop
        int middle = (low + high) / 2;
        if (sorted[middle] < key)
#ifdef FIXED
            low = middle + 1;
#else
            low = middle;
#endif
        else
            high = middle;
    }
    at[threadIdx.x] = low;
}

// Free places of a pool are a list in an array; a place given back twice makes it a ring.
extern "C" __global__ void list_became_a_ring(int* next, int given_back, int* length) {
#ifdef FIXED
    if (next[given_back] == -2) {
#else
    {
#endif
        next[given_back] = next[0];
        next[0] = given_back;
    }
    int count = 0;
    for (int at = next[0]; at >= 0; at = next[at]) ++count;  // FAULT(list_became_a_ring): watchdog: endless loop
    *length = count;
}
