// The language: local arrays, calls, templates, tables, globals, constants, printf, clocks.

// A local array that is indexed by data: it must live in local memory.
extern "C" __global__ void insertion_sort(int* x, int n) {
    int held[16];
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= n) return;
    for (int k = 0; k < 16; ++k) held[k] = x[row * 16 + k];
    for (int k = 1; k < 16; ++k) {
        int v = held[k], j = k;
        while (j > 0 && held[j - 1] > v) {
            held[j] = held[j - 1];
            --j;
        }
        held[j] = v;
    }
    for (int k = 0; k < 16; ++k) x[row * 16 + k] = held[k];
}

// A local array of mixed sizes seen through a union and written byte by byte.
union Bytes {
    unsigned char byte[16];
    unsigned short half[8];
    unsigned long long wide[2];
};

extern "C" __global__ void scatter_bytes(unsigned long long* out, const unsigned char* order,
                                         const unsigned char* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        Bytes b;
        b.wide[0] = b.wide[1] = 0;
        for (int k = 0; k < 16; ++k) b.byte[order[i * 16 + k] & 15] = x[i * 16 + k];
        b.half[order[i * 16] & 7] ^= 0x8001;
        out[2 * i] = b.wide[0];
        out[2 * i + 1] = b.wide[1];
    }
}

struct Roots {
    double low, high;
    int count;
};

// A function that is really called, with a struct as its result, from two places.
__device__ __noinline__ Roots solve(double a, double b, double c) {
    Roots r = {0.0, 0.0, 0};
    double inside = b * b - 4.0 * a * c;
    if (inside < 0.0) return r;
    double q = -0.5 * (b + copysign(sqrt(inside), b));
    r.count = inside > 0.0 ? 2 : 1;
    r.low = fmin(q / a, c / q);
    r.high = fmax(q / a, c / q);
    return r;
}

extern "C" __global__ void quadratics(double* out, int* counts, const double3* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double3 p = x[i];
    Roots r = solve(p.x, p.y, p.z);
    if (i % 3 == 0) {  // some lanes call once more
        Roots other = solve(p.z, p.y, p.x);
        r.low += other.high;
        r.count += 10 * other.count;
    }
    out[2 * i] = r.low;
    out[2 * i + 1] = r.high;
    counts[i] = r.count;
}

// A called function with a loop, a pointer into the caller's local memory and an early return.
__device__ __noinline__ int digits(unsigned v, int base, unsigned char* into) {
    if (v == 0) {
        into[0] = 0;
        return 1;
    }
    int count = 0;
    while (v) {
        into[count++] = v % base;
        v /= base;
    }
    return count;
}

extern "C" __global__ void palindromes(int* out, const unsigned* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int mask = 0;
    for (int base = 2; base <= 10; base += 4) {
        unsigned char digit[32];
        int count = digits(x[i], base, digit);
        bool same = true;
        for (int k = 0; k < count / 2; ++k) same &= digit[k] == digit[count - 1 - k];
        mask |= same << base;
    }
    out[i] = mask;
}

// Functions by pointer, chosen by data.
__device__ float square(float x) { return x * x; }
__device__ float halve(float x) { return 0.5f * x; }
__device__ float negate(float x) { return -x; }
typedef float (*Function)(float);
__device__ Function functions[3] = {square, halve, negate};

extern "C" __global__ void apply_by_pointer(float* x, const int* which, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = functions[which[i]](x[i]);
}

// A switch over many cases, one of which falls through.
extern "C" __global__ void calculator(int* out, const int* op, const int* a, const int* b, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int x = a[i], y = b[i], r;
    switch (op[i]) {
        case 0: r = x + y; break;
        case 1: r = x - y; break;
        case 2: r = x * y; break;
        case 3: r = y ? x / y : 0; break;
        case 4: r = y ? x % y : 0; break;
        case 5: r = x & y; break;
        case 6: r = x | y; break;
        case 7: x = (int)((unsigned)x << (y & 31));  // falls through
        case 8: r = x ^ y; break;
        case 9:
            r = 0;
            for (int k = 0; k < (y & 7); ++k) r += x >> k;
            break;
        default: r = -1;
    }
    out[i] = r;
}

// A jump table, which compilers make of a dense switch, spelled out.
extern "C" __global__ void jump_table(int* out, const unsigned* op, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        int r = i;
        asm volatile("{\n"
                     "table: .branchtargets ADD, TWICE, NEGATE, KEEP;\n"
                     "brx.idx %1, table;\n"
                     "ADD: add.s32 %0, %0, 100; bra.uni DONE;\n"
                     "TWICE: shl.b32 %0, %0, 1; bra.uni DONE;\n"
                     "NEGATE: neg.s32 %0, %0;\n"
                     "KEEP: bra.uni DONE;\n"
                     "DONE:\n"
                     "}" : "+r"(r) : "r"(op[i]));
        out[i] = r;
    }
}

// Threads as little machines: a loop around a switch, every lane in another state.
extern "C" __global__ void run_programs(int* out, const unsigned char* programs, int length, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned stack[8];
    int top = 0, at = 0;
    stack[0] = 0;
    while (at < length) {
        unsigned char code = programs[i * length + at++];
        switch (code >> 4) {
            case 0: at = length; break;
            case 1: if (top < 7) stack[++top] = code & 15; break;
            case 2: if (top > 0) { stack[top - 1] += stack[top]; --top; } break;
            case 3: if (top > 0) { stack[top - 1] *= stack[top]; --top; } break;
            case 4: stack[top] = 0u - stack[top]; break;
            case 5: if ((int)stack[top] > 0) at += code & 3; break;
            case 6: if (top < 7) { stack[top + 1] = stack[top]; ++top; } break;
        }
    }
    out[i] = stack[top];
}

