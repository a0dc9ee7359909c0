// Updates of all parameters in one launch, and what goes over all gradients before: norm, clipping,
// unscaling.  The results are those of mlgpu/ops/optimizer.py to the bit: every operation rounds.
// A row of the table has four arrays and the count of steps.
#include "many.cuh"

enum ml_column { PARAM, FIRST, SECOND, THIRD, STEP };

// --- settings ------------------------------------------------------------------------------------

const int GROUPS = 16;
enum ml_flag { MAXIMIZE = 1, DECOUPLED = 2, NESTEROV = 4, BEGINS = 8, LR_DOUBLE = 16 };

// What holds for a group of parameters.  In a captured graph, and where the learning rate is a
// tensor, it is read from the device, and in a graph beta1 too: cells are their addresses, else 0.
struct ml_settings {
  double lr, decay, eps;
  double beta1, beta2;      // sgd: momentum, dampening
  double rest, root;        // 1 - beta1^t and sqrt(1 - beta2^t), where the host counts the steps
  ml_index lr_cell, beta1_cell, flags;
};
struct ml_settings_table {
  ml_settings at[GROUPS];
};

__device__ __forceinline__ double ml_learning_rate(const ml_settings& s) {
  if (s.lr_cell == 0) return s.lr;
  if (s.flags & LR_DOUBLE) return *ml_address<const double>(s.lr_cell);
  return *ml_address<const float>(s.lr_cell);
}

__device__ __forceinline__ double ml_first_beta(const ml_settings& s) {
  return s.beta1_cell ? *ml_address<const double>(s.beta1_cell) : s.beta1;
}

// Multiplies in the order of `power` in mlgpu/ops/optimizer.py, for the same bits.
__device__ __forceinline__ double ml_power(double base, ml_index exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result = ml_mul(result, base);
    base = ml_mul(base, base);
  }
  return result;
}

// Sets the cells of a graph, one block: the next row of the table becomes their contents.  The first
// number of the table says which row that is; the host sees to it that there is one.
__global__ void __launch_bounds__(THREADS)
advance(double* cells, double* table, int columns) {
  const ml_index row = table[0];
  __syncthreads();
#pragma unroll 1
  for (int c = threadIdx.x; c < columns; c += THREADS) cells[c] = table[1 + row * columns + c];
  if (threadIdx.x == 0) table[0] = row + 1;
}

// --- updates --------------------------------------------------------------------------------------

template <typename C>
struct ml_adam {
  C lr_decay, decay, eps, rest1, beta2, rest2, step_size, root, factor;
  bool maximize, decoupled, decays;
  __device__ __forceinline__ bool reads(int) const { return true; }
  // The parameter, the averages of gradient and square, their peak if there is one, the gradient.
  template <int arrays>
  __device__ __forceinline__ void operator()(C (&x)[arrays]) const {
    C g = ml_mul(x[arrays - 1], factor);
    if (maximize) g = -g;
    if (decays) {
      if (decoupled) x[0] = ml_mul(x[0], lr_decay);
      else g = ml_plus(g, ml_mul(x[0], decay));
    }
    x[1] = ml_plus(x[1], ml_mul(ml_minus(g, x[1]), rest1));
    x[2] = ml_plus(ml_mul(x[2], beta2), ml_mul(ml_mul(g, g), rest2));
    C largest = x[2];
    if (arrays == 5) largest = x[3] = ml_max(x[3], x[2]);
    const C scale = ml_plus(sqrt(largest) / root, eps);
    x[0] = ml_minus(x[0], ml_mul(x[1] / scale, step_size));
  }
};

