// Computes attention within each sequence of a packed batch. A task is one head of one sequence, whose scores fit into
// a core's cache.
//
// Forward: S = scale Q K^T, E = exp(S - max), O = (E * M) V / rowsum(E), with the dropout factors M. The log of each
// row's sum, max + log(rowsum(E)), is saved.
// Backward, with P = exp(S - saved log) and D = rowsum(dO * O) (FlashAttention; Dao et al., 2022, appendix B):
// dV = (P * M)^T dO, dS = P * (M * (dO V^T) - D), dQ = scale dS K, dK = scale dS^T Q. All sums are in float32.
#include <memory>
#include <utility>
#include <vector>

#include "common.h"

// A tile of a product has TILE_ROWS x TILE_REGISTERS vectors of WIDTH sums, which must fit into the registers.
#if defined(__AVX512F__)
static constexpr int WIDTH = 16, TILE_ROWS = 8, TILE_REGISTERS = 2;  // of 32 registers
#elif defined(__AVX__)
static constexpr int WIDTH = 8, TILE_ROWS = 4, TILE_REGISTERS = 2;  // of 16 registers
#else
static constexpr int WIDTH = 4, TILE_ROWS = 4, TILE_REGISTERS = 4;  // of 32 registers, on Arm
#endif
typedef float Register __attribute__((vector_size(4 * WIDTH)));
static constexpr float MASKED = -1e30f;  // score of padding keys

static inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Computes TILE_ROWS rows and REGISTERS * WIDTH columns of the product below, with all sums in registers.
template <int REGISTERS>
static inline void tile(int64_t depth, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row,
                        float* c, int64_t c_row) {
  Register sums[TILE_ROWS][REGISTERS] = {};
  for (int64_t p = 0; p < depth; ++p) {
    Register across[REGISTERS];
    for (int n = 0; n < REGISTERS; ++n) std::memcpy(&across[n], b + p * b_row + n * WIDTH, sizeof(Register));
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r) {
      const float down = a[r * a_row + p * a_step];
#pragma GCC unroll 4
      for (int n = 0; n < REGISTERS; ++n) sums[r][n] += down * across[n];
    }
  }
  for (int r = 0; r < TILE_ROWS; ++r)
    for (int n = 0; n < REGISTERS; ++n) std::memcpy(c + r * c_row + n * WIDTH, &sums[r][n], sizeof(Register));
}

// Computes C (rows, columns) = A (rows, depth) B (depth, columns). Element (i, p) of A is a[i * a_row + p * a_step].
// `rows` is rounded up to TILE_ROWS, so A and C must have memory for that; `columns` is a multiple of LANES.
static void product(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row, int64_t a_step,
                    const float* b, int64_t b_row, float* c, int64_t c_row) {
  constexpr int WIDEST = TILE_REGISTERS * WIDTH, REST = LANES / WIDTH;
  for (int64_t n = 0; n < columns;) {
    const bool whole = columns - n >= WIDEST;
    for (int64_t m = 0; m < rows; m += TILE_ROWS) {
      const float* from = a + m * a_row;
      if (whole)
        tile<TILE_REGISTERS>(depth, from, a_row, a_step, b + n, b_row, c + m * c_row + n, c_row);
      else
        tile<REST>(depth, from, a_row, a_step, b + n, b_row, c + m * c_row + n, c_row);
    }
    n += whole ? WIDEST : LANES;
  }
}

// One head of one sequence: `length` rows of `size` numbers, `stride` numbers apart; `wide` is `length` rounded up to
// LANES.
struct Head {
  int64_t start, length, size, stride, offset, wide;

  template <typename T>
  void read(const T* from, float* to, float scale = 1.0f) const {
    for (int64_t i = 0; i < length; ++i) {
      const T* row = from + (start + i) * stride + offset;
      for (int64_t p = 0; p < size; ++p) to[i * size + p] = widen(row[p]) * scale;
    }
    std::fill(to + length * size, to + wide * size, 0.0f);
  }

  void transpose(const float* rows, float* to) const {  // transposes (wide, size) to (size, wide)
    for (int64_t i = 0; i < wide; ++i)
      for (int64_t p = 0; p < size; ++p) to[p * wide + i] = rows[i * size + p];
  }