// Constant memory: a table that all lanes read at one place, and one that each reads at its own.
__constant__ float coefficients[4][5];
__constant__ unsigned char sbox[256];
struct Settings {
    int rounds;
    unsigned key[4];
};
__constant__ Settings settings;

extern "C" __global__ void polynomials(float* out, const float* x, int which, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float v = x[i], sum = coefficients[which][4];
#pragma unroll
        for (int k = 3; k >= 0; --k) sum = fmaf(sum, v, coefficients[which][k]);
        out[i] = sum;
    }
}

extern "C" __global__ void substitute(unsigned* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned v = x[i];
        for (int r = 0; r < settings.rounds; ++r) {
            v ^= settings.key[r & 3];
            v = sbox[v & 255] | sbox[v >> 8 & 255] << 8 | sbox[v >> 16 & 255] << 16
              | (unsigned)sbox[v >> 24] << 24;
            v = __funnelshift_l(v, v, 5);
        }
        x[i] = v;
    }
}

// Module variables: initialised ones, counters, a pointer that the host sets, a struct.
__device__ int launches = 100;
__device__ double history[4] = {1.5, -2.25, 0.0, 1e300};
__device__ float* target;
__device__ struct { short a; int b; char c[3]; } record = {7, -70000, {'x', 'y', 'z'}};
__device__ const char* message = "hello";

extern "C" __global__ void use_globals(int* out) {
    int t = threadIdx.x;
    if (t == 0) {
        out[0] = launches;
        launches = launches + 1;
        history[2] = history[0] + history[1];
        out[1] = record.a;
        out[2] = record.b;
        out[3] = record.c[2];
        record.b += 1;
        const char* c = message;
        int sum = 0;
        while (*c) sum = sum * 31 + *c++;
        out[4] = sum;
    }
    target[t] = t * 0.5f;
}

// Text from the device.
extern "C" __global__ void report(const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n && x[i] < 0.f)
        printf("block %d thread %d: %8.3f (%s) %5lld%%\n", blockIdx.x, threadIdx.x, x[i],
               x[i] < -1.f ? "large" : "small", -5000000000ll * i);
    if (i == 0) printf("%c%x %#o %e %u no arguments next\n", 'A', 0xbeefu, 8u, 12345.678, 4000000000u);
    if (i == 0) printf("done\n");
}

// Clocks go forward; sleeping takes time; the timer counts nanoseconds.
extern "C" __global__ void timing(long long* out) {
    long long start = clock64();
    unsigned low = clock();
    unsigned long long timer;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(timer));
    __nanosleep(100);
    long long end = clock64();
    unsigned long long later;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(later));
    out[4 * threadIdx.x] = end - start;
    out[4 * threadIdx.x + 1] = (unsigned)clock() - low;
    out[4 * threadIdx.x + 2] = later - timer;
    unsigned where;
    asm("mov.u32 %0, %laneid;" : "=r"(where));
    out[4 * threadIdx.x + 3] = where;
}

// Two-dimensional blocks numbered by hand; extern shared memory cut into arrays of several types.
extern "C" __global__ void carve(double* out, int n) {
    extern __shared__ __align__(16) unsigned char raw[];
    double* d = reinterpret_cast<double*>(raw);
    int* k = reinterpret_cast<int*>(d + n);
    unsigned char* c = reinterpret_cast<unsigned char*>(k + n);
    int t = threadIdx.y * blockDim.x + threadIdx.x;
    if (t < n) {
        d[t] = 0.25 * t;
        k[n - 1 - t] = 3 * t;
        c[t] = 200 + t;
    }
    __syncthreads();
    if (t < n) out[t] = d[n - 1 - t] + k[t] + c[(t + 1) % n];
}

// Recursion that the compiler unrolls: templates over an integer.
template <int N> struct Power {
    static __device__ double of(double x) { return N % 2 ? x * Power<N - 1>::of(x)
                                                         : Power<N / 2>::of(x * x); }
};
template <> struct Power<0> {
    static __device__ double of(double) { return 1.0; }
};

template <int N, typename T>
__global__ void power(T* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = static_cast<T>(Power<N>::of(x[i]));
}

// A trap for what must not be.
extern "C" __global__ void checked(int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        if (x[i] < 0) __trap();
        x[i] += 1;
    }
}

// Virtual functions of objects made on the device.
struct Shape {
    __device__ virtual float area() const = 0;
};
struct Square : Shape {
    float side;
    __device__ Square(float s) : side(s) {}
    __device__ float area() const override { return side * side; }
};
struct Disc : Shape {
    float radius;
    __device__ Disc(float r) : radius(r) {}
    __device__ float area() const override { return 3.14159265f * radius * radius; }
};

extern "C" __global__ void areas(float* out, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        Square square(x[i]);
        Disc disc(x[i]);
        const Shape* shape = i % 3 ? static_cast<const Shape*>(&square) : &disc;
        out[i] = shape->area();
    }
}
