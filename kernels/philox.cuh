// Random numbers: Philox4x64-10 (Salmon et al., 2011), the streams of mlgpu/random.py, and the
// numbers that mlgpu/cpu/random.py makes from their words; bit-equal but for the normal ones.
//
// A kernel that draws takes `ml_index seed, ml_index offset, const ml_index* cell` and makes a
// stream of them.  Word w of a draw is word w % 4 of block w / 4; a block holds 256 / bits integers
// u of so many bits, low bits first: element i's u of 32 bits is number i % 8 of block i / 8.  So
// one call serves 16, 8 or 4 elements in a row, and the numbers depend on no vector width or grid.
#pragma once
#include "common.cuh"

typedef unsigned long long ml_word;

// A draw: the key and the block that it starts from.
struct ml_stream {
  ml_word seed, offset;
};

// Eager calls give seed and offset by value (bit patterns of uint64) and no cell.  In a captured
// graph the cell holds the seed and the base offset of the replay, and `offset` counts from there.
__device__ __forceinline__ ml_stream ml_draw(ml_index seed, ml_index offset,
                                             const ml_index* cell) {
  if (cell == nullptr) return {ml_word(seed), ml_word(offset)};
  return {ml_word(cell[0]), ml_word(cell[1]) + ml_word(offset)};
}

struct ml_words {
  ml_word at[4];
};

// Philox4x64-10 of the counter (c0, c1, 0, 0) under the key (k0, k1).
__device__ __forceinline__ ml_words ml_philox(ml_word k0, ml_word k1, ml_word c0, ml_word c1) {
  const ml_word m0 = 0xD2E7470EE14C6C93ULL, m1 = 0xCA5A826395121157ULL;
  ml_word c2 = 0, c3 = 0;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const ml_word high0 = __umul64hi(m0, c0), low0 = m0 * c0;
    const ml_word high1 = __umul64hi(m1, c2), low1 = m1 * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B97F4A7C15ULL;
    k1 += 0xBB67AE8584CAA73BULL;
  }
  return {{c0, c1, c2, c3}};
}

// Words 4 * block ... 4 * block + 3 of a draw.
__device__ __forceinline__ ml_words ml_block(const ml_stream& draw, ml_index block) {
  return ml_philox(draw.seed, 0, draw.offset + ml_word(block), 0);
}

// The same of a draw's private line: words that no other draw gets, for draws that cannot tell how
// many they need.
__device__ __forceinline__ ml_words ml_private_block(const ml_stream& draw, ml_word line,
                                                     ml_word block) {
  return ml_philox(draw.seed, draw.offset + 1, block, line);
}

// The integers of a block; `j` should be known at compile time, or the words go to local memory.
__device__ __forceinline__ unsigned int ml_u16(const ml_words& words, int j) {
  return (unsigned int)(words.at[j / 4] >> (j % 4 * 16)) & 0xFFFFu;
}
__device__ __forceinline__ unsigned int ml_u32(const ml_words& words, int j) {
  return (unsigned int)(words.at[j / 2] >> (j % 2 * 32));
}
__device__ __forceinline__ ml_word ml_u64(const ml_words& words, int j) { return words.at[j]; }

// The 32-bit integer of any element: a whole block is computed for it.
__device__ __forceinline__ unsigned int ml_u32_of(const ml_stream& draw, ml_index i) {
  const ml_words words = ml_block(draw, i >> 3);
  const int j = int(i & 7);
  const ml_word low = j & 2 ? words.at[1] : words.at[0], high = j & 2 ? words.at[3] : words.at[2];
  return (unsigned int)((j & 4 ? high : low) >> (j % 2 * 32));
}

// --- kept elements: dropped where u < p * 2^32 ---------------------------------------------------

// `last` is ceil(p * 2^32) - 1, for 0 < p: the largest u that is dropped.
__device__ __forceinline__ bool ml_kept(unsigned int u, unsigned int last) { return u > last; }

// Bit j says whether element 8 * block + j is kept.
__device__ __forceinline__ unsigned int ml_kept_bits(const ml_stream& draw, ml_index block,
                                                     unsigned int last) {
  const ml_words words = ml_block(draw, block);
  unsigned int bits = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j) bits |= (unsigned int)ml_kept(ml_u32(words, j), last) << j;
  return bits;
}

