#include "attention.hpp"

#include "attention_pack.hpp"
#include "softmax.hpp"

namespace layertap::LAYERTAP_ISA {

namespace {

constexpr float minus_infinity = -__builtin_inff();

// A head's keys and values are packed once; then queries pass by in blocks, whose scores stay in the first cache.
struct Scratch {
  std::int32_t* keys;     // [panels of keys][groups of D][panel_columns]
  std::int32_t* values;   // [panels of D][groups of keys][panel_columns]
  std::int32_t* queries;  // [vectors of groups][block_rows][width]
  float* scores;          // [vectors of keys][block_rows][width]; then probabilities, in the format of the product
  float* totals;          // [block_rows][width]: a maximum, then a sum, of each row and lane
  float* of_row;          // [width]: a maximum, then 1 / sum, of each row
};

struct Sizes {
  std::size_t keys, values, queries, scores, totals, of_row;
  std::size_t all() const { return keys + values + queries + scores + totals + of_row; }
};

// In words, for the format that needs most.
Sizes sizes(std::int64_t num_keys, std::int64_t head_size) {
  const std::int64_t columns = rounded_up(num_keys, panel_columns);
  const std::int64_t groups = rounded_up(head_size, width);
  return {static_cast<std::size_t>(columns * groups),
          static_cast<std::size_t>(num_keys * rounded_up(head_size, panel_columns)),
          static_cast<std::size_t>(block_rows * groups),
          static_cast<std::size_t>(block_rows * columns),
          static_cast<std::size_t>(block_rows * width),
          static_cast<std::size_t>(width)};
}

constexpr std::size_t cache_line = 64;

Scratch lay_out(void* scratch, std::int64_t num_keys, std::int64_t head_size) {
  const Sizes size = sizes(num_keys, head_size);
  const std::uintptr_t misaligned = reinterpret_cast<std::uintptr_t>(scratch) % cache_line;
  auto* words = reinterpret_cast<std::int32_t*>(static_cast<char*>(scratch) + (cache_line - misaligned) % cache_line);
  const auto take = [&words](std::size_t count) {
    std::int32_t* taken = words;
    words += count;
    return taken;
  };
  const auto floats = [&take](std::size_t count) { return static_cast<float*>(static_cast<void*>(take(count))); };
  Scratch s = {};
  s.keys = take(size.keys);
  s.values = take(size.values);
  s.queries = take(size.queries);
  s.scores = floats(size.scores);
  s.totals = floats(size.totals);
  s.of_row = floats(size.of_row);
  return s;
}

// Sums over `groups` of a block's rows and `vectors` vectors of columns, each handed to `finish(row, vector, sum)`.
template <class Lanes, int rows, int vectors, class Finish>
[[gnu::always_inline]] inline void multiply(const std::int32_t* a, const std::int32_t* b, std::int64_t b_stride,
                                            std::int64_t groups, const Finish& finish) {
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
      b += b_stride;
    }
    a += block_rows * width;
    groups -= some;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) finish(r, v, Floats{total[r][v]});
}

// Scores of one panel of keys, and the rows' maxima so far.
template <class Lanes, int rows, int vectors>
void score_tile(const std::int32_t* queries, const std::int32_t* keys, std::int64_t groups, float* scores, float* totals) {
  multiply<Lanes, rows, vectors>(queries, keys, panel_columns, groups, [=](int r, int v, Floats sum) {
    store(scores + (v * block_rows + r) * width, sum);
    store(totals + r * width, max(load(totals + r * width), sum));
  });
}

struct OutputTile {
  void* out;
  std::int64_t stride;
  std::int64_t rows;
  std::int64_t columns;  // of the last vector
  const float* factors;  // 1 / sum of each row
};

inline void store_as(float* out, Floats x, std::int64_t count) { store(out, x, count); }
#if defined(__AVX512BF16__)
inline void store_as(bfloat16* out, Floats x, std::int64_t count) {
  _mm256_mask_storeu_epi16(out, first(count), __builtin_bit_cast(__m256i, _mm512_cvtneps_pbh(x.v)));
}
#endif

