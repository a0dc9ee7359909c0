// Depthwise convolutions along lines that keep their length: stride 1 and odd, centred kernels, the
// usual case.  A thread has V neighbouring positions of a line and loads the vector at their place;
// what its taps see of the vectors beside comes from the lanes that have them.  Other axes than the
// last may have any stride and dilation.
#include "conv.cuh"
#include "warp.cuh"

namespace {

// The V + 2 HALF elements around vector `at` of a line of `count` vectors, zero outside, and where the
// line is not `there`.  Neighbouring lanes have neighbouring vectors.
template <int V, int HALF, typename T>
__device__ __forceinline__ void depthwise_line(const T* line, int at, int count, bool there,
                                               ml_wide<T> (&values)[V + 2 * HALF]) {
  const int WORDS = V * sizeof(T) / 4, ENDS = (HALF * int(sizeof(T)) + 3) / 4;
  const int lane = threadIdx.x & 31;
  const bool before = there && at > 0, after = there && at + 1 < count;
  unsigned words[WORDS + 2 * ENDS];
  const unsigned* own = reinterpret_cast<const unsigned*>(line) + at * WORDS;
  ml_vec<unsigned, WORDS> loaded;
#pragma unroll
  for (int w = 0; w < WORDS; ++w) loaded.at[w] = 0;
  if (there) loaded = ml_load<WORDS>(own);
#pragma unroll
  for (int w = 0; w < WORDS; ++w) words[ENDS + w] = loaded.at[w];
#pragma unroll
  for (int e = 0; e < ENDS; ++e) {
    unsigned left = __shfl_up_sync(~0u, loaded.at[WORDS - ENDS + e], 1);
    unsigned right = __shfl_down_sync(~0u, loaded.at[e], 1);
    if (lane == 0 && before) left = own[e - ENDS];
    if (lane == 31 && after) right = own[WORDS + e];
    words[e] = before ? left : 0;
    words[ENDS + WORDS + e] = after ? right : 0;
  }
  T elements[(WORDS + 2 * ENDS) * 4 / sizeof(T)];
  memcpy(elements, words, sizeof(words));
#pragma unroll
  for (int v = 0; v < V + 2 * HALF; ++v)
    values[v] = ml_cast<ml_wide<T>>(elements[ENDS * 4 / int(sizeof(T)) - HALF + v]);
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
    W values[V + WIDTH - 1];
    depthwise_line<V, WIDTH / 2>(from + ml_index(place) * map.source[1], at, vectors,
                                 i < count && unsigned(place) < unsigned(map.source[0]), values);
#pragma unroll
    for (int k = 0; k < WIDTH; ++k) {
      const W factor = ml_cast<W>(factors[tap * WIDTH + (backwards ? WIDTH - 1 - k : k)]);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += factor * values[v + k];
    }
  }
  if (i >= count) return;
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
  // Lanes past the share's end load their vectors too: those before them see some of it.
  for (int start = first + (threadIdx.x & ~31); start < stop; start += blockDim.x) {
    const int i = start + (threadIdx.x & 31);
    const int all = i / vectors, at = i - all * vectors;
    const int image = ml_divide(all, map.lattice[0]), line = all - image * lines;
    const ml_index plane = ml_index(image) * map.groups * map.rows + row;
    ml_vec<T, V> given;
    if (i < stop) given = ml_load<V>(small + (plane * lines + line) * map.lattice[1].value + at * V);
    W dy[V];
#pragma unroll
    for (int v = 0; v < V; ++v) dy[v] = i < stop ? ml_cast<W>(given.at[v]) : W(0);
    const T* from = x + (ml_index(image) * map.groups + group) * map.source[0] * map.source[1];
#pragma unroll
    for (int h = 0; h < HEIGHT; ++h) {
      const int place = line * map.scale[0] + map.offset[0] + h * map.step[0];
      W values[V + WIDTH - 1];
      depthwise_line<V, WIDTH / 2>(from + ml_index(place) * map.source[1], at, vectors,
                                   i < last && unsigned(place) < unsigned(map.source[0]), values);
#pragma unroll
      for (int k = 0; k < WIDTH; ++k)
#pragma unroll
        for (int v = 0; v < V; ++v) sum[h][k] += dy[v] * values[v + k];
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
