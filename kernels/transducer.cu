// The loss of recurrent neural network transducers (Graves 2012).
//
// A cell (t, u) of the lattice is frame t after u labels: a blank leads from it to (t + 1, u), the
// next label to (t, u + 1), and a blank from the last cell to the end.  Cells of one diagonal
// d = t + u depend on those of the one before alone.  So what sweeps read and write lies diagonal by
// diagonal, [sequence][d][u] with most + columns diagonals: their neighbours are side by side.
#include "fault.cuh"
#include "rows.cuh"

namespace {

struct transducer_size {
  int frames, labels;
};

// A sequence's lengths; wrong ones, which the sweep reports, are made to stay within the arrays.
__device__ __forceinline__ transducer_size transducer_lengths(const ml_index* frames,
                                                              const ml_index* labels, int sequence,
                                                              int most, int columns) {
  const ml_index t = frames[sequence], u = labels[sequence];
  return {int(t < 1 ? 1 : ml_min(t, ml_index(most))),
          int(u < 0 ? 0 : ml_min(u, ml_index(columns - 1)))};
}

// A cell by the number of its row of logits, and where it lies on its diagonal.
struct transducer_cell {
  int sequence, t, u;
  bool inside;
  ml_index at;

  __device__ __forceinline__ transducer_cell(int row, int rows, const ml_index* frames,
                                             const ml_index* labels, int most, int columns)
      : inside(row < rows) {
    if (!inside) return;
    const int step = row / columns;
    u = row - step * columns;
    sequence = step / most;
    t = step - sequence * most;
    const transducer_size size = transducer_lengths(frames, labels, sequence, most, columns);
    inside = t < size.frames && u <= size.labels;
    at = (ml_index(sequence) * (most + columns) + t + u) * columns + u;
  }
};

// The label after u of them, -1 where there is none.
__device__ __forceinline__ int transducer_label(const ml_index* targets, const ml_index* labels,
                                                int sequence, int u, int columns, int classes) {
  if (u >= columns - 1 || u >= labels[sequence]) return -1;
  const ml_index label = targets[ml_index(sequence) * (columns - 1) + u];
  return label >= 0 && label < classes ? int(label) : -1;
}

// log(e^a + e^b)
template <typename W>
__device__ __forceinline__ W transducer_join(W a, W b) {
  const W top = ml_max(a, b), low = ml_min(a, b);
  return top == -ml_inf(top) ? top : top + log1p(exp(low - top));
}

}  // namespace

// The logarithms of the probabilities of a blank and of the next label in each cell, and with FUSED
// each row's logsumexp, for logits (sequences, most, columns, classes).  L lanes take a row.
template <typename T, int E, int L, bool FUSED>
__global__ void __launch_bounds__(256)
transducer_scores(ml_pair<ml_wide<T>>* scores, ml_wide<T>* lse, const T* logits,
                  const ml_index* targets, const ml_index* frames, const ml_index* labels,
                  int rows, int most, int columns, int classes, int blank) {
  typedef ml_wide<T> W;
  const int row = blockIdx.x * (256 / L) + threadIdx.x / L, lane = threadIdx.x % L;
  const transducer_cell cell(row, rows, frames, labels, most, columns);
  const T* x = logits + ml_index(row) * classes;
  W logarithm = W(0);
  if constexpr (FUSED) {
    row_sum<W> running = {-ml_inf(W()), W(0)};
    for (int first = lane * E; first < (cell.inside ? classes : 0); first += 4 * L * E) {
      W values[4 * E];
      row_load<4, E>(values, x, classes, first, L * E, -ml_inf(W()));
      row_take<T>(running, values);
    }
    running = ml_warp_reduce<L>(running, row_merge<T>());
    logarithm = running.top + log(running.sum);
  }
  if (!cell.inside || lane != 0) return;
  if constexpr (FUSED) lse[row] = logarithm;
  const int label = transducer_label(targets, labels, cell.sequence, cell.u, columns, classes);
  scores[cell.at] = {ml_cast<W>(x[blank]) - logarithm,
                     label < 0 ? -ml_inf(W()) : ml_cast<W>(x[label]) - logarithm};
}

