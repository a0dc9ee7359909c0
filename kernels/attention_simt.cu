// Attention of float32 and float64 by plain instructions: as attention_forward.cu and
// attention_backward.cu, with tiles of numbers in shared memory and the scores never in global
// memory.
//
// Eight lanes share a row; a thread has ROWS rows THREADS / 8 apart, and of tiles of BN others
// every eighth.  So lanes that read a tile row by row are an odd number of 16 bytes apart, or read
// the same.
#include "attention.cuh"

// Reports lengths that are not between 0 and `keys`, for heads that no kernel takes.
template <typename I>
__global__ void __launch_bounds__(256)
attention_lengths(const I* __restrict__ lengths, ml_index count, int keys, ml_fault* fault,
                  int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const ml_index length = lengths[i];
  if (length < 0 || length > keys) ml_report(fault, site, length, keys);
}

// Rows of D numbers of type T, padded by 16 bytes; and rows of BN scores.
template <typename T, int D>
struct ml_plain_tile {
  static const int vec = 16 / sizeof(T), pitch = D + vec;
};
template <int BN>
struct ml_plain_scores {
  static const int pitch = BN == 8 ? 8 : BN + 8;
};

// N rows from `source` on, of which `rows` exist and have `columns` numbers; zeros elsewhere.
template <int N, int D, int THREADS, int VEC, typename T>
__device__ __forceinline__ void ml_load_plain(T* tile, const T* source, ml_index stride, int rows,
                                              int columns) {
  const int vectors = D / VEC;
#pragma unroll 4
  for (int i = threadIdx.x; i < N * vectors; i += THREADS) {
    const int row = i / vectors, column = i % vectors * VEC;
    const bool valid = row < rows && column < columns;
    ml_copy_async<VEC * sizeof(T)>(ml_shared(tile + row * ml_plain_tile<T, D>::pitch + column),
                                   valid ? source + row * stride + column : source, valid);
  }
}
__device__ __forceinline__ void ml_arrive() {
  ml_copy_commit();
  ml_copy_wait<0>();
  __syncthreads();
}

// out[r][c] += the product of row ty + r * TY of `a` and row tx + 8 c of `b`.
template <int D, int TY, int ROWS, int COLUMNS, typename T>
__device__ __forceinline__ void ml_products(T (&out)[ROWS][COLUMNS], const T* a, const T* b, int ty,
                                            int tx) {
  typedef ml_plain_tile<T, D> Tile;
#pragma unroll 2
  for (int e = 0; e < D; e += Tile::vec) {
    ml_vec<T, Tile::vec> x[ROWS], y[COLUMNS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
      x[r] = ml_load<Tile::vec>(a + (ty + r * TY) * Tile::pitch + e);
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c)
      y[c] = ml_load<Tile::vec>(b + (tx + 8 * c) * Tile::pitch + e);
#pragma unroll
    for (int i = 0; i < Tile::vec; ++i)
#pragma unroll
      for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) out[r][c] += x[r].at[i] * y[c].at[i];
  }
}

