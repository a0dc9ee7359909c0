// Connectionist temporal classification (Graves et al. 2006): a block for each example.
//
// The states of an alignment are the labels with a blank around each.  Threads take states; one step
// of time follows the other, with a barrier between.  logs (steps, batch, classes); where[batch][3]:
// an example's first target, and the lengths of its input and of its target; alpha (batch, steps,
// states), with as many states as a target has at most that can be read in so many steps.
#include "fault.cuh"
#include "warp.cuh"

// One example, and what its states stand for.
template <typename T, typename I>
struct example {
  const T* logs;
  const I* target;
  int inputs, labels, states;  // how many of each
  ml_index stride;             // from one step to the next in `logs`
  int classes, blank;

  __device__ __forceinline__ example(const T* all, const I* targets, const ml_index* where,
                                     int batch, int classes, int blank)
      : logs(all + ml_index(blockIdx.x) * classes), target(targets + where[blockIdx.x * 3]),
        inputs(int(where[blockIdx.x * 3 + 1])), labels(int(where[blockIdx.x * 3 + 2])),
        states(2 * labels + 1), stride(ml_index(batch) * classes), classes(classes), blank(blank) {}

  __device__ __forceinline__ int label(int state) const {
    if (state % 2 == 0) return blank;
    const ml_index named = ml_index(target[state / 2]);
    return named >= 0 && named < classes ? int(named) : blank;
  }
  __device__ __forceinline__ T log_of(int step, int state) const {
    return logs[step * stride + label(state)];
  }
  // Whether a state may follow the one two before it: a label another label.
  __device__ __forceinline__ bool skips(int state) const {
    return state % 2 == 1 && state >= 3 && label(state) != label(state - 2);
  }
};

// `where` from lengths on the device, by a single warp.  Targets are rows of `width` labels or, with
// width 0, follow each other; `labels` is how many there are, of a row or of all.  A length that is
// wrong is reported, and made one that stays within the arrays.
template <typename A, typename B>
__global__ void __launch_bounds__(32)
ctc_places(ml_index* where, const A* inputs, const B* lengths, int batch, int steps, ml_index width,
           ml_index labels, ml_fault* fault, int input_site, int length_site, int total_site) {
  ml_index before = 0;  // labels of the examples of earlier rounds
  for (int first = 0; first < batch; first += 32) {
    const int n = first + ml_lane();
    ml_index input = 0, length = 0;
    if (n < batch) {
      input = inputs[n];
      length = lengths[n];
      if (input < 0 || input > steps) ml_report(fault, input_site, input, steps);
      if (length < 0 || length > labels) ml_report(fault, length_site, length, labels);
      input = input < 0 ? 0 : ml_min(input, ml_index(steps));
      length = length < 0 ? 0 : ml_min(length, labels);
    }
    ml_index end = length;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const ml_index other = __shfl_up_sync(ml_all_lanes, end, step);
      if (ml_lane() >= step) end += other;
    }
    if (n < batch) {
      const ml_index start = width ? n * width : ml_min(before + end - length, labels);
      where[n * 3] = start;
      where[n * 3 + 1] = input;
      where[n * 3 + 2] = width ? length : ml_min(length, labels - start);
    }
    before += __shfl_sync(ml_all_lanes, end, 31);
  }
  if (ml_lane() == 0 && !width && before != labels) ml_report(fault, total_site, before, labels);
}

// log(e^a + e^b + e^c); -inf where there is no path.
template <typename T>
__device__ __forceinline__ T paths(T a, T b, T c) {
  const T top = fmax(a, fmax(b, c)), pivot = top == -ml_inf(top) ? T(0) : top;
  return log(exp(a - pivot) + exp(b - pivot) + exp(c - pivot)) + pivot;
}

