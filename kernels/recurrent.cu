// What a step of a recurrent layer does beside its products: gates, cell and state, and the same
// backward.  T is stored, S computed in; one thread does one unit of one row, whose gates lie H apart.
#include "common.cuh"

// h = act(...) is the product's own epilogue; this is its derivative.  dgates = (dh + dy) act'(y).
template <typename T, typename S>
__global__ void __launch_bounds__(256)
rnn_backward(const T* __restrict__ dy, const T* __restrict__ dh, const T* __restrict__ y, T* dgates,
             ml_index n, bool relu) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= n) return;
  S d = dy ? ml_cast<S>(dy[i]) : S(0);
  if (dh) d += ml_cast<S>(dh[i]);
  const S out = ml_cast<S>(y[i]);
  dgates[i] = ml_cast<T>(relu ? (out > S(0) ? d : S(0)) : d * (S(1) - out * out));
}

// acts: the sums of the gates i, f, g, o, which become their values.  The cell before the step is
// `first` in the layer's first step, `before` in others; `last_out` and `last_cell` are the last one's.
template <typename T, typename S>
__global__ void __launch_bounds__(256)
lstm_forward(T* acts, const T* __restrict__ first, const S* __restrict__ before, S* cell, T* out,
             T* last_out, T* last_cell, int rows, int hidden) {
  const ml_index at = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (at >= ml_index(rows) * hidden) return;
  const ml_index row = at / hidden;
  T* gates = acts + row * 4 * hidden + (at - row * hidden);
  const S i = ml_sigmoid(ml_cast<S>(gates[0])), f = ml_sigmoid(ml_cast<S>(gates[hidden]));
  const S g = tanh(ml_cast<S>(gates[2 * hidden])), o = ml_sigmoid(ml_cast<S>(gates[3 * hidden]));
  const S c = f * (first ? ml_cast<S>(first[at]) : before[at]) + i * g;
  gates[0] = ml_cast<T>(i);
  gates[hidden] = ml_cast<T>(f);
  gates[2 * hidden] = ml_cast<T>(g);
  gates[3 * hidden] = ml_cast<T>(o);
  if (cell) cell[at] = c;
  if (last_cell) last_cell[at] = ml_cast<T>(c);
  const T h = ml_cast<T>(o * tanh(c));
  out[at] = h;
  if (last_out) last_out[at] = h;
}

// dm: what reaches o * tanh(c), in up to two parts.  dc is what reaches the cell from later, and becomes
// what reaches the one before; the layer's last step, where one walks back from, has `dlast` or nothing
// instead, and its first one, with `first` as the cell before it, leaves it in `dfirst`.
template <typename T, typename S>
__global__ void __launch_bounds__(256)
lstm_backward(const T* __restrict__ acts, const T* __restrict__ first, const S* __restrict__ before,
              const S* __restrict__ cell, const T* __restrict__ dm, const T* __restrict__ dm_too,
              const T* __restrict__ dlast, S* dc, T* dgates, T* dfirst, bool last, int rows,
              int hidden) {
  const ml_index at = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (at >= ml_index(rows) * hidden) return;
  const ml_index row = at / hidden, place = row * 4 * hidden + (at - row * hidden);
  const T* gates = acts + place;
  T* d = dgates + place;
  const S i = ml_cast<S>(gates[0]), f = ml_cast<S>(gates[hidden]);
  const S g = ml_cast<S>(gates[2 * hidden]), o = ml_cast<S>(gates[3 * hidden]);
  const S t = tanh(cell[at]);
  S dout = dm ? ml_cast<S>(dm[at]) : S(0);
  if (dm_too) dout += ml_cast<S>(dm_too[at]);
  const S later = !last ? dc[at] : dlast ? ml_cast<S>(dlast[at]) : S(0);
  const S inner = later + dout * o * (S(1) - t * t);
  d[0] = ml_cast<T>(inner * g * i * (S(1) - i));
  d[hidden] = ml_cast<T>(inner * (first ? ml_cast<S>(first[at]) : before[at]) * f * (S(1) - f));
  d[2 * hidden] = ml_cast<T>(inner * i * (S(1) - g * g));
  d[3 * hidden] = ml_cast<T>(dout * t * o * (S(1) - o));
  if (dfirst) dfirst[at] = ml_cast<T>(inner * f);
  else dc[at] = inner * f;
}