// out[r][c] += the sum over j of weights[ty + r * TY][j] * b[j], for columns tx + 8 c in 16 bytes.
template <int D, int BN, int TY, int ROWS, int PARTS, typename T>
__device__ __forceinline__ void ml_weighted(T (&out)[ROWS][PARTS][16 / sizeof(T)], const T* weights,
                                            const T* b, int ty, int tx) {
  typedef ml_plain_tile<T, D> Tile;
  const int vec = Tile::vec;
#pragma unroll 1
  for (int j0 = 0; j0 < BN; j0 += vec) {
    ml_vec<T, vec> x[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
      x[r] = ml_load<vec>(weights + (ty + r * TY) * ml_plain_scores<BN>::pitch + j0);
#pragma unroll
    for (int j = 0; j < vec; ++j)
#pragma unroll
      for (int c = 0; c < PARTS; ++c) {
        const auto y = ml_load<vec>(b + (j0 + j) * Tile::pitch + (tx + 8 * c) * vec);
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
          for (int i = 0; i < vec; ++i) out[r][c][i] += x[r].at[j] * y.at[i];
      }
  }
}

// A thread's parts of row `row` of a result, times `factor`.
template <int VEC, int PARTS, typename T>
__device__ __forceinline__ void ml_store_plain(T* row, const T (&x)[PARTS][16 / sizeof(T)],
                                               T factor, int columns, int tx) {
  const int vec = 16 / sizeof(T);
#pragma unroll
  for (int c = 0; c < PARTS; ++c)
#pragma unroll
    for (int i = 0; i < vec; i += VEC) {
      const int column = (tx + 8 * c) * vec + i;
      ml_vec<T, VEC> y;
#pragma unroll
      for (int j = 0; j < VEC; ++j) y.at[j] = x[c][i + j] * factor;
      if (column < columns) ml_store_whole(row + column, y);
    }
}

// What a score becomes before the softmax: -inf where query and key do not meet.
template <typename T, typename M>
__device__ __forceinline__ T ml_score(const ml_attention& a, T product, const M* mask, int query,
                                      int key, int keys) {
  if (query >= a.queries || key >= keys || (a.causal && key > query)) return -ml_inf(product);
  const T score = product * T(a.scale);
  if (mask == nullptr) return score;
  return ml_masked(score, mask[query * a.row[ML_MASK] + key * a.mask_column], T(1));
}

template <typename T, typename M, int D, int BM, int BN, int THREADS, int VEC>
__global__ void __launch_bounds__(THREADS, 2)
attention_forward_simt(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                       T* o, T* lse, T* parts, const M* __restrict__ mask,
                       const void* __restrict__ lengths, const ml_index* cell, int splits, int span,
                       ml_index rows, bool drops, ml_fault* fault, int site, ml_attention a) {
  typedef ml_plain_tile<T, D> Tile;
  const int TY = THREADS / 8, ROWS = BM / TY, COLUMNS = BN / 8, PARTS = D / 8 / Tile::vec;
  extern __shared__ __align__(16) unsigned char shared[];
  T* const queries = reinterpret_cast<T*>(shared);
  T* const others = queries + BM * Tile::pitch;  // keys, then values
  T* const weights = others + BN * Tile::pitch;

  const int tiles = (a.queries + BM - 1) / BM;
  const int split = blockIdx.x % splits, block = blockIdx.x / splits, place = block / tiles;
  const int first = (tiles - 1 - block % tiles) * BM;  // most keys first
  const int tx = threadIdx.x & 7, ty = threadIdx.x >> 3;
  const int begin = split * span;  // the block's keys, which may be none
  const int length = ml_keys(a, lengths, place, fault, site);
  const int end = min(begin + span, a.causal ? min(length, first + BM) : length);
  const T* const k_rows = k + ml_lead(a, ML_K, place);
  const T* const v_rows = v + ml_lead(a, ML_V, place);
  const M* const mask_rows = mask == nullptr ? mask : mask + ml_lead(a, ML_MASK, place);
  const ml_index line = ml_lead(a, ML_PLACE, place) * a.queries;
  const ml_stream draw = ml_draw(a.seed, a.offset, cell);

  T top[ROWS], sum[ROWS], out[ROWS][PARTS][Tile::vec];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    top[r] = -ml_inf(T(0));
    sum[r] = T(0);
#pragma unroll
    for (int c = 0; c < PARTS; ++c)
#pragma unroll
      for (int i = 0; i < Tile::vec; ++i) out[r][c][i] = T(0);
  }
  if (begin < end)
    ml_load_plain<BM, D, THREADS, VEC>(queries, q + ml_lead(a, ML_Q, place) + first * a.row[ML_Q],
                                       a.row[ML_Q], a.queries - first, a.depth);
  for (int start = begin; start < end; start += BN) {
    ml_load_plain<BN, D, THREADS, VEC>(others, k_rows + start * a.row[ML_K], a.row[ML_K],
                                       end - start, a.depth);
    ml_arrive();
    T s[ROWS][COLUMNS] = {};
    ml_products<D, TY>(s, queries, others, ty, tx);
    __syncthreads();  // nobody reads the keys
    ml_load_plain<BN, D, THREADS, VEC>(others, v_rows + start * a.row[ML_V], a.row[ML_V],
                                       end - start, a.width);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int row = ty + r * TY, query = first + row;
      T best = top[r];
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        s[r][c] = ml_score(a, s[r][c], mask_rows, query, start + tx + 8 * c, end);
        best = fmax(best, s[r][c]);
      }
      best = ml_warp_reduce<8>(best, ml_maximum());
      const T base = best == -ml_inf(best) ? T(0) : best, shrink = exp(top[r] - base);
      top[r] = best;
      T total = T(0);
#pragma unroll
      for (int c = 0; c < COLUMNS; ++c) {
        const int key = start + tx + 8 * c;
        T weight = exp(s[r][c] - base);
        total += weight;
        if (drops && !ml_kept(ml_u32_of(draw, (line + query) * a.keys + key), a.dropped))
          weight *= T(0);
        weights[row * ml_plain_scores<BN>::pitch + tx + 8 * c] = weight;
      }
      sum[r] = sum[r] * shrink + total;
#pragma unroll
      for (int c = 0; c < PARTS; ++c)
#pragma unroll
        for (int i = 0; i < Tile::vec; ++i) out[r][c][i] *= shrink;
    }
    ml_arrive();  // the values are there, and the weights
    ml_weighted<D, BN, TY>(out, weights, others, ty, tx);
    __syncthreads();  // nobody reads the values
  }
  ml_copy_wait<0>();
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const T total = ml_warp_sum<8>(sum[r]);
    const int query = first + ty + r * TY;
    if (query >= a.queries) continue;
    const T share = total == T(0) ? T(0) : (drops ? T(a.kept) : T(1)) / total;
    if (parts != nullptr)
      ml_store_plain<Tile::vec>(parts + (split * rows + line + query) * D, out[r], share, D, tx);
    else
      ml_store_plain<VEC>(o + ml_lead(a, ML_O, place) + query * a.row[ML_O], out[r], share,
                          a.width, tx);
    if (lse != nullptr && tx == 0)
      lse[split * rows + line + query] =
          total == T(0) ? ml_inf(total) : top[r] + log(total);
  }
}

