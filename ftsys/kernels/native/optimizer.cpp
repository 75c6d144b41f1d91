// Computes AdamW on float32 master weights in one pass (decoupled weight decay; Loshchilov and Hutter, 2019), and sums
// of squares.
#include "common.h"

static constexpr int64_t CHUNK = 4096;

struct AdamW {
  float learning_rate, beta2, epsilon, weight_decay;
  float rest1, rest2;              // 1 - beta1, 1 - beta2, computed in double: float32 betas would lose digits
  float correction1, correction2;  // 1 - beta1^step, sqrt(1 - beta2^step)
  float gradient_scale;
};

template <typename T>
static void update(const AdamW& by, int64_t from, int64_t to, float* master, float* mean, float* square,
                   const T* gradient, T* weight) {
  for (int64_t i = from; i < to; ++i) {
    const float g = widen(gradient[i]) * by.gradient_scale;
    mean[i] += by.rest1 * (g - mean[i]);
    square[i] = by.beta2 * square[i] + by.rest2 * g * g;
    const float decayed = master[i] * (1 - by.learning_rate * by.weight_decay);
    master[i] =
        decayed - by.learning_rate / by.correction1 * mean[i] / (std::sqrt(square[i]) / by.correction2 + by.epsilon);
    weight[i] = narrow<T>(master[i]);
  }
}

template <typename T>
static void adamw(const AdamW& by, int64_t count, float* master, float* mean, float* square, const T* gradient,
                  T* weight) {
#pragma omp parallel for schedule(static)
  for (int64_t start = 0; start < count; start += CHUNK)
    update(by, start, std::min(count, start + CHUNK), master, mean, square, gradient, weight);
}

// Does the same for the rows of `width` numbers that `awake` marks; a row with a gradient other than 0 is marked first.
template <typename T>
static void adamw_rows(const AdamW& by, int64_t rows, int64_t width, uint8_t* awake, float* master, float* mean,
                       float* square, const T* gradient, T* weight) {
#pragma omp parallel for schedule(dynamic, 256)
  for (int64_t row = 0; row < rows; ++row) {
    if (!awake[row]) {
      int any = 0;
      for (int64_t i = row * width; i < (row + 1) * width; ++i) any |= widen(gradient[i]) != 0;
      if (!any) continue;
      awake[row] = 1;
    }
    update(by, row * width, (row + 1) * width, master, mean, square, gradient, weight);
  }
}

// Returns the sum of squares. Partial sums of CHUNK numbers are added in order, so the result is the same for any
// number of threads.
template <typename T>
static double sum_of_squares(const T* values, int64_t count, float* parts) {
#pragma omp parallel for schedule(static)
  for (int64_t start = 0; start < count; start += CHUNK) {
    const int64_t end = std::min(count, start + CHUNK);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = start; i < end; ++i) sum += widen(values[i]) * widen(values[i]);
    parts[start / CHUNK] = sum;
  }
  double total = 0;
  for (int64_t part = 0; part * CHUNK < count; ++part) total += parts[part];
  return total;
}

#define OPTIMIZER(name, T)                                                                                       \
  extern "C" void adamw_##name(const AdamW* by, int64_t count, float* master, float* mean, float* square,        \
                               const T* gradient, T* weight) {                                                   \
    adamw(*by, count, master, mean, square, gradient, weight);                                                   \
  }                                                                                                              \
  extern "C" void adamw_rows_##name(const AdamW* by, int64_t rows, int64_t width, uint8_t* awake, float* master, \
                                    float* mean, float* square, const T* gradient, T* weight) {                  \
    adamw_rows(*by, rows, width, awake, master, mean, square, gradient, weight);                                 \
  }                                                                                                              \
  extern "C" double sum_of_squares_##name(const T* values, int64_t count, float* parts) {                        \
    return sum_of_squares(values, count, parts);                                                                 \
  }

OPTIMIZER(float32, float)
OPTIMIZER(bfloat16, bf16)
