// Programs that stop themselves.

// What must not be there is met with a trap.
extern "C" __global__ void trap_on_bad_token(const int* ids, int vocabulary, int* counts) {
    int id = ids[threadIdx.x];
#ifdef FIXED
    if (id < 0 || id >= vocabulary) return;
#else
    if (id < 0 || id >= vocabulary) __trap();  // FAULT(trap_on_bad_token): program: trap
#endif
    atomicAdd(&counts[id], 1);
}

// The default of a switch was meant to be out of reach.
extern "C" __global__ void trap_in_switch(const int* kinds, const float* x, float* y) {
    int t = threadIdx.x;
    switch (kinds[t]) {
        case 0: y[t] = x[t]; break;
        case 1: y[t] = fmaxf(x[t], 0); break;
        case 2: y[t] = tanhf(x[t]); break;
#ifdef FIXED
        case 3: y[t] = x[t] * x[t]; break;
#endif
        default: asm volatile("trap;");  // FAULT(trap_in_switch): program: trap
    }
}

// Labels must be classes.
extern "C" __global__ void assert_of_label(const int* labels, const float* logits, float* picked, int classes) {
    int row = blockIdx.x * blockDim.x + threadIdx.x, label = labels[row];
#ifdef FIXED
    if (label == -100) {
        picked[row] = 0;
        return;
    }
#endif
    assert(label >= 0 && label < classes);  // FAULT(assert_of_label): program: assert
    picked[row] = logits[row * classes + label];
}

// A function checks what it is given.
__device__ float logarithm(float p) {
    assert(p > 0);  // FAULT(assert_in_function): program: assert
    return logf(p);
}

extern "C" __global__ void assert_in_function(const float* p, float* y) {
    float value = p[threadIdx.x];
#ifdef FIXED
    value = fmaxf(value, 1e-6f);
#endif
    y[threadIdx.x] = -logarithm(value);
}