// --- numbers -------------------------------------------------------------------------------------

// Rounded after each operation: contraction to a fused multiply-add would give other bits.
__device__ __forceinline__ float ml_mul_rn(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double ml_mul_rn(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float ml_add_rn(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double ml_add_rn(double a, double b) { return __dadd_rn(a, b); }

// How many bits a uniform number of a dtype is made from, and how many of them count.
template <typename T> struct ml_uniform_bits;
template <> struct ml_uniform_bits<float> { static const int width = 32, digits = 24; };
template <> struct ml_uniform_bits<double> { static const int width = 64, digits = 53; };
#ifndef ML_NO_HALF
template <> struct ml_uniform_bits<__half> { static const int width = 16, digits = 11; };
template <> struct ml_uniform_bits<__nv_bfloat16> { static const int width = 16, digits = 8; };
#endif

// Number j of a block, uniform in [0, 1), in the type that T is computed in.
template <typename T>
__device__ __forceinline__ auto ml_unit(const ml_words& words, int j) {
  const int width = ml_uniform_bits<T>::width, digits = ml_uniform_bits<T>::digits;
  if constexpr (width == 64) {
    return double(ml_index(ml_u64(words, j) >> (width - digits))) * (1.0 / (1ULL << digits));
  } else {
    const unsigned int u = width == 32 ? ml_u32(words, j) : ml_u16(words, j);
    return float(int(u >> (width - digits))) * (1.0f / (1u << digits));
  }
}

// In (0, 1]: (u + 1/2) / 2^bits.
__device__ __forceinline__ float ml_opened(unsigned int u) {
  return ml_add_rn(ml_mul_rn(float(u), 0x1p-32f), 0x1p-33f);
}
__device__ __forceinline__ double ml_opened(ml_word u) {
  return (double(ml_index(u >> 11)) + 0.5) * 0x1p-53;
}

// sin and cos of 0 <= x <= 2 pi: the library's take local memory for arguments that do not occur.
__device__ __forceinline__ void ml_turn(float x, float* sine, float* cosine) {
  const float quarter = rintf(x * 0.636619772f);
  float r = fmaf(quarter, -1.57079601e+00f, x);  // pi / 2 in three parts
  r = fmaf(quarter, -3.13916473e-07f, r);
  r = fmaf(quarter, -5.39030253e-15f, r);
  const float square = r * r;
  float s = fmaf(2.86567956e-06f, square, -1.98559923e-04f);
  s = fmaf(s, square, 8.33338592e-03f);
  s = fmaf(s, square, -1.66666672e-01f);
  s = fmaf(s * square, r, r);
  float c = fmaf(2.44677067e-05f, square, -1.38877297e-03f);
  c = fmaf(c, square, 4.16666567e-02f);
  c = fmaf(c, square, -5.00000000e-01f);
  c = fmaf(c, square, 1.0f);
  const int turns = int(quarter);
  const float a = turns & 1 ? c : s, b = turns & 1 ? s : c;
  *sine = turns & 2 ? -a : a;
  *cosine = (turns + 1) & 2 ? -b : b;
}

// Elements 2i and 2i + 1 of normal numbers, by Box and Muller, from u[2i] and u[2i + 1].
__device__ __forceinline__ void ml_normal_pair(unsigned int u0, unsigned int u1, float* first,
                                               float* second) {
  const float radius = sqrtf(ml_mul_rn(logf(ml_opened(u0)), -2.0f));
  float sine, cosine;
  ml_turn(ml_mul_rn(float(u1), 1.46291808e-09f), &sine, &cosine);  // 2 pi / 2^32
  *first = ml_mul_rn(radius, cosine);
  *second = ml_mul_rn(radius, sine);
}
__device__ __forceinline__ void ml_normal_pair(ml_word u0, ml_word u1, double* first,
                                               double* second) {
  const double radius = sqrt(ml_mul_rn(log(ml_opened(u0)), -2.0));
  double sine, cosine;
  sincospi(double(ml_index(u1 >> 11)) * 0x1p-52, &sine, &cosine);
  *first = ml_mul_rn(radius, cosine);
  *second = ml_mul_rn(radius, sine);
}