// out = o * tanh(c), which a projecting LSTM does not keep.
template <typename T, typename S>
__global__ void __launch_bounds__(256)
lstm_output(const T* __restrict__ acts, const S* __restrict__ cell, T* out, int rows, int hidden) {
  const ml_index at = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (at >= ml_index(rows) * hidden) return;
  const ml_index row = at / hidden;
  const T o = acts[row * 4 * hidden + 3 * hidden + (at - row * hidden)];
  out[at] = ml_cast<T>(ml_cast<S>(o) * tanh(cell[at]));
}

// acts: w_hh h + b_hh for reset, update and new, which become the gates' values; inner keeps the third,
// which reset multiplies.  x: the same of the input.  `last` is the layer's last step's.
template <typename T, typename S>
__global__ void __launch_bounds__(256)
gru_forward(T* acts, const T* __restrict__ x, const T* __restrict__ h, T* inner, T* out, T* last,
            int rows, int hidden) {
  const ml_index at = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (at >= ml_index(rows) * hidden) return;
  const ml_index row = at / hidden, place = row * 3 * hidden + (at - row * hidden);
  T* gates = acts + place;
  const S part = ml_cast<S>(gates[2 * hidden]);
  const S reset = ml_sigmoid(ml_cast<S>(gates[0]) + ml_cast<S>(x[place]));
  const S update = ml_sigmoid(ml_cast<S>(gates[hidden]) + ml_cast<S>(x[place + hidden]));
  const S fresh = tanh(reset * part + ml_cast<S>(x[place + 2 * hidden]));
  inner[at] = ml_cast<T>(part);
  gates[0] = ml_cast<T>(reset);
  gates[hidden] = ml_cast<T>(update);
  gates[2 * hidden] = ml_cast<T>(fresh);
  const T next = ml_cast<T>((ml_cast<S>(h[at]) - fresh) * update + fresh);
  out[at] = next;
  if (last) last[at] = next;
}

// dgates: what reaches x; dinner: what reaches w_hh h + b_hh; rest: what reaches h past the gates.
template <typename T, typename S>
__global__ void __launch_bounds__(256)
gru_backward(const T* __restrict__ acts, const T* __restrict__ inner, const T* __restrict__ h,
             const T* __restrict__ dy, const T* __restrict__ dh, T* dgates, T* dinner, T* rest,
             int rows, int hidden) {
  const ml_index at = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (at >= ml_index(rows) * hidden) return;
  const ml_index row = at / hidden, place = row * 3 * hidden + (at - row * hidden);
  const T* gates = acts + place;
  const S reset = ml_cast<S>(gates[0]), update = ml_cast<S>(gates[hidden]);
  const S fresh = ml_cast<S>(gates[2 * hidden]);
  S d = dy ? ml_cast<S>(dy[at]) : S(0);
  if (dh) d += ml_cast<S>(dh[at]);
  const S dfresh = (S(1) - update) * d * (S(1) - fresh * fresh);
  const S dupdate = (ml_cast<S>(h[at]) - fresh) * d * update * (S(1) - update);
  const S dreset = dfresh * ml_cast<S>(inner[at]) * reset * (S(1) - reset);
  dgates[place] = dinner[place] = ml_cast<T>(dreset);
  dgates[place + hidden] = dinner[place + hidden] = ml_cast<T>(dupdate);
  dgates[place + 2 * hidden] = ml_cast<T>(dfresh);
  dinner[place + 2 * hidden] = ml_cast<T>(dfresh * reset);
  rest[at] = ml_cast<T>(d * update);
}