// Gradients: of the keys and values (KEYS), or of the queries.  The rows whose gradients a block
// computes stay in shared memory, two tiles of them (keys and values, or queries and dy); the
// others come by in tiles of BN.
template <typename T, typename M, int D, int BM, int BN, int THREADS, int VEC, bool KEYS>
__global__ void __launch_bounds__(THREADS, 2)
attention_backward_simt(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                        const T* __restrict__ dy, const T* __restrict__ lse,
                        const T* __restrict__ delta, T* first_grad, T* second_grad,
                        const M* __restrict__ mask, T* dmask, const void* __restrict__ lengths,
                        const ml_index* cell, bool drops, ml_attention a) {
  typedef ml_plain_tile<T, D> Tile;
  typedef ml_plain_scores<BN> Scores;
  const int TY = THREADS / 8, ROWS = BM / TY, COLUMNS = BN / 8, PARTS = D / 8 / Tile::vec;
  extern __shared__ __align__(16) unsigned char shared[];
  T* const own1 = reinterpret_cast<T*>(shared);  // keys or queries
  T* const own2 = own1 + BM * Tile::pitch;       // values or dy
  T* const other1 = own2 + BM * Tile::pitch;     // queries or keys
  T* const other2 = other1 + BN * Tile::pitch;   // dy or values
  T* const inner = other2 + BN * Tile::pitch;    // the scores' gradients
  T* const outer = inner + BM * Scores::pitch;   // the weights; with KEYS only

  const int rows = KEYS ? a.keys : a.queries;
  const int tiles = (rows + BM - 1) / BM;
  const int first = int(blockIdx.x) % tiles * BM;
  const int place0 = blockIdx.x / tiles * (KEYS ? a.shared : 1);
  const int length = ml_keys(a, lengths, place0);  // the same for all that share keys
  const int rows_there = KEYS ? length : a.queries, columns = KEYS ? a.queries : length;
  const int tx = threadIdx.x & 7, ty = threadIdx.x >> 3;
  const ml_stream draw = ml_draw(a.seed, a.offset, cell);

  const int q_or_k = KEYS ? ML_K : ML_Q, dy_or_v = KEYS ? ML_V : ML_DO;
  const int k_or_q = KEYS ? ML_Q : ML_K, v_or_dy = KEYS ? ML_DO : ML_V;
  const T* const own1_rows = (KEYS ? k : q) + ml_lead(a, q_or_k, place0);
  const T* const own2_rows = (KEYS ? v : dy) + ml_lead(a, dy_or_v, place0);
  ml_load_plain<BM, D, THREADS, VEC>(own1, own1_rows + first * a.row[q_or_k], a.row[q_or_k],
                                     rows_there - first, a.depth);
  ml_load_plain<BM, D, THREADS, VEC>(own2, own2_rows + first * a.row[dy_or_v], a.row[dy_or_v],
                                     rows_there - first, a.width);

  T grad1[ROWS][PARTS][Tile::vec] = {}, grad2[KEYS ? ROWS : 1][PARTS][Tile::vec] = {};
  const int turns = !KEYS ? 1 : first < length ? a.shared : 0;
  for (int group = 0; group < turns; ++group) {
    const int place = place0 + group;
    const T* const other1_rows = (KEYS ? q : k) + ml_lead(a, k_or_q, place);
    const T* const other2_rows = (KEYS ? dy : v) + ml_lead(a, v_or_dy, place);
    const M* const mask_rows = mask == nullptr ? mask : mask + ml_lead(a, ML_MASK, place);
    const ml_index line = ml_lead(a, ML_PLACE, place) * a.queries;
    const int from = KEYS && a.causal ? first / BN * BN : 0;
    const int to = !KEYS && a.causal ? min(columns, first + BM) : columns;
    for (int start = from; start < to; start += BN) {
      ml_load_plain<BN, D, THREADS, VEC>(other1, other1_rows + start * a.row[k_or_q], a.row[k_or_q],
                                         columns - start, a.depth);
      ml_load_plain<BN, D, THREADS, VEC>(other2, other2_rows + start * a.row[v_or_dy],
                                         a.row[v_or_dy], columns - start, a.width);
      ml_arrive();
      T s[ROWS][COLUMNS] = {}, dp[ROWS][COLUMNS] = {};
      ml_products<D, TY>(s, own1, other1, ty, tx);
      ml_products<D, TY>(dp, own2, other2, ty, tx);
#pragma unroll
      for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
          const int row = ty + r * TY, column = tx + 8 * c;
          const int query = KEYS ? start + column : first + row;
          const int key = KEYS ? first + row : start + column;
          const T score = ml_score(a, s[r][c], mask_rows, query, key, length);
          const bool there = query < a.queries && key < length;
          // A query that sees no key has lse = inf.
          T weight = there ? exp(score - lse[line + query]) : T(0), chosen = T(1);
          if (drops) {
            const unsigned u = ml_u32_of(draw, (line + query) * a.keys + key);
            chosen = ml_kept(u, a.dropped) ? T(a.kept) : T(0);
          }
          const T shift = there ? delta[line + query] : T(0);
          const T grad = weight * (dp[r][c] * chosen - shift);
          inner[row * Scores::pitch + column] = grad;
          if constexpr (KEYS) outer[row * Scores::pitch + column] = weight * chosen;
          else if (dmask != nullptr && there) dmask[(line + query) * a.keys + key] = grad;
        }
      __syncwarp();  // a row's weights are of its eight lanes only
      ml_weighted<D, BN, TY>(grad1, inner, other1, ty, tx);
      if constexpr (KEYS) ml_weighted<D, BN, TY>(grad2, outer, other2, ty, tx);
      __syncthreads();  // nobody reads the others
    }
  }
  ml_copy_wait<0>();
  const int grad_place1 = KEYS ? ML_DK : ML_DQ;
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const int row = first + ty + r * TY;
    if (row >= rows) continue;
    ml_store_plain<VEC>(first_grad + ml_lead(a, grad_place1, place0) + row * a.row[grad_place1],
                        grad1[r], T(a.scale), a.depth, tx);
    if constexpr (KEYS)
      ml_store_plain<VEC>(second_grad + ml_lead(a, ML_DV, place0) + row * a.row[ML_DV], grad2[r],
                          T(1), a.width, tx);
  }
}