// blockIdx.y 0: alpha, the logarithm of the probability of coming to a cell, and each sequence's
// loss.  1: beta, that of all that is still to be said from it, 0 at the end, (frames, labels).
// A thread has P columns; it keeps what goes straight on, and leaves for its neighbour what goes
// across.  Shared: two lines of `columns`.
template <typename W, int P>
__global__ void __launch_bounds__(512)
transducer_sweep(W* result, W* losses, W* alpha, W* beta, const ml_pair<W>* scores, const ml_index* targets,
                 const ml_index* frames, const ml_index* labels, int most, int columns, int classes,
                 ml_fault* fault, int frames_site, int labels_site, int class_site) {
  extern __shared__ __align__(16) unsigned char shared[];
  const W none = -ml_inf(W());
  const int n = blockIdx.x;
  const bool back = blockIdx.y == 1;
  W* lines = reinterpret_cast<W*>(shared);
  const transducer_size size = transducer_lengths(frames, labels, n, most, columns);
  if (!back) {
    if (threadIdx.x == 0 && (frames[n] < 1 || frames[n] > most))
      ml_report(fault, frames_site, frames[n], most);
    if (threadIdx.x == 0 && (labels[n] < 0 || labels[n] >= columns))
      ml_report(fault, labels_site, labels[n], columns - 1);
    for (int u = threadIdx.x; u < size.labels; u += blockDim.x) {
      const ml_index label = targets[ml_index(n) * (columns - 1) + u];
      if (label < 0 || label >= classes) ml_report(fault, class_site, label, classes);
    }
  }
  const int end = size.frames + size.labels;  // the diagonal of the end
  scores += ml_index(n) * (most + columns) * columns;
  W* out = (back ? beta : alpha) + ml_index(n) * (most + columns) * columns;
  W straight[P];
  ml_pair<W> next[P];
  const auto fetch = [&](int d) {  // the scores of a diagonal, before they are needed
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int u = threadIdx.x + p * blockDim.x, t = d - u;
      next[p] = {none, none};
      if (u <= size.labels && t >= 0 && t < size.frames) next[p] = scores[ml_index(d) * columns + u];
    }
  };
#pragma unroll
  for (int p = 0; p < P; ++p) straight[p] = none;
  fetch(back ? end : 0);
  for (int step = 0; step <= end; ++step) {
    const int d = back ? end - step : step;
    const W* before = lines + (step + 1) % 2 * columns;
    W* line = lines + step % 2 * columns;
    ml_pair<W> score[P];
#pragma unroll
    for (int p = 0; p < P; ++p) score[p] = next[p];
    if (step < end) fetch(back ? d - 1 : d + 1);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int u = threadIdx.x + p * blockDim.x;
      if (u > size.labels) continue;
      W value;
      if (back) {
        const W across = step > 0 && u < size.labels ? before[u + 1] : none;
        value = step == 0 && u == size.labels
                    ? W(0) : transducer_join(score[p].first + straight[p], score[p].second + across);
        straight[p] = line[u] = value;
      } else {
        value = d == 0 && u == 0
                    ? W(0) : transducer_join(straight[p], step > 0 && u > 0 ? before[u - 1] : none);
        if (d == end && u == size.labels) result[n] = losses[n] = -straight[p];
        straight[p] = value + score[p].first;
        line[u] = value + score[p].second;
      }
      out[ml_index(d) * columns + u] = value;
    }
    __syncthreads();
  }
}

// The gradient of the logits, whose memory may be theirs.  `most_gradient` confines that of a
// sequence's own loss; what lies beyond a sequence's lengths gets 0.
template <typename T, int E, int L, bool FUSED>
__global__ void __launch_bounds__(256)
transducer_gradient(T* dx, const T* logits, const ml_wide<T>* dy, const ml_wide<T>* losses,
                    const ml_pair<ml_wide<T>>* scores, const ml_wide<T>* lse,
                    const ml_wide<T>* alpha, const ml_wide<T>* beta, const ml_index* targets,
                    const ml_index* frames, const ml_index* labels, int rows, int most, int columns,
                    int classes, int blank, double most_gradient) {
  typedef ml_wide<T> W;
  const W limit = W(most_gradient);
  const int row = blockIdx.x * (256 / L) + threadIdx.x / L, lane = threadIdx.x % L;
  if (row >= rows) return;
  const transducer_cell cell(row, rows, frames, labels, most, columns);
  W stay = W(0), move = W(0), logarithm = W(0), scale = W(0);
  int label = -1;
  if (cell.inside) {  // the probabilities of coming here and going on so, given the targets
    const ml_pair<W> score = scores[cell.at];
    const W come = alpha[cell.at] + losses[cell.sequence];
    stay = exp(come + score.first + beta[cell.at + columns]);
    label = transducer_label(targets, labels, cell.sequence, cell.u, columns, classes);
    if (label >= 0) move = exp(come + score.second + beta[cell.at + columns + 1]);
    if constexpr (FUSED) logarithm = lse[row];
    scale = dy[cell.sequence];
  }
  const T* x = logits + ml_index(row) * classes;
  T* out = dx + ml_index(row) * classes;
  const W here = stay + move;
  for (int first = lane * E; first < classes; first += 4 * L * E) {
    W values[4 * E];
    if (FUSED && cell.inside) row_load<4, E>(values, x, classes, first, L * E, W(0));
#pragma unroll
    for (int i = 0; i < 4 * E; ++i) {
      const int c = first + i / E * (L * E) + i % E;
      W value = FUSED && cell.inside ? here * row_exp<T>(values[i] - logarithm) : W(0);
      if (cell.inside && c == blank) value -= stay;
      if (c == label) value -= move;
      values[i] = (value > limit ? limit : value < -limit ? -limit : value) * scale;
    }
    row_store<4, E>(out, values, classes, first, L * E);
  }
}