  template <typename T>
  void write(const float* rows, T* to, const float* factors, float scale) const {
    for (int64_t i = 0; i < length; ++i) {
      const float factor = factors ? factors[i] : scale;
      T* row = to + (start + i) * stride + offset;
      for (int64_t p = 0; p < size; ++p) row[p] = narrow<T>(rows[i * size + p] * factor);
    }
  }
};

struct Shape {
  const int32_t* bounds;
  int64_t sequences, heads, size;
  float scale;
  int32_t first_only;  // 1: queries, their dropout keys and their results have one row per sequence

  int64_t longest() const {
    int32_t found = 0;
    for (int64_t s = 0; s < sequences; ++s) found = std::max(found, bounds[s + 1] - bounds[s]);
    return round_up(found, LANES);
  }

  Head head(int64_t task) const {
    const int64_t s = task / heads, h = task % heads, length = bounds[s + 1] - bounds[s];
    return {bounds[s], length, size, heads * size, h * size, round_up(length, LANES)};
  }

  Head queries(int64_t task) const {  // rows of the queries that attend to the keys of `head(task)`
    return first_only ? Head{task / heads, 1, size, heads * size, task % heads * size, LANES} : head(task);
  }
};

// The working memory of one thread, reused by its tasks. It grows with the square of the length, and is not cleared, so
// that a thread without a task takes no memory.
struct Scratch {
  std::unique_ptr<float[]> memory;
  float* next = nullptr;
  explicit Scratch(int64_t numbers) : memory(new float[numbers]) {}
  void reset() { next = memory.get(); }
  float* take(int64_t numbers) { return std::exchange(next, next + numbers); }
};

// Finds the masks of a head's rows and prefetches them, because they are at random places of two large tables.
static void find_masks(const Dropout& dropout, const Head& queries, int64_t wide, int64_t h,
                       std::vector<MaskRow>& masks) {
  masks.clear();
  if (!dropout.keys) return;
  for (int64_t i = 0; i < queries.length; ++i) {
    masks.emplace_back(dropout, Dropout::mix(uint64_t(dropout.keys[queries.start + i]) + uint64_t(h) + 1));
    for (int64_t j = 0; j < wide + 32; j += 32) {  // a cache line holds 32 numbers
      __builtin_prefetch(masks.back().first + j);
      __builtin_prefetch(masks.back().second + j);
    }
  }
}

// Replaces `row` by exp(row - maximum), with 0 from `length` on; sets `factor` to 1 / sum; returns the log of the
// row's sum of exponentials.
static float exponentials(float* row, int64_t length, int64_t wide, float* factor) {
  float largest[LANES], sums[LANES] = {};
  std::fill(row + length, row + wide, MASKED);
  std::fill(largest, largest + LANES, MASKED);
  for (int64_t j = 0; j < wide; j += LANES)
    for (int64_t u = 0; u < LANES; ++u) largest[u] = std::max(largest[u], row[j + u]);
  const float top = *std::max_element(largest, largest + LANES);
  for (int64_t j = 0; j < wide; j += LANES)
    for (int64_t u = 0; u < LANES; ++u) sums[u] += row[j + u] = fast_exp(row[j + u] - top);
  float sum = 0;
  for (float part : sums) sum += part;
  *factor = 1 / sum;
  return top + std::log(sum);
}

template <typename T>
static void forward(const Shape& shape, const T* query, const T* key, const T* value, const Dropout& dropout, T* output,
                    float* logs) {
#pragma omp parallel
  {
    Scratch scratch(shape.longest() * (3 * shape.size + shape.longest() + 1));
    std::vector<MaskRow> masks;
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < shape.sequences * shape.heads; ++task) {
      const Head head = shape.head(task), queries = shape.queries(task);
      const int64_t Q = queries.length, L = head.length, W = head.wide, K = head.size, h = task % shape.heads;
      scratch.reset();
      float *q = scratch.take(W * K), *k = scratch.take(W * K), *transposed = scratch.take(W * K);
      float *scores = scratch.take(W * W), *factors = scratch.take(W);
      find_masks(dropout, queries, W, h, masks);
      queries.read(query, q, shape.scale);
      head.read(key, k);
      head.transpose(k, transposed);
      product(Q, W, K, q, K, 1, transposed, W, scores, W);
      for (int64_t i = 0; i < Q; ++i) {
        float* row = scores + i * W;
        logs[(queries.start + i) * shape.heads + h] = exponentials(row, L, W, factors + i);
        if (masks.empty()) continue;
        for (int64_t j = 0; j < W; j += LANES) {
          const Lanes factors = masks[i].lanes(j);
          for (int64_t u = 0; u < LANES; ++u) row[j + u] *= factors[u];
        }
      }
      head.read(value, k);
      product(Q, K, L, scores, W, 1, k, K, q, K);
      queries.write(q, output, factors, 1.0f);
    }
  }
}

