// The loss of recurrent neural network transducers (Graves 2012).
//
// A cell (t, u) of the lattice is frame t after u labels: a blank leads from it to (t + 1, u), the
// next label to (t, u + 1), and a blank from the last cell to the end.  Cells of one diagonal
// d = t + u depend on those of the one before alone.  So what sweeps read and write lies diagonal by
// diagonal, [sequence][d][u] with most + columns - 1 diagonals: their neighbours are side by side.
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
    at = (ml_index(sequence) * (most + columns - 1) + t + u) * columns + u;
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

// alpha, the logarithm of the probability of coming to each cell, and each sequence's loss.
//
// A thread has P columns; it keeps what goes straight on, and leaves for its neighbour what goes
// across.  Shared: two lines of `columns`.
template <typename W, int P>
__global__ void __launch_bounds__(512)
transducer_alpha(W* result, W* losses, W* alpha, const ml_pair<W>* scores, const ml_index* targets,
                 const ml_index* frames, const ml_index* labels, int most, int columns, int classes,
                 ml_fault* fault, int frames_site, int labels_site, int class_site) {
  extern __shared__ __align__(16) unsigned char shared[];
  const W none = -ml_inf(W());
  const int n = blockIdx.x;
  W* lines = reinterpret_cast<W*>(shared);
  const transducer_size size = transducer_lengths(frames, labels, n, most, columns);
  if (threadIdx.x == 0 && (frames[n] < 1 || frames[n] > most))
    ml_report(fault, frames_site, frames[n], most);
  if (threadIdx.x == 0 && (labels[n] < 0 || labels[n] >= columns))
    ml_report(fault, labels_site, labels[n], columns - 1);
  for (int u = threadIdx.x; u < size.labels; u += blockDim.x) {
    const ml_index label = targets[ml_index(n) * (columns - 1) + u];
    if (label < 0 || label >= classes) ml_report(fault, class_site, label, classes);
  }
  const int last = size.frames + size.labels - 1;  // the diagonal of the last cell
  scores += ml_index(n) * (most + columns - 1) * columns;
  alpha += ml_index(n) * (most + columns - 1) * columns;
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
  fetch(0);
  for (int d = 0; d <= last; ++d) {
    const W* before = lines + (d + 1) % 2 * columns;
    W* line = lines + d % 2 * columns;
    ml_pair<W> score[P];
#pragma unroll
    for (int p = 0; p < P; ++p) score[p] = next[p];
    if (d < last) fetch(d + 1);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int u = threadIdx.x + p * blockDim.x;
      if (u > size.labels) continue;
      const W across = d > 0 && u > 0 ? before[u - 1] : none;
      const W value = d == 0 && u == 0 ? W(0) : transducer_join(straight[p], across);
      straight[p] = value + score[p].first;
      line[u] = value + score[p].second;
      alpha[ml_index(d) * columns + u] = value;
      if (d == last && u == size.labels) result[n] = losses[n] = -straight[p];
    }
    __syncthreads();
  }
}

// The probabilities of going on from each cell with a blank, and with a label, given the targets:
// from the end back, each cell's is split by how probable the two ways into it are.  So sums stay 1,
// which those of differences of large logarithms would not.
template <typename W, int P>
__global__ void __launch_bounds__(512)
transducer_flows(ml_pair<W>* flows, const W* alpha, const ml_pair<W>* scores,
                 const ml_index* frames, const ml_index* labels, int most, int columns) {
  extern __shared__ __align__(16) unsigned char shared[];
  const W none = -ml_inf(W());
  const int n = blockIdx.x;
  W* lines = reinterpret_cast<W*>(shared);
  const transducer_size size = transducer_lengths(frames, labels, n, most, columns);
  const int last = size.frames + size.labels - 1;
  const ml_index start = ml_index(n) * (most + columns - 1) * columns;
  flows += start;
  alpha += start;
  scores += start;
  W straight[P];
  ml_pair<W> next[P];
  const auto fetch = [&](int d) {  // both ways into the cells of a diagonal
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int u = threadIdx.x + p * blockDim.x, t = d - u;
      next[p] = {none, none};
      if (u > size.labels || t < 0 || t >= size.frames || d == 0) continue;
      const ml_index at = ml_index(d - 1) * columns + u;
      if (t > 0) next[p].first = alpha[at] + scores[at].first;
      if (u > 0) next[p].second = alpha[at - 1] + scores[at - 1].second;
    }
  };
#pragma unroll
  for (int p = 0; p < P; ++p) straight[p] = W(0);
  fetch(last);
  for (int d = last; d >= 0; --d) {
    const W* before = lines + (d + 1) % 2 * columns;
    W* line = lines + d % 2 * columns;
    ml_pair<W> way[P];
#pragma unroll
    for (int p = 0; p < P; ++p) way[p] = next[p];
    if (d > 0) fetch(d - 1);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      const int u = threadIdx.x + p * blockDim.x, t = d - u;
      if (u > size.labels) continue;
      const bool inside = t >= 0 && t < size.frames;
      ml_pair<W> out = {straight[p], d < last && u < size.labels ? before[u + 1] : W(0)};
      if (d == last && u == size.labels) out.first = W(1);
      if (inside) flows[ml_index(d) * columns + u] = out;
      const W here = inside ? out.first + out.second : W(0), away = way[p].second - way[p].first;
      straight[p] = way[p].first == none ? W(0) : here / (W(1) + exp(away));
      line[u] = way[p].second == none ? W(0) : here / (W(1) + exp(-away));
    }
    __syncthreads();
  }
}

// The gradient of the logits, whose memory may be theirs.  `most_gradient` confines that of a
// sequence's own loss; what lies beyond a sequence's lengths gets 0.
template <typename T, int E, int L, bool FUSED>
__global__ void __launch_bounds__(256)
transducer_gradient(T* dx, const T* logits, const ml_wide<T>* dy, const ml_wide<T>* losses,
                    const ml_pair<ml_wide<T>>* flows, const ml_wide<T>* lse,
                    const ml_index* targets, const ml_index* frames, const ml_index* labels,
                    int rows, int most, int columns, int classes, int blank,
                    double most_gradient) {
  typedef ml_wide<T> W;
  const W limit = W(most_gradient);
  const int row = blockIdx.x * (256 / L) + threadIdx.x / L, lane = threadIdx.x % L;
  if (row >= rows) return;
  const transducer_cell cell(row, rows, frames, labels, most, columns);
  W stay = W(0), move = W(0), logarithm = W(0), scale = W(0);
  int label = -1;
  if (cell.inside) {
    const ml_pair<W> flow = flows[cell.at];
    const bool never = losses[cell.sequence] == ml_inf(W());  // there is no way through
    stay = never ? ml_nan(W()) : flow.first;
    move = never ? ml_nan(W()) : flow.second;
    label = transducer_label(targets, labels, cell.sequence, cell.u, columns, classes);
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