// `steps`: counts on the device are one higher afterwards, for which the last block to finish cares
// (`ticket` is 0 before and after).
template <typename T, bool peak>
__global__ void __launch_bounds__(THREADS, 2)
adam_step(const ml_index* table, const ml_index* grads, const int* map, ml_settings_table settings,
          const float* factor, const float* found_inf, int tensors, bool steps, unsigned* ticket) {
  typedef ml_wide<T> C;
  __shared__ ml_adam<C> adam;
  if (ml_skipped(found_inf)) return;
  const ml_part<> part(table, map);
  if (threadIdx.x == 0 && part.count > 0) {
    const ml_settings& s = settings.at[part.row[ml_part<>::SETTINGS]];
    const double lr = ml_learning_rate(s), beta1 = ml_first_beta(s);
    double rest = s.rest, root = s.root;
    if (steps) {
      const ml_index step = ml_index(*ml_address<const float>(part.row[STEP])) + 1;
      rest = 1 - ml_power(beta1, step);
      root = sqrt(1 - ml_power(s.beta2, step));
    }
    adam.lr_decay = C(ml_minus(1.0, ml_mul(lr, s.decay)));
    adam.decay = C(s.decay);
    adam.eps = C(s.eps);
    adam.rest1 = C(1 - beta1);
    adam.beta2 = C(s.beta2);
    adam.rest2 = C(1 - s.beta2);
    adam.step_size = C(lr / rest);
    adam.root = C(root);
    adam.factor = ml_factor<C>(factor);
    adam.maximize = s.flags & MAXIMIZE;
    adam.decoupled = s.flags & DECOUPLED;
    adam.decays = s.decay != 0;
  }
  __syncthreads();
  if (part.count > 0) {
    const ml_adam<C> update = adam;
    T* const grad = ml_address<T>(grads[part.tensor]) + part.start;
    if constexpr (peak) {
      T* const arrays[5] = {part.array<T>(PARAM), part.array<T>(FIRST), part.array<T>(SECOND),
                            part.array<T>(THIRD), grad};
      ml_update<T, 5, 4>(arrays, part.count, update);
    } else {
      T* const arrays[4] = {part.array<T>(PARAM), part.array<T>(FIRST), part.array<T>(SECOND),
                            grad};
      ml_update<T, 4, 3>(arrays, part.count, update);
    }
  }
  if (!steps) return;
  if (!ml_last_block(ticket)) return;
  for (int t = threadIdx.x; t < tensors; t += THREADS)
    *ml_address<float>(table[ml_index(t) * COLUMNS + STEP]) += 1.0f;
}

template <typename C>
struct ml_sgd {
  C lr, decay, momentum, taken, factor;
  bool maximize, nesterov, decays, begins;
  // Where the running sum begins, it holds nothing yet.
  __device__ __forceinline__ bool reads(int a) const { return a != 1 || !begins; }
  __device__ __forceinline__ C gradient(C p, C g) const {
    g = ml_mul(g, factor);
    if (maximize) g = -g;
    return decays ? ml_plus(g, ml_mul(p, decay)) : g;
  }
  __device__ __forceinline__ void operator()(C (&x)[3]) const {  // parameter, sum, gradient
    const C g = gradient(x[0], x[2]);
    x[1] = begins ? g : ml_plus(ml_mul(x[1], momentum), ml_mul(g, taken));
    const C direction = nesterov ? ml_plus(g, ml_mul(x[1], momentum)) : x[1];
    x[0] = ml_minus(x[0], ml_mul(direction, lr));
  }
};
template <typename C>
struct ml_plain_sgd : ml_sgd<C> {
  __device__ __forceinline__ bool reads(int) const { return true; }
  __device__ __forceinline__ void operator()(C (&x)[2]) const {  // parameter, gradient
    x[0] = ml_minus(x[0], ml_mul(this->gradient(x[0], x[1]), this->lr));
  }
};