template <typename T>
static void backward(const Shape& shape, const T* query, const T* key, const T* value, const Dropout& dropout,
                     const T* output, const float* logs, const T* gradient, T* d_query, T* d_key, T* d_value) {
#pragma omp parallel
  {
    Scratch scratch(shape.longest() * (6 * shape.size + 2 * shape.longest()));
    std::vector<MaskRow> masks;
#pragma omp for schedule(dynamic, 4)
    for (int64_t task = 0; task < shape.sequences * shape.heads; ++task) {
      const Head head = shape.head(task), queries = shape.queries(task);
      const int64_t Q = queries.length, L = head.length, W = head.wide, K = head.size, h = task % shape.heads;
      scratch.reset();
      float *q = scratch.take(W * K), *k = scratch.take(W * K), *g = scratch.take(W * K), *o = scratch.take(W * K);
      float *other = scratch.take(W * K), *transposed = scratch.take(W * K);
      float *weights = scratch.take(W * W), *slopes = scratch.take(W * W);
      find_masks(dropout, queries, W, h, masks);
      queries.read(query, q, shape.scale);
      head.read(key, k);
      queries.read(gradient, g);
      queries.read(output, o);
      head.transpose(k, transposed);
      product(Q, W, K, q, K, 1, transposed, W, weights, W);
      head.read(value, other);
      head.transpose(other, transposed);
      product(Q, W, K, g, K, 1, transposed, W, slopes, W);
      for (int64_t i = 0; i < Q; ++i) {
        float *weight = weights + i * W, *slope = slopes + i * W, sum = 0;
        const float log_sum = logs[(queries.start + i) * shape.heads + h];
#pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < K; ++p) sum += g[i * K + p] * o[i * K + p];
        std::fill(weight + L, weight + W, MASKED);
        for (int64_t j = 0; j < W; j += LANES) {
          const Lanes factors = masks.empty() ? Lanes{} + 1.0f : masks[i].lanes(j);
          for (int64_t u = 0; u < LANES; ++u) {
            const float p = fast_exp(weight[j + u] - log_sum);
            slope[j + u] = p * (factors[u] * slope[j + u] - sum);
            weight[j + u] = p * factors[u];
          }
        }
      }
      product(L, K, Q, weights, 1, W, g, K, o, K);
      head.write(o, d_value, nullptr, 1.0f);
      product(Q, K, L, slopes, W, 1, k, K, o, K);
      queries.write(o, d_query, nullptr, shape.scale);
      product(L, K, Q, slopes, 1, W, q, K, o, K);  // the queries are already multiplied by scale
      head.write(o, d_key, nullptr, 1.0f);
    }
  }
}

#define ATTENTION(name, T)                                                                                    \
  extern "C" void attention_forward_##name(const Shape* shape, const T* query, const T* key, const T* value,  \
                                           const Dropout* dropout, T* output, float* logs) {                  \
    forward(*shape, query, key, value, *dropout, output, logs);                                               \
  }                                                                                                           \
  extern "C" void attention_backward_##name(const Shape* shape, const T* query, const T* key, const T* value, \
                                            const Dropout* dropout, const T* output, const float* logs,       \
                                            const T* gradient, T* d_query, T* d_key, T* d_value) {            \
    backward(*shape, query, key, value, *dropout, output, logs, gradient, d_query, d_key, d_value);           \
  }

ATTENTION(float32, float)
ATTENTION(bfloat16, bf16)