template <typename T, typename I>
__global__ void __launch_bounds__(512)
ctc_forward(T* result, T* losses, T* alpha, const T* logs, const I* targets,
            const ml_index* where, int batch, int steps, int classes, int states, int blank,
            bool zero_infinity, ml_fault* fault, int site) {
  const example<T, I> own(logs, targets, where, batch, classes, blank);
  alpha += ml_index(blockIdx.x) * steps * states;
  const T none = -ml_inf(T());
  for (int k = threadIdx.x; k < own.labels; k += blockDim.x) {
    const ml_index named = ml_index(own.target[k]);
    if (named < 0 || named >= classes) ml_report(fault, site, named, classes);
  }
  const bool fits = own.states <= states;  // else there are more labels than steps to read them in
  for (int t = 0; fits && t < own.inputs; ++t) {
    const T* before = alpha + ml_index(t - 1) * states;
    for (int s = threadIdx.x; s < own.states; s += blockDim.x) {
      T from = s < 2 ? T(0) : none;
      if (t > 0)
        from = paths(before[s], s >= 1 ? before[s - 1] : none, own.skips(s) ? before[s - 2] : none);
      alpha[ml_index(t) * states + s] = from + own.log_of(t, s);
    }
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  T loss = own.labels == 0 ? T(0) : -none;  // only the empty target can be read from nothing
  if (fits && own.inputs > 0) {
    const T* last = alpha + ml_index(own.inputs - 1) * states + own.states - 1;
    loss = -paths(last[0], own.states > 1 ? last[-1] : none, none);
  }
  losses[blockIdx.x] = loss;
  result[blockIdx.x] = zero_infinity && loss == -none ? T(0) : loss;
}

// As PyTorch's: exp(log_probs) - posterior, which takes log_probs to be normalised.  beta (batch, 2,
// states), posterior (batch, states) and chain (batch, 2, labels) are scratch.
template <typename T, typename I>
__global__ void __launch_bounds__(512)
ctc_backward(T* dx, const T* dy, const T* losses, const T* alpha, const T* logs, const I* targets,
             const ml_index* where, T* beta, T* posterior, int* chain, int batch, int steps,
             int classes, int states, int blank, bool zero_infinity) {
  __shared__ T slots[32];
  const int n = blockIdx.x;
  const example<T, I> own(logs, targets, where, batch, classes, blank);
  const T loss = losses[n], given = dy[n], none = -ml_inf(T());
  dx += ml_index(n) * classes;
  const bool infinite = loss == -none;
  for (int t = infinite ? 0 : own.inputs; t < steps; ++t) {
    const T value = infinite && t < own.inputs && !zero_infinity ? ml_nan(T()) : T(0);
    for (int c = threadIdx.x; c < classes; c += blockDim.x) dx[t * own.stride + c] = value;
  }
  if (infinite) return;
  alpha += ml_index(n) * steps * states;
  beta += ml_index(n) * 2 * states;
  posterior += ml_index(n) * states;
  // For each label the nearest before that is the same, or -1; and whether none after it is.
  int* prior = chain + ml_index(n) * (states - 1);
  int* last = prior + (states - 1) / 2;
  for (int k = threadIdx.x; k < own.labels; k += blockDim.x) {
    const int label = own.label(2 * k + 1);
    int j = k - 1;
    while (j >= 0 && own.label(2 * j + 1) != label) --j;
    prior[k] = j;
    for (j = k + 1; j < own.labels && own.label(2 * j + 1) != label;) ++j;
    last[k] = j == own.labels && label != blank;
  }
  for (int t = own.inputs - 1; t >= 0; --t) {
    // beta[s]: the logarithm of the probability of what is still to be read from state s.
    T* now = beta + t % 2 * states;
    const T* then = beta + (t + 1) % 2 * states;
    __syncthreads();
    T blanks = T(0);
    for (int s = threadIdx.x; s < own.states; s += blockDim.x) {
      T left = s >= own.states - 2 ? T(0) : none;
      if (t + 1 < own.inputs) {
        const T next = s + 1 < own.states ? then[s + 1] + own.log_of(t + 1, s + 1) : none;
        const T skip = s + 2 < own.states && own.skips(s + 2)
                           ? then[s + 2] + own.log_of(t + 1, s + 2) : none;
        left = paths(then[s] + own.log_of(t + 1, s), next, skip);
      }
      now[s] = left;
      const T share = exp(alpha[ml_index(t) * states + s] + left + loss);
      posterior[s] = share;
      if (own.label(s) == blank) blanks += share;
    }
    blanks = ml_block_sum(blanks, slots);
    for (int c = threadIdx.x; c < classes; c += blockDim.x) {
      const T p = exp(own.logs[t * own.stride + c]);
      dx[t * own.stride + c] = (c == blank ? p - blanks : p) * given;
    }
    __syncthreads();
    for (int k = threadIdx.x; k < own.labels; k += blockDim.x) {
      if (!last[k]) continue;
      T sum = T(0);
      for (int j = k; j >= 0; j = prior[j]) sum += posterior[2 * j + 1];
      const ml_index at = t * own.stride + own.label(2 * k + 1);
      dx[at] = (exp(own.logs[at]) - sum) * given;
    }
  }
}
