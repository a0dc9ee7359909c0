// Mathematical functions: the library's slow and fast paths, and arithmetic on wide integers.

// Every function of one argument by its number, in float; one column per function.
extern "C" __global__ void float_functions(float* out, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    float* o = out + i * 20;
    o[0] = expf(v);
    o[1] = expm1f(v);
    o[2] = logf(v);
    o[3] = log1pf(v);
    o[4] = tanhf(v);
    o[5] = erff(v);
    o[6] = erfcf(v);
    o[7] = sinf(v);
    o[8] = cosf(v);
    o[9] = tanf(v);
    o[10] = atanf(v);
    o[11] = asinhf(v);
    o[12] = cbrtf(v);
    o[13] = exp2f(v);
    o[14] = log2f(v);
    o[15] = lgammaf(v);
    o[16] = normcdff(v);
    o[17] = sqrtf(v);
    o[18] = rsqrtf(v);
    o[19] = 1.f / v;
}

// Sine and cosine of big arguments: reduction by a table of bits of 2/pi in local memory.
extern "C" __global__ void big_angles(float2* out, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) sincosf(x[i], &out[i].x, &out[i].y);
}

extern "C" __global__ void two_arguments(float* out, const float* x, const float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float a = x[i], b = y[i];
    float* o = out + i * 8;
    o[0] = powf(a, b);
    o[1] = atan2f(a, b);
    o[2] = hypotf(a, b);
    o[3] = fmodf(a, b);
    o[4] = remainderf(a, b);
    o[5] = ldexpf(a, __float2int_rz(b));
    o[6] = nextafterf(a, b);
    o[7] = a / b;
}

// Rounding in all directions, to integers and of sums, products and quotients.
extern "C" __global__ void roundings(float* f, int* k, const float* x, const float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float a = x[i], b = y[i];
    f += i * 16;
    k += i * 6;
    f[0] = floorf(a), f[1] = ceilf(a), f[2] = truncf(a), f[3] = rintf(a), f[4] = roundf(a);
    f[5] = __fadd_rd(a, b), f[6] = __fadd_ru(a, b), f[7] = __fadd_rz(a, b);
    f[8] = __fmul_rd(a, b), f[9] = __fmul_ru(a, b), f[10] = __fdiv_rd(a, b);
    f[11] = __fdiv_ru(a, b), f[12] = __fsqrt_rz(fabsf(a)), f[13] = __fmaf_rn(a, b, 1.f);
    f[14] = __saturatef(a), f[15] = copysignf(b, a);
    k[0] = __float2int_rn(a), k[1] = __float2int_rd(a), k[2] = __float2int_ru(a);
    k[3] = __float2int_rz(a), k[4] = (int)__float2uint_rn(a), k[5] = (int)lrintf(b);
}

// Double precision: tables, polynomials, reductions with several branches.
extern "C" __global__ void double_functions(double* out, const double* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i];
    double* o = out + i * 14;
    o[0] = exp(v);
    o[1] = log(fabs(v));
    o[2] = sin(v);
    o[3] = cos(v);
    o[4] = erf(v);
    o[5] = lgamma(v);
    o[6] = tgamma(v);
    o[7] = pow(fabs(v), 1.7);
    o[8] = tanh(v);
    o[9] = sqrt(fabs(v));
    o[10] = 1.0 / v;
    o[11] = cbrt(v);
    o[12] = expm1(v);
    o[13] = fmod(v, 0.7);
}

// Fast approximations: what --use_fast_math makes of the same calls, spelled out.
extern "C" __global__ void approximations(float* out, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    float* o = out + i * 8;
    o[0] = __expf(v);
    o[1] = __logf(v);
    o[2] = __sinf(v);
    o[3] = __cosf(v);
    o[4] = __powf(v, 1.5f);
    o[5] = __fdividef(1.f, v);
    o[6] = __log2f(v);
    o[7] = __exp10f(v);
}

// Compiled with and without --use_fast_math.
extern "C" __global__ void softplus(float* y, const float* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] > 20.f ? x[i] : logf(1.f + expf(x[i])) / sqrtf(2.f + sinf(x[i]));
}

// 64-bit and 128-bit integers: products' high halves, division, remainders, shifts across words.
extern "C" __global__ void wide_integers(unsigned long long* out, const unsigned long long* x,
                                         const unsigned long long* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long a = x[i], b = y[i], *o = out + i * 10;
    o[0] = a * b;
    o[1] = __umul64hi(a, b);
    o[2] = (unsigned long long)__mul64hi((long long)a, (long long)b);
    o[3] = a / b;
    o[4] = a % b;
    o[5] = (unsigned long long)((long long)a / (long long)(b | 1));
    o[6] = (unsigned long long)((long long)a % (long long)(b >> 40 | 3));
    o[7] = a >> (b & 63);
    o[8] = (unsigned long long)((long long)a >> (b & 63));
    o[9] = (a << (b & 63)) ^ (a >> 32);
}