template <typename T, bool momentum>
__global__ void __launch_bounds__(THREADS)
sgd_step(const ml_index* table, const ml_index* grads, const int* map, ml_settings_table settings,
         const float* factor, const float* found_inf) {
  typedef ml_wide<T> C;
  __shared__ ml_plain_sgd<C> sgd;
  if (ml_skipped(found_inf)) return;
  const ml_part<> part(table, map);
  if (part.count <= 0) return;
  if (threadIdx.x == 0) {
    const ml_settings& s = settings.at[part.row[ml_part<>::SETTINGS]];
    sgd.lr = C(ml_learning_rate(s));
    sgd.decay = C(s.decay);
    sgd.momentum = C(ml_first_beta(s));
    sgd.taken = C(1 - s.beta2);
    sgd.factor = ml_factor<C>(factor);
    sgd.maximize = s.flags & MAXIMIZE;
    sgd.nesterov = s.flags & NESTEROV;
    sgd.begins = s.flags & BEGINS;
    sgd.decays = s.decay != 0;
  }
  __syncthreads();
  T* const grad = ml_address<T>(grads[part.tensor]) + part.start;
  if constexpr (momentum) {
    T* const arrays[3] = {part.array<T>(PARAM), part.array<T>(FIRST), grad};
    const ml_sgd<C> update = sgd;
    ml_update<T, 3, 2>(arrays, part.count, update);
  } else {
    T* const arrays[2] = {part.array<T>(PARAM), grad};
    const ml_plain_sgd<C> update = sgd;
    ml_update<T, 2, 1>(arrays, part.count, update);
  }
}

// --- over all gradients --------------------------------------------------------------------------

// min(1, limit / (norm + 1e-6)), each operation rounded to the norm's type.
template <typename N>
__device__ __forceinline__ ml_wide<N> ml_clip_factor(const N* norm, double limit) {
  typedef ml_wide<N> C;
  const C shifted = ml_cast<C>(ml_cast<N>(ml_plus(ml_cast<C>(*norm), C(1e-6))));
  const C ratio = ml_cast<C>(ml_cast<N>(C(limit) / shifted));
  return ml_min(ratio, C(1));
}

template <typename C>
struct ml_scaling {
  C factor;
  __device__ __forceinline__ bool reads(int) const { return true; }
  __device__ __forceinline__ void operator()(C (&x)[1]) const { x[0] = ml_mul(x[0], factor); }
};

template <typename T, typename N>
__global__ void __launch_bounds__(THREADS)
grads_clip(const ml_index* table, const ml_index* grads, const int* map, const N* norm,
           double limit) {
  typedef ml_wide<T> C;
  const ml_wide<N> factor = ml_clip_factor(norm, limit);
  if (factor == 1) return;
  const ml_part<> part(table, map);
  T* const arrays[1] = {ml_address<T>(part.tensor < 0 ? 0 : grads[part.tensor]) + part.start};
  ml_update<T, 1, 1>(arrays, part.count, ml_scaling<C>{C(factor)});
}

template <typename C>
struct ml_unscaling {
  C factor;
  bool* odd;
  __device__ __forceinline__ bool reads(int) const { return true; }
  __device__ __forceinline__ void operator()(C (&x)[1]) const {
    if (!(fabs(x[0]) < ml_inf(x[0]))) *odd = true;
    x[0] = ml_mul(x[0], factor);
  }
};

// Multiply by a device value; found_inf becomes 1 where an element is inf or NaN.
template <typename T>
__global__ void __launch_bounds__(THREADS)
grads_unscale(const ml_index* table, const ml_index* grads, const int* map, const float* inv_scale,
              float* found_inf) {
  typedef ml_wide<T> C;
  const ml_part<> part(table, map);
  T* const arrays[1] = {ml_address<T>(part.tensor < 0 ? 0 : grads[part.tensor]) + part.start};
  bool odd = false;
  ml_update<T, 1, 1>(arrays, part.count, ml_unscaling<C>{C(*inv_scale), &odd});
  if (odd) *found_inf = 1.0f;
}

template <typename C>
struct ml_clamping {
  C limit;
  __device__ __forceinline__ bool reads(int) const { return true; }
  __device__ __forceinline__ void operator()(C (&x)[1]) const {
    x[0] = ml_min(ml_max(x[0], -limit), limit);
  }
};

