// Losses that look at their inputs' values: binary cross entropy, and margins between classes with
// and without a label.
#include "fault.cuh"
#include "rows.cuh"

// -(t log(x) + (1 - t) log(1 - x)) with logarithms at least -100; both must be within [0, 1].
template <typename T, typename W, int E>
__global__ void __launch_bounds__(256)
binary_cross_entropy(T* y, const T* x, const T* target, ml_index vectors, ml_fault* fault,
                     int input_site, int target_site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= vectors) return;
  W p[E], t[E];
  take<E>(p, x + i * E);
  take<E>(t, target + i * E);
#pragma unroll
  for (int e = 0; e < E; ++e) {
    if (!(p[e] >= W(0) && p[e] <= W(1))) ml_report(fault, input_site, 0, 0);
    if (!(t[e] >= W(0) && t[e] <= W(1))) ml_report(fault, target_site, 0, 0);
    p[e] = (t[e] - W(1)) * ml_max(log1p(-p[e]), W(-100)) - t[e] * ml_max(log(p[e]), W(-100));
  }
  row_store<1, E>(y + i * E, p, 1, 0, 0);
}

// What is missing from each variance to `least`; none may be negative.
template <typename T, typename W, int E>
__global__ void __launch_bounds__(256)
variance_lift(T* lift, const T* var, ml_index vectors, double least, ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= vectors) return;
  const W floor = ml_cast<W>(ml_cast<T>(W(least)));
  W v[E];
  take<E>(v, var + i * E);
#pragma unroll
  for (int e = 0; e < E; ++e) {
    if (v[e] < W(0)) ml_report(fault, site, 0, 0);
    v[e] = v[e] < floor ? floor - v[e] : W(0);
  }
  row_store<1, E>(lift + i * E, v, 1, 0, 0);
}

// Sum over labels j and classes i without label of max(0, 1 - x[j] + x[i]) / classes, and its slope.
// A block for each row.  `labelled` and `counts`, one number per score, are 0 at the start; integers
// are counted, so that the order of the atomics does not matter.
template <typename T, typename W>
__global__ void __launch_bounds__(256)
multilabel_margin(T* losses, W* slope, unsigned char* labelled, int* counts, const T* x,
                  const long long* target, int classes, ml_fault* fault, int site) {
  __shared__ int ends[32];
  __shared__ W sums[32];
  const ml_index row = ml_index(blockIdx.x) * classes;
  x += row;
  target += row;
  labelled += row;
  counts += row;
  int live = classes;
  for (int j = threadIdx.x; j < classes; j += 256) {
    const long long label = target[j];
    if (label < -1 || label >= classes) ml_report(fault, site, label, classes);
    if (label < 0) live = min(live, j);
  }
  live = ml_block_reduce(live, ends, classes, ml_minimum());
  for (int j = threadIdx.x; j < live; j += 256)
    if (target[j] < classes) labelled[target[j]] = 1;
  __syncthreads();
  W sum = W(0);
  for (int j = ml_warp(); j < live; j += 8) {  // a warp for each label
    const long long label = target[j];
    if (label >= classes) continue;
    const W score = ml_cast<W>(x[label]);
    int active = 0;
    for (int i = ml_lane(); i < classes; i += 32) {
      const W excess = ml_cast<W>(x[i]) - score + W(1);
      if (labelled[i] || !(excess > W(0))) continue;
      sum += excess;
      ++active;
    }
    active = ml_warp_sum(active);
    if (ml_lane() == 0) atomicAdd(counts + label, active);
  }
  sum = ml_block_sum(sum, sums);  // its barrier is what the counts below wait for, too
  if (threadIdx.x == 0) losses[blockIdx.x] = ml_cast<T>(sum / W(classes));
  for (int i = threadIdx.x; i < classes; i += 256) {
    int total = -counts[i];
    if (!labelled[i]) {
      total = 0;
      for (int j = 0; j < live; ++j)
        if (target[j] < classes)
          total += ml_cast<W>(x[i]) - ml_cast<W>(x[target[j]]) + W(1) > W(0);
    }
    slope[row + i] = W(total) / W(classes);
  }
}
