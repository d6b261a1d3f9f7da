#include "row_vectors.hpp"
#include "rows.hpp"

namespace layertap::LAYERTAP_ISA {
namespace {

// The columns of a row become (x - mean) * by.
struct Moments {
  float mean;
  float by;
};

// 1 / sqrt(mean_square + eps). NaN where the sum of squares has overflowed: its reciprocal, 0, would turn the row into
// zeros or the bias, a finite result that is wrong.
float inverse_root(double mean_square, float eps) {
  if (!(mean_square < static_cast<double>(__builtin_inff()))) return __builtin_nanf("");
  return static_cast<float>(1.0 / __builtin_sqrt(mean_square + static_cast<double>(eps)));
}

constexpr int chains = 4;  // independent sums, since an addition takes 3 or 4 cycles

// Sums over a row: sixteen lanes in each of the chains.
struct ChainedSums {
  Floats of[chains][sum_vectors];

  ChainedSums() {
    for (auto& chain : of)
      for (Floats& vector : chain) vector = zero();
  }

  float total() const {
    Floats folded[sum_vectors];
    for (int v = 0; v < sum_vectors; ++v) folded[v] = (of[0][v] + of[1][v]) + (of[2][v] + of[3][v]);
    return sum(folded);
  }
};

// add(chain, vector, column, lanes) for all vectors of a row; those after the last whole turn go to the first chain. All
// indices are known when this is compiled, and one vector of every chain is summed before the next, so that the sums stay in
// registers.
template <class Add>
inline void each_of_chains(std::int64_t columns, const Add& add) {
  const std::int64_t chained = columns / (chains * sum_lanes) * (chains * sum_lanes);
#pragma GCC unroll 2
  for (int v = 0; v < sum_vectors; ++v) {
    std::int64_t c = v * width;
    for (; c < chained; c += chains * sum_lanes)
#pragma GCC unroll 4
      for (int i = 0; i < chains; ++i) add(i, v, c + i * sum_lanes, Whole{});
    for (; c + width <= columns; c += sum_lanes) add(0, v, c, Whole{});
    if (c < columns) add(0, v, c, Some{columns - c});
  }
}

// Two passes. The second one also sums the differences to the mean of the first, which would be 0 without rounding, and
// corrects the mean by it.
Moments moments(const float* row, std::int64_t columns, float eps) {
  ChainedSums sums;
  each_of_chains(columns, [&](int i, int v, std::int64_t c, auto lanes) { sums.of[i][v] = sums.of[i][v] + load(row + c, lanes); });
  const float rough = sums.total() / static_cast<float>(columns);

  const Floats at = all(rough);
  ChainedSums off, squares;
  each_of_chains(columns, [&](int i, int v, std::int64_t c, auto lanes) {
    const Floats difference = only(load(row + c, lanes) - at, lanes);
    off.of[i][v] = off.of[i][v] + difference;
    squares.of[i][v] = fma(difference, difference, squares.of[i][v]);
  });
  // in float64, so that these few numbers add no rounding error of their own to all columns
  const double more = static_cast<double>(off.total()) / static_cast<double>(columns);
  const double square = static_cast<double>(squares.total());
  const double variance = square / static_cast<double>(columns) - more * more;
  return {static_cast<float>(static_cast<double>(rough) + more), inverse_root(variance < 0.0 ? 0.0 : variance, eps)};
}

// Moments for a norm by the root mean square (Zhang and Sennrich 2019), which subtracts no mean.
Moments root_mean_square(const float* row, std::int64_t columns, float eps) {
  ChainedSums squares;
  each_of_chains(columns, [&](int i, int v, std::int64_t c, auto lanes) {
    const Floats x = load(row + c, lanes);
    squares.of[i][v] = fma(x, x, squares.of[i][v]);
  });
  return {0.0F, inverse_root(static_cast<double>(squares.total()) / static_cast<double>(columns), eps)};
}

template <bool has_bias, bool has_rounded>
void norm_row(const float* in, std::int64_t columns, Moments moments, const float* weight, const float* bias, float* out,
              bfloat16* rounded) {
  const Floats mean = all(moments.mean);
  const Floats by = all(moments.by);
  each_vector(0, columns, [&](std::int64_t c, auto lanes) {
    const Floats y = (load(in + c, lanes) - mean) * by;
    Floats x = zero();
    if constexpr (has_bias)
      x = fma(y, load(weight + c, lanes), load(bias + c, lanes));
    else
      x = y * load(weight + c, lanes);
    // lanes beyond the last column would be NaN in a row that is not finite
    x = only(x, lanes);
    store(out + c, x);
    if constexpr (has_rounded) store_bfloat16(rounded + c, x);
  });
}

}  // namespace

void normalize(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, const RowNorm& norm,
               float* out, std::int64_t out_stride, bfloat16* rounded, std::int64_t rounded_stride) {
  const bool has_bias = norm.bias != nullptr;
  const bool has_rounded = rounded != nullptr;
  const auto finish = has_bias ? (has_rounded ? norm_row<true, true> : norm_row<true, false>)
                               : (has_rounded ? norm_row<false, true> : norm_row<false, false>);
  const auto look = norm.by_root_mean_square ? root_mean_square : moments;
  const std::int64_t written = whole_vectors(columns);
  // First the moments of as many rows as fit the first cache, since the end of each row's sums has to be waited for.
  constexpr std::int64_t most = 8;
  constexpr std::int64_t cached = 4096;
  const std::int64_t block = columns * most <= cached ? most : columns >= cached ? 1 : cached / columns;
  Moments seen[most];
  for (std::int64_t begin = 0; begin < rows; begin += block) {
    const std::int64_t end = begin + block < rows ? begin + block : rows;
    for (std::int64_t m = begin; m < end; ++m) seen[m - begin] = look(in + m * in_stride, columns, norm.eps);
    for (std::int64_t m = begin; m < end; ++m) {
      float* to = out + m * out_stride;
      bfloat16* rounded_to = has_rounded ? rounded + m * rounded_stride : nullptr;
      finish(in + m * in_stride, columns, seen[m - begin], norm.weight, norm.bias, to, rounded_to);
      fill(to, written, padded(columns), 0.0F);
      if (has_rounded) fill<bfloat16>(rounded_to, written, padded(columns), 0);
    }
  }
}

}  // namespace layertap::LAYERTAP_ISA