template <class Pack, int rows, int vectors>
void output_tile(const std::int32_t* probabilities, const std::int32_t* values, std::int64_t stride, std::int64_t groups,
                 const OutputTile& to) {
  auto* out = static_cast<typename Pack::Element*>(to.out);
  multiply<typename Pack::Lanes, rows, vectors>(probabilities, values, stride, groups, [&](int r, int v, Floats sum) {
    if (r < to.rows) store_as(out + r * to.stride + v * width, sum * all(to.factors[r]), v + 1 < vectors ? width : to.columns);
  });
}

// Rows are computed two at a time: with an odd number of them one is computed that is not stored.
constexpr std::int64_t row_step = 2;

// Calls with<rows>() for the constant that `rows` is.
template <class With>
void with_rows(std::int64_t rows, const With& with) {
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

// 2^((score - maximum) * scale).
template <bool rounded>
inline Floats power(Floats score, Floats maximum, Floats scale) {
  return rounded ? exp2_rounded((score - maximum) * scale) : exp2(score - maximum);
}

// Scores -> 2^(score - maximum), and their sums in each lane.
inline void exponentiate(Float32Pack, const Scratch& s, std::int64_t rows, std::int64_t num_keys, float) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const Floats maximum = all(s.of_row[r]);
    Floats total = zero();
    float* at = s.scores + r * width;
    std::int64_t j = 0;
    for (; j + width <= num_keys; j += width, at += block_rows * width) {
      const Floats p = power<false>(load(at), maximum, zero());
      store(at, p);
      total = total + p;
    }
    if (j < num_keys) {
      store(at, power<false>(load(at), maximum, zero()));
      total = total + load(at, num_keys - j);
    }
    store(s.totals + r * width, total);
  }
}

#if defined(__AVX512BF16__)
// The sum is that of the rounded ones, which is what the product will add up.
inline void exponentiate(Bfloat16Pack, const Scratch& s, std::int64_t rows, std::int64_t num_keys, float scale) {
  const Floats factor = all(scale);
  const auto ones = __builtin_bit_cast(__m512bh, _mm512_set1_epi32(0x3f803f80));
  for (std::int64_t r = 0; r < rows; ++r) {
    const Floats maximum = all(s.of_row[r]);
    __m512 total = _mm512_setzero_ps();
    for (std::int64_t j = 0; j < num_keys; j += 2 * width) {
      const float* from = s.scores + j * block_rows + r * width;
      const Floats low = power<true>(load(from), maximum, factor);
      const Floats high = power<true>(load(from + block_rows * width), maximum, factor);
      __m512bh pairs = _mm512_cvtne2ps_pbh(high.v, low.v);
      if (num_keys - j < 2 * width) {
        const auto mask = static_cast<__mmask32>((1U << (num_keys - j)) - 1U);
        pairs = __builtin_bit_cast(__m512bh, _mm512_maskz_mov_epi16(mask, __builtin_bit_cast(__m512i, pairs)));
      }
      total = _mm512_dpbf16_ps(total, pairs, ones);
      // in the place of the block's scores that have been read
      _mm512_storeu_si512(s.scores + (j / 2) * block_rows + r * width, __builtin_bit_cast(__m512i, pairs));
    }
    store(s.totals + r * width, Floats{total});
  }
}
#endif

// Softmax in float32 of a block's scores, for whoever wants to see it.
void write_probabilities(const Scratch& s, std::int64_t rows, std::int64_t num_keys, float scale, float* out) {
  for (std::int64_t r = 0; r < rows; ++r, out += num_keys) {
    Floats total = zero();
    for (std::int64_t j = 0; j < num_keys; j += width) {
      const std::int64_t count = num_keys - j < width ? num_keys - j : width;
      const Floats score = load(s.scores + j * block_rows + r * width);
      store(out + j, exp2((score - all(s.of_row[r])) * all(scale)), count);
      total = total + load(out + j, count);
    }
    const Floats factor = all(1.0F / sum(total));
    for (std::int64_t j = 0; j < num_keys; j += width) {
      const std::int64_t count = num_keys - j < width ? num_keys - j : width;
      store(out + j, load(out + j, count) * factor, count);
    }
  }
}