template <typename T>
__global__ void __launch_bounds__(THREADS)
grads_clamp(const ml_index* table, const ml_index* grads, const int* map, double limit) {
  typedef ml_wide<T> C;
  const ml_part<> part(table, map);
  T* const arrays[1] = {ml_address<T>(part.tensor < 0 ? 0 : grads[part.tensor]) + part.start};
  ml_update<T, 1, 1>(arrays, part.count, ml_clamping<C>{C(limit)});
}

// --- the norm of all gradients ---------------------------------------------------------------------

enum ml_norm_kind { SQUARES, SIZES, LARGEST, SMALLEST, POWERS };

// What an element brings in, and how two are put together.
template <int kind, typename C>
__device__ __forceinline__ C ml_norm_part(C x, C p) {
  if (kind == SQUARES) return x * x;
  if (kind == POWERS) return pow(fabs(x), p);
  return fabs(x);
}
template <int kind>
struct ml_norm_join {
  template <typename C> __device__ __forceinline__ C operator()(C a, C b) const {
    if (kind == LARGEST) return ml_max(a, b);
    if (kind == SMALLEST) return ml_min(a, b);
    return a + b;
  }
};
template <int kind, typename C>
__device__ __forceinline__ C ml_norm_nothing() {
  return kind == SMALLEST ? ml_inf(C(0)) : C(0);
}

// One number for each block.  The order does not depend on where the arrays lie.
template <typename T, int kind>
__global__ void __launch_bounds__(THREADS)
grads_norm_parts(ml_wide<T>* parts, const ml_index* table, const ml_index* grads, const int* map,
                 double p) {
  typedef ml_wide<T> C;
  const int width = 16 / sizeof(T);
  __shared__ C slots[32];
  const ml_norm_join<kind> join;
  const ml_part<> part(table, map);
  const T* grad = ml_address<const T>(part.tensor < 0 ? 0 : grads[part.tensor]) + part.start;
  const bool aligned = ml_aligned(grad);
  const C power = C(p);
  C sums[width];
#pragma unroll
  for (int e = 0; e < width; ++e) sums[e] = ml_norm_nothing<kind, C>();
#pragma unroll 2
  for (int i = threadIdx.x * width; i < part.count; i += THREADS * width) {
    ml_vec<T, width> loaded;
    const int there = part.count - i;
    if (aligned && there >= width) {
      loaded = ml_load<width>(grad + i);
    } else {
#pragma unroll
      for (int e = 0; e < width; ++e)
        if (e < there) loaded.at[e] = grad[i + e];
    }
#pragma unroll
    for (int e = 0; e < width; ++e)
      if (e < there)
        sums[e] = join(sums[e], ml_norm_part<kind>(ml_cast<C>(loaded.at[e]), power));
  }
#pragma unroll
  for (int step = width / 2; step > 0; step /= 2)
#pragma unroll
    for (int e = 0; e < step; ++e) sums[e] = join(sums[e], sums[e + step]);
  const C total = ml_block_reduce(sums[0], slots, ml_norm_nothing<kind, C>(), join);
  if (threadIdx.x == 0) parts[blockIdx.x] = total;
}

// One block: the parts in order, in double precision.
template <typename T, int kind>
__global__ void __launch_bounds__(THREADS)
grads_norm(T* norm, const ml_wide<T>* parts, int count, double p) {
  __shared__ double slots[32];
  const ml_norm_join<kind> join;
  double total = ml_norm_nothing<kind, double>();
#pragma unroll 4
  for (int i = threadIdx.x; i < count; i += THREADS) total = join(total, double(parts[i]));
  total = ml_block_reduce(total, slots, ml_norm_nothing<kind, double>(), join);
  if (threadIdx.x) return;
  if (kind == SQUARES) total = sqrt(total);
  if (kind == POWERS) total = pow(total, 1 / p);
  *norm = ml_cast<T>(ml_wide<T>(total));
}