#ifdef __CUDACC_RTC_INT128__
// Modular powers with a 128-bit product: the remainder by long division of two words.
extern "C" __global__ void power_modulo(unsigned long long* out, const unsigned long long* base,
                                        const unsigned* exponent, unsigned long long modulus, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long result = 1, square = base[i] % modulus;
    for (unsigned e = exponent[i]; e; e >>= 1) {
        if (e & 1) result = (unsigned __int128)result * square % modulus;
        square = (unsigned __int128)square * square % modulus;
    }
    out[i] = result;
}
#endif

// Big integers of eight words: addition with carry, in PTX's carry chain.
extern "C" __global__ void add_256(unsigned* out, const unsigned* x, const unsigned* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned *a = x + 8 * i, *b = y + 8 * i;
    unsigned* o = out + 8 * i;
    unsigned r0, r1, r2, r3, r4, r5, r6, r7;
    asm("add.cc.u32 %0, %8, %16;\n\t"
        "addc.cc.u32 %1, %9, %17;\n\t"
        "addc.cc.u32 %2, %10, %18;\n\t"
        "addc.cc.u32 %3, %11, %19;\n\t"
        "addc.cc.u32 %4, %12, %20;\n\t"
        "addc.cc.u32 %5, %13, %21;\n\t"
        "addc.cc.u32 %6, %14, %22;\n\t"
        "addc.u32 %7, %15, %23;"
        : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3), "=r"(r4), "=r"(r5), "=r"(r6), "=r"(r7)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]),
          "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(b[4]), "r"(b[5]), "r"(b[6]), "r"(b[7]));
    o[0] = r0, o[1] = r1, o[2] = r2, o[3] = r3, o[4] = r4, o[5] = r5, o[6] = r6, o[7] = r7;
}

// Bits: counted, reversed, found, moved, picked.
extern "C" __global__ void bit_tricks(unsigned* out, const unsigned* x, const unsigned* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned a = x[i], b = y[i], *o = out + i * 20;
    unsigned long long wide = (unsigned long long)a << 32 | b;
    o[0] = __brev(a);
    o[1] = __popc(a);
    o[2] = __ffs(a);
    o[3] = __clz(a);
    o[4] = __byte_perm(a, b, 0x6420);
    o[5] = __byte_perm(a, b, b & 0x7777);
    o[6] = __funnelshift_l(a, b, b);
    o[7] = __funnelshift_r(a, b, b);
    o[8] = __funnelshift_lc(a, b, b & 63);
    o[9] = __funnelshift_rc(a, b, b & 63);
    o[10] = __popcll(wide);
    o[11] = __clzll(wide);
    o[12] = __ffsll(wide);
    o[13] = (unsigned)(__brevll(wide) >> 16);
    o[14] = __umulhi(a, b);
    o[15] = (unsigned)__mulhi((int)a, (int)b);
    o[16] = __sad((int)a, (int)b, 5u);
    o[17] = __usad(a, b, 5u);
    o[18] = (a & b) | (~a & ~b & 0x0f0f0f0fu);
    o[19] = __umul24(a & 0xffffff, b & 0xffffff) + __hadd((int)a, (int)b) + __urhadd(a, b);
}

// Bit fields by PTX: extracted, inserted, masks made, the leading bit found.
extern "C" __global__ void bit_fields(unsigned* out, const unsigned* x, const unsigned* places, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned a = x[i], position = places[i] & 255, length = places[i] >> 8 & 255, *o = out + i * 5;
    asm("bfe.u32 %0, %1, %2, %3;" : "=r"(o[0]) : "r"(a), "r"(position), "r"(length));
    asm("bfe.s32 %0, %1, %2, %3;" : "=r"(o[1]) : "r"(a), "r"(position), "r"(length));
    asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(o[2]) : "r"(a), "r"(~a), "r"(position), "r"(length));
    asm("bfind.u32 %0, %1;" : "=r"(o[3]) : "r"(a));
    asm("bfind.shiftamt.s32 %0, %1;" : "=r"(o[4]) : "r"(a));
}

// Cyclic redundancy check by a table made in shared memory.
extern "C" __global__ void crc32(unsigned* out, const unsigned char* text, int length, int n) {
    __shared__ unsigned table[256];
    for (int b = threadIdx.x; b < 256; b += blockDim.x) {
        unsigned c = b;
        for (int k = 0; k < 8; ++k) c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
        table[b] = c;
    }
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        unsigned c = 0xffffffffu;
        for (int k = 0; k < length; ++k) c = table[(c ^ text[i * length + k]) & 255] ^ c >> 8;
        out[i] = ~c;
    }
}

// The escape time of the Mandelbrot set: a loop that each lane leaves at its own time, by break.
extern "C" __global__ void mandelbrot(unsigned short* out, int width, int height, int limit) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    double cr = -2.0 + 3.0 * x / width, ci = -1.0 + 2.0 * y / height, zr = 0.0, zi = 0.0;
    int k = 0;
    for (; k < limit; ++k) {
        double r2 = __dmul_rn(zr, zr), i2 = __dmul_rn(zi, zi);
        if (__dadd_rn(r2, i2) > 4.0) break;
        zi = __dadd_rn(__dmul_rn(__dadd_rn(zr, zr), zi), ci);
        zr = __dadd_rn(__dsub_rn(r2, i2), cr);
    }
    out[y * width + x] = k;
}