template <class Pack>
void attend(const AttentionHead& h, const Scratch& s) {
  using Element = typename Pack::Element;
  constexpr bool is_float32 = Pack::group == 1;
  constexpr auto element_bytes = static_cast<std::int64_t>(sizeof(Element));
  const float scale = h.scale * log2_of_e;
  const auto* queries = static_cast<const Element*>(h.queries);
  const auto* values = static_cast<const Element*>(h.values);
  auto* out = static_cast<Element*>(h.out);

  const std::int64_t groups = (h.head_size + Pack::group - 1) / Pack::group;
  const std::int64_t key_groups = (h.num_keys + Pack::group - 1) / Pack::group;
  const std::int64_t key_panel = rounded_up(groups, quarter) * panel_columns;
  pack_keys(static_cast<const char*>(h.keys), h.stride * element_bytes, h.num_keys, h.head_size * element_bytes, s.keys);
  Pack::values(values, h.stride, h.num_keys, h.head_size, s.values);

  const std::int64_t blocks = (h.num_queries + block_rows - 1) / block_rows;
  std::int64_t row = 0;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t rows = (h.num_queries - row + blocks - block - 1) / (blocks - block);  // 13 rows are 7 + 6
    const std::int64_t computed = rounded_up(rows, row_step);
    Pack::queries(queries + row * h.query_stride, h.query_stride, rows, h.head_size, scale, s.queries);
    for (std::int64_t r = 0; r < computed; ++r) store(s.totals + r * width, all(minus_infinity));
    with_rows(computed, [&]<int constant>() {
      for (std::int64_t j = 0; j < h.num_keys; j += panel_columns) {
        const std::int32_t* keys = s.keys + j / panel_columns * key_panel;
        float* scores = s.scores + j * block_rows;
        if (h.num_keys - j > width)
          score_tile<typename Pack::Lanes, constant, 2>(s.queries, keys, groups, scores, s.totals);
        else
          score_tile<typename Pack::Lanes, constant, 1>(s.queries, keys, groups, scores, s.totals);
      }
    });

    largest_of_rows(s.totals, rows, s.of_row);
    if (h.probabilities != nullptr)
      write_probabilities(s, rows, h.num_keys, is_float32 ? 1.0F : scale, h.probabilities + row * h.num_keys);
    exponentiate(Pack(), s, rows, h.num_keys, scale);
    sum_of_rows(s.totals, rows, s.of_row);
    store(s.of_row, all(1.0F) / load(s.of_row));

    const auto* probabilities = static_cast<const std::int32_t*>(static_cast<const void*>(s.scores));
    with_rows(computed, [&]<int constant>() {
      for (std::int64_t d = 0; d < h.head_size; d += panel_columns) {
        const std::int32_t* panel = s.values + d * key_groups;
        const std::int64_t left = h.head_size - d;
        OutputTile to = {out + row * h.out_stride + d, h.out_stride, rows, width, s.of_row};
        if (left > width) {
          to.columns = left < panel_columns ? left - width : width;
          output_tile<Pack, constant, 2>(probabilities, panel, panel_columns, key_groups, to);
        } else {
          to.columns = left;
          output_tile<Pack, constant, 1>(probabilities, panel, panel_columns, key_groups, to);
        }
      }
    });
    row += rows;
  }
}

}  // namespace

std::size_t attention_scratch(std::int64_t num_keys, std::int64_t head_size) {
  return sizes(num_keys, head_size).all() * sizeof(float) + cache_line;
}

void attention(const AttentionHead& head, void* scratch) {
  const Scratch s = lay_out(scratch, head.num_keys, head.head_size);
#if defined(__AVX512BF16__)
  if (head.is_bfloat16) return attend<Bfloat16Pack>(head, s);
#endif
  attend<Float32Pack>(head, s);
}

}  // namespace layertap::LAYERTAP_ISA
