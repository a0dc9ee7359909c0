// Accesses outside a buffer: tails, borders, pitches, indices that overflow.

// The last thread of the guard is one too many.
extern "C" __global__ void tail_one_past(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef FIXED
    if (i >= n) return;
#else
    if (i > n) return;
#endif
    y[i] = 2 * x[i];  // FAULT(tail_one_past): memcheck: out of bounds
}

// The grid is rounded up to whole blocks, and nothing stops the last of them.
extern "C" __global__ void last_block_unguarded(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef FIXED
    if (i < n)
#endif
    y[i] = x[i] > 0 ? x[i] : 0;  // FAULT(last_block_unguarded): memcheck: out of bounds
}

// The pitch counts bytes, as an allocator of rows returns it; here it is added to a float*.
extern "C" __global__ void pitch_in_elements(float* image, int width, int height, int pitch) {
    int col = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
    if (col >= width || row >= height) return;
#ifdef FIXED
    float* line = (float*)((char*)image + row * pitch);
#else
    float* line = image + row * pitch;
#endif
    line[col] = row + 0.5f * col;  // FAULT(pitch_in_elements): memcheck: out of bounds
}

// A three-point stencil takes its halo from outside at both ends of the line.
extern "C" __global__ void halo_at_the_border(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    float left = i > 0 ? x[i - 1] : 0;
    float right = i < n - 1 ? x[i + 1] : 0;
#else
    float left = x[i - 1];  // FAULT(halo_at_the_border): memcheck: out of bounds
    float right = x[i + 1];  // FAULT(halo_at_the_border): memcheck: out of bounds
#endif
    y[i] = 0.25f * left + 0.5f * x[i] + 0.25f * right;
}

// Nearest-neighbour resampling: the product of index and length does not fit an int.
extern "C" __global__ void index_overflow(const float* x, float* y, int n_in, int n_out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n_out) return;
#ifdef FIXED
    int from = (int)((long long)i * n_in / n_out);
#else
    int from = i * n_in / n_out;
#endif
    y[i] = x[from];  // FAULT(index_overflow): memcheck: out of bounds
}

// Sums of columns, whose caller gives rows and columns in the other order.
extern "C" __global__ void swapped_sizes(const float* x, float* sums,
#ifdef FIXED
                                         int rows, int cols) {
#else
                                         int cols, int rows) {
#endif
    int col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= cols) return;
    float sum = 0;
    for (int row = 0; row < rows; ++row) sum += x[row * cols + col];
    sums[col] = sum;  // FAULT(swapped_sizes): memcheck: out of bounds
}

// A header of so many bytes is skipped on an int*.
extern "C" __global__ void bytes_on_an_int_pointer(const int* file, int header_bytes, int* body, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    const int* from = (const int*)((const char*)file + header_bytes);
#else
    const int* from = file + header_bytes;
#endif
    body[i] = from[i];  // FAULT(bytes_on_an_int_pointer): memcheck: out of bounds
}

// Real and imaginary parts are two buffers; the kernel takes the second to follow the first.
extern "C" __global__ void planes_not_contiguous(const float* angle, float* re, float* im, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    re[i] = 2 * angle[i];
#ifdef FIXED
    im[i] = 3 * angle[i];
#else
    re[n + i] = 3 * angle[i];  // FAULT(planes_not_contiguous): memcheck: out of bounds
#endif
}

// A histogram of [low, high]: the greatest value falls into a bin of its own, which is not there.
extern "C" __global__ void histogram_upper_edge(const float* x, int n, float low, float high,
                                                unsigned* bins, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int bin = (int)((x[i] - low) / (high - low) * count);
#ifdef FIXED
    bin = min(bin, count - 1);
#endif
    atomicAdd(&bins[bin], 1u);  // FAULT(histogram_upper_edge): memcheck: out of bounds
}

// Four values a thread: the last vector reaches past a length that is no multiple of four.
extern "C" __global__ void vector_store_past_end(float* y, int n, float value) {
    int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
#ifdef FIXED
    if (i + 4 > n) {
        for (; i < n; ++i) y[i] = value;
        return;
    }
#else
    if (i >= n) return;
#endif
    *(float4*)(y + i) = make_float4(value, value, value, value);  // FAULT(vector_store_past_end): memcheck: out of bounds
}

// Rows of an embedding: -1 marks padding and is no row.
extern "C" __global__ void padding_token(const float* table, const int* ids, float* y, int dim) {
    int id = ids[blockIdx.x];
#ifdef FIXED
    float value = id < 0 ? 0 : table[id * dim + threadIdx.x];
#else
    float value = table[id * dim + threadIdx.x];  // FAULT(padding_token): memcheck: out of bounds
#endif
    y[blockIdx.x * dim + threadIdx.x] = value;
}

// A delay line: the index is unsigned, so what lies before the start is far behind the end.
extern "C" __global__ void unsigned_underflow(const float* x, float* y, unsigned n, unsigned delay) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
#ifdef FIXED
    y[i] = i >= delay ? x[i - delay] : 0;
#else
    y[i] = (int)(i - delay) >= -(int)n ? x[i - delay] : 0;  // FAULT(unsigned_underflow): memcheck: out of bounds
#endif
}

// Upper triangle of a matrix packed into a line: the diagonal was counted twice.
extern "C" __global__ void packed_triangle(const float* packed, float* full, int n) {
    int col = threadIdx.x, row = blockIdx.x;
    if (col < row) return;
#ifdef FIXED
    int at = row * n - row * (row - 1) / 2 + col - row;
#else
    int at = row * n - row * (row - 1) / 2 + col;
#endif
    float value = packed[at];  // FAULT(packed_triangle): memcheck: out of bounds
    full[row * n + col] = value;
    full[col * n + row] = value;
}
