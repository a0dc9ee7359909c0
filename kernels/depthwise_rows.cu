// Depthwise convolutions along lines that keep their length: stride 1 and odd, centred kernels, the
// usual case.  A thread has V neighbouring positions of a line and loads the vector at their place
// and its two neighbours; other axes than the last may have any stride and dilation.
#include "conv.cuh"
#include "warp.cuh"

namespace {

// The 3 V elements around vector `at` of a line of `count` vectors, zero outside.
template <int V, typename T>
__device__ __forceinline__ void depthwise_line(const T* line, int at, int count,
                                               ml_wide<T> (&values)[3 * V]) {
#pragma unroll
  for (int part = 0; part < 3; ++part) {
    const int place = at + part - 1;
    const bool there = place >= 0 && place < count;
    ml_vec<T, V> loaded;
    if (there) loaded = ml_load<V>(line + place * V);
#pragma unroll
    for (int v = 0; v < V; ++v)
      values[part * V + v] = there ? ml_cast<ml_wide<T>>(loaded.at[v]) : ml_wide<T>(0);
  }
}

}  // namespace

// The gather of one channel; `rows` targets may share a source.  A block has one plane of the target.
template <typename T, int WIDTH, int V>
__global__ void __launch_bounds__(256, 3)
depthwise_rows(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
               T* y, conv_map map) {
  typedef ml_wide<T> W;
  const int lines = map.lattice[0].value, vectors = map.lattice[1].value / V;
  const int count = lines * vectors, chunks = (count + blockDim.x - 1) / blockDim.x;
  const int plane = blockIdx.x / chunks;
  const int i = (blockIdx.x - plane * chunks) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int line = i / vectors, at = i - line * vectors;
  const int grouped = plane / map.rows;
  const int row = (grouped % map.groups) * map.rows + (plane - grouped * map.rows);
  const T* from = x + ml_index(grouped) * map.source[0] * map.source[1];
  const T* factors = weight + ml_index(row) * map.pitch;

  W sum[V];
  const W start = bias ? ml_cast<W>(bias[row]) : W(0);
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] = start;
  const bool backwards = map.step[1] < 0;
  const int taps = map.channels ? map.taps[0].value : 0;  // no channels: no taps
  for (int tap = 0; tap < taps; ++tap) {
    const int place = line * map.scale[0] + map.offset[0] + tap * map.step[0];
    if (unsigned(place) >= unsigned(map.source[0])) continue;
    W values[3 * V];
    depthwise_line<V>(from + ml_index(place) * map.source[1], at, vectors, values);
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
      const W factor = ml_cast<W>(factors[tap * WIDTH + (backwards ? WIDTH - 1 - k : k)]);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += factor * values[V + v + k - WIDTH / 2];
    }
  }
  ml_vec<T, V> out;
#pragma unroll
  for (int v = 0; v < V; ++v) out.at[v] = ml_cast<T>(sum[v]);
  const int to = line * map.spread[0] + map.shift[0];
  ml_store_whole<V>(y + (ml_index(plane) * map.target[0] + to) * map.target[1] + at * V, out);
}

// One share of the lines of all images, for one row of the weight: total[share][row][tap].
template <typename T, typename W, int HEIGHT, int WIDTH, int V>
__global__ void __launch_bounds__(256, 2)
depthwise_rows_weight(const T* __restrict__ x, const T* __restrict__ small, W* total,
                      conv_map map, int share) {
  __shared__ W slots[HEIGHT * WIDTH][32];
  const int lines = map.lattice[0].value, vectors = map.lattice[1].value / V;
  const int row = blockIdx.x, group = row / map.rows;
  const int last = map.images * lines * vectors;
  const int first = min(last, int(blockIdx.y) * share), stop = min(last, first + share);
  W sum[HEIGHT][WIDTH];
#pragma unroll
  for (int h = 0; h < HEIGHT; ++h)
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) sum[h][k] = W(0);
  for (int i = first + threadIdx.x; i < stop; i += blockDim.x) {
    const int all = i / vectors, at = i - all * vectors;
    const int image = ml_divide(all, map.lattice[0]), line = all - image * lines;
    const ml_index plane = ml_index(image) * map.groups * map.rows + row;
    const auto given = ml_load<V>(small + (plane * lines + line) * map.lattice[1].value + at * V);
    W dy[V];
#pragma unroll
    for (int v = 0; v < V; ++v) dy[v] = ml_cast<W>(given.at[v]);
    const T* from = x + (ml_index(image) * map.groups + group) * map.source[0] * map.source[1];
#pragma unroll
    for (int h = 0; h < HEIGHT; ++h) {
      const int place = line * map.scale[0] + map.offset[0] + h * map.step[0];
      if (unsigned(place) >= unsigned(map.source[0])) continue;
      W values[3 * V];
      depthwise_line<V>(from + ml_index(place) * map.source[1], at, vectors, values);
#pragma unroll
      for (int k = 0; k < WIDTH; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) sum[h][k] += dy[v] * values[V + v + k - WIDTH / 2];
    }
  }
#pragma unroll
  for (int h = 0; h < HEIGHT; ++h)
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
      const int tap = h * WIDTH + k;
      const W all = ml_block_sum(sum[h][k], slots[tap]);
      if (threadIdx.x == 0)
        total[(ml_index(blockIdx.y) * gridDim.x + row) * (HEIGHT * WIDTH) + tap] = all;
    }
}
