// The two products of attention by vectors.
#pragma once

#include "attention_pack.hpp"

namespace layertap::LAYERTAP_ISA {

// The destination of a block's output for one strip of values.
struct OutputStrip {
  void* out;
  std::int64_t stride;
  std::int64_t rows;
  std::int64_t columns;  // 1 to strip_columns
  const float* factors;  // 1 / sum of each row
};

inline void store_as(float* out, Floats x, std::int64_t count) { store(out, x, count); }
#if defined(__AVX512BF16__)
inline void store_as(bfloat16* out, Floats x, std::int64_t count) {
  _mm256_mask_storeu_epi16(out, first(count), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(x.v)));
}
#endif

// Stores one vector of one row of a strip's output.
template <class Element, int vectors>
[[gnu::always_inline]] inline void finish_output(std::int64_t r, int v, Floats sum, const OutputStrip& to) {
  if (r >= to.rows) return;
  auto* out = static_cast<Element*>(to.out) + r * to.stride + v * width;
  store_as(out, sum * all(to.factors[r]), v + 1 < vectors ? width : to.columns - v * width);
}

template <class Format>
struct LaneProducts {
  using Pack = Format;
  using Lanes = typename Pack::Lanes;

  // A register tile: 12 rows x 2 vectors (AVX-512: 24 of 32 registers are sums), 6 x 2 (AVX2: 12 of 16).
#if defined(__AVX512F__)
  static constexpr std::int64_t block_rows = 12;
#else
  static constexpr std::int64_t block_rows = 6;
#endif
  // An odd number of rows is rounded up and the last row not stored, which halves the code.
  static constexpr std::int64_t row_step = 2;
  // Groups along a sum are rounded up to multiples of this, with zeros.
  static constexpr std::int64_t group_step = 1;

  static void begin() {}
  static void end() {}

  static void score(const std::int32_t* queries, const std::int32_t* keys, std::int64_t groups, std::int64_t num_keys,
                    std::int64_t rows, float* scores) {
    const std::int64_t strip_words = rounded_up(groups, quarter) * strip_columns;
    with_rows(rows, [&]<int constant>() {
      for (std::int64_t j = 0; j < num_keys; j += strip_columns, keys += strip_words) {
        if (num_keys - j > width)
          score_tile<constant, 2>(queries, keys, groups, scores + j * block_rows);
        else
          score_tile<constant, 1>(queries, keys, groups, scores + j * block_rows);
      }
    });
  }

  // `sums`, [block_rows][strip_columns], holds partial sums.
  static void output(const std::int32_t* powers, const std::int32_t* values, std::int64_t groups, float* sums,
                     const OutputStrip& to) {
    with_rows(rounded_up(to.rows, row_step), [&]<int constant>() {
      if (groups > slice_groups)
        to.columns > width ? output_slices<constant, 2>(powers, values, groups, sums, to)
                           : output_slices<constant, 1>(powers, values, groups, sums, to);
      else
        to.columns > width ? output_tile<constant, 2>(powers, values, groups, to)
                           : output_tile<constant, 1>(powers, values, groups, to);
    });
  }

 private:
  using Element = typename Pack::Element;

  // Long sums over keys are split into slices, which gives smaller rounding errors than one chain.
  static constexpr std::int64_t slice_groups = 128;

  // Calls with<rows>() with `rows` as a constant.
  template <class With>
  static void with_rows(std::int64_t rows, const With& with) {
    switch (rows) {
      case 2: return with.template operator()<2>();
      case 4: return with.template operator()<4>();
#if defined(__AVX512F__)
      case 6: return with.template operator()<6>();
      case 8: return with.template operator()<8>();
      case 10: return with.template operator()<10>();
#endif
      default: return with.template operator()<static_cast<int>(block_rows)>();
    }
  }

  // Sums over `groups` of `rows` rows and `vectors` vectors of columns, each handed to `finish(row, vector, sum)`.
  template <int rows, int vectors, class Finish>
  [[gnu::always_inline]] static inline void multiply(const std::int32_t* a, const std::int32_t* b, std::int64_t groups,
                                                     const Finish& finish) {
    typename Lanes::Sum total[static_cast<unsigned>(rows)][static_cast<unsigned>(vectors)];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) total[r][v] = Lanes::zero();
    while (groups > 0) {
      const std::int64_t some = groups < width ? groups : width;
      const char* group = static_cast<const char*>(static_cast<const void*>(a));
      for (std::int64_t g = 0; g < some; ++g) {
        typename Lanes::Factor columns[static_cast<unsigned>(vectors)];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) columns[v] = Lanes::columns(b + v * width);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
          const typename Lanes::Factor row = Lanes::every(group + r * width * group_bytes);
#pragma GCC unroll 2
          for (int v = 0; v < vectors; ++v) total[r][v] = Lanes::dot(total[r][v], row, columns[v]);
        }
        group += group_bytes;
        b += strip_columns;
      }
      a += block_rows * width;
      groups -= some;
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) finish(r, v, Floats{total[r][v]});
  }

  template <int rows, int vectors>
  static void score_tile(const std::int32_t* queries, const std::int32_t* keys, std::int64_t groups, float* scores) {
    multiply<rows, vectors>(queries, keys, groups,
                            [=](int r, int v, Floats sum) { store(scores + (v * block_rows + r) * width, sum); });
  }

  template <int rows, int vectors>
  static void output_tile(const std::int32_t* powers, const std::int32_t* values, std::int64_t groups, const OutputStrip& to) {
    multiply<rows, vectors>(powers, values, groups,
                            [&](int r, int v, Floats sum) { finish_output<Element, vectors>(r, v, sum, to); });
  }

  template <int rows, int vectors>
  [[gnu::noinline]] static void output_slices(const std::int32_t* powers, const std::int32_t* values, std::int64_t groups,
                                              float* sums, const OutputStrip& to) {
    for (std::int64_t g = 0; g < groups; g += slice_groups)
      multiply<rows, vectors>(powers + g * block_rows, values + g * strip_columns,
                              groups - g < slice_groups ? groups - g : slice_groups, [=](int r, int v, Floats sum) {
                                float* at = sums + r * strip_columns + v * width;
                                store(at, g == 0 ? sum : load(at) + sum);
                              });
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < vectors; ++v)
        finish_output<Element, vectors>(r, v, load(sums + r * strip_columns + v * width), to);
  }
};

}  // namespace layertap::LAYERTAP_ISA
