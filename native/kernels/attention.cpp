#include "attention.hpp"

#include "attention_pack.hpp"
#include "softmax.hpp"

namespace layertap::LAYERTAP_ISA {

namespace {

// A head's keys and values are packed once. Then queries pass by in bands of a few blocks, whose scores stay in the first
// cache: scores of all blocks, softmax of all, output of all, so that the processor changes its work seldom.
struct Scratch {
  std::int32_t* keys;     // [panels of keys][groups of D][panel_columns]
  std::int32_t* values;   // [panels of D][groups of keys][panel_columns]
  std::int32_t* queries;  // [blocks of a band][vectors of groups][block_rows][width]
  float* scores;          // [blocks of a band][vectors of keys][block_rows][width]; then powers, as the product wants them
  float* totals;          // [blocks of a band][block_rows][width]: a maximum, then a sum, of each row and lane
  float* of_row;          // [blocks of a band][width]: a maximum, then 1 / sum, of each row
  float* sums;            // [block_rows][panel_columns]
};

constexpr std::int64_t band_blocks = 4;
constexpr std::int64_t band_bytes = 24 * 1024;  // of scores; not found to matter much from 12 to 32 KiB

// In words, one of each (of a band, for queries and what follows), for the format that needs most.
struct Sizes {
  std::int64_t keys, values, queries, scores, totals, of_row, sums;
};

Sizes sizes(std::int64_t num_keys, std::int64_t head_size) {
  const std::int64_t columns = rounded_up(num_keys, panel_columns);
  const std::int64_t groups = rounded_up(head_size, width);
  return {columns * groups,     num_keys * rounded_up(head_size, panel_columns),
          block_rows * groups,  block_rows * columns,
          block_rows * width,   width,
          block_rows * panel_columns};
}

std::int64_t blocks_of_band(const Sizes& size) {
  const std::int64_t fit = band_bytes / (size.scores * group_bytes);
  return fit < 1 ? 1 : fit > band_blocks ? band_blocks : fit;
}

constexpr std::size_t cache_line = 64;

Scratch lay_out(void* scratch, const Sizes& size, std::int64_t blocks) {
  const std::uintptr_t misaligned = reinterpret_cast<std::uintptr_t>(scratch) % cache_line;
  auto* words = reinterpret_cast<std::int32_t*>(static_cast<char*>(scratch) + (cache_line - misaligned) % cache_line);
  const auto take = [&words](std::int64_t count) {
    std::int32_t* taken = words;
    words += count;
    return taken;
  };
  const auto floats = [&take](std::int64_t count) { return static_cast<float*>(static_cast<void*>(take(count))); };
  Scratch s = {};
  s.keys = take(size.keys);
  s.values = take(size.values);
  s.queries = take(blocks * size.queries);
  s.scores = floats(blocks * size.scores);
  s.totals = floats(blocks * size.totals);
  s.of_row = floats(blocks * size.of_row);
  s.sums = floats(size.sums);
  return s;
}

// Sums over `groups` of a block's rows and `vectors` vectors of columns, each handed to `finish(row, vector, sum)`.
template <class Lanes, int rows, int vectors, class Finish>
[[gnu::always_inline]] inline void multiply(const std::int32_t* a, const std::int32_t* b, std::int64_t groups,
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
      b += panel_columns;
    }
    a += block_rows * width;
    groups -= some;
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) finish(r, v, Floats{total[r][v]});
}

// Scores of one panel of keys.
template <class Lanes, int rows, int vectors>
void score_tile(const std::int32_t* queries, const std::int32_t* keys, std::int64_t groups, float* scores) {
  multiply<Lanes, rows, vectors>(queries, keys, groups,
                                 [=](int r, int v, Floats sum) { store(scores + (v * block_rows + r) * width, sum); });
}

// The largest score of each row. (Where one is NaN, the row's sum will be, whatever is found here.)
void find_maxima(const float* scores, std::int64_t rows, std::int64_t num_keys, float* totals, float* of_row) {
  for (std::int64_t r = 0; r < rows; ++r, scores += width) {
    Floats maximum = load(scores);
    for (std::int64_t j = width; j < num_keys; j += width) maximum = max(maximum, load(scores + j * block_rows));
    store(totals + r * width, maximum);
  }
  store(of_row, largest_of_rows(totals));
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

// One row and vector of a panel's output.
template <class Pack, int vectors>
[[gnu::always_inline]] inline void finish_output(int r, int v, Floats sum, const OutputTile& to) {
  if (r >= to.rows) return;
  auto* out = static_cast<typename Pack::Element*>(to.out) + r * to.stride + v * width;
  store_as(out, sum * all(to.factors[r]), v + 1 < vectors ? width : to.columns);
}

// Output of one panel of values.
template <class Pack, int rows, int vectors>
void output_tile(const std::int32_t* powers, const std::int32_t* values, std::int64_t groups, const OutputTile& to) {
  multiply<typename Pack::Lanes, rows, vectors>(
      powers, values, groups, [&](int r, int v, Floats sum) { finish_output<Pack, vectors>(r, v, sum, to); });
}

// Long sums over keys are made of slices: smaller rounding errors than those of one chain.
constexpr std::int64_t slice_groups = 128;

// The same for more than one slice. `sums`, [block_rows][panel_columns], is for those under way.
template <class Pack, int rows, int vectors>
[[gnu::noinline]] void output_slices(const std::int32_t* powers, const std::int32_t* values, std::int64_t groups,
                                     float* sums, const OutputTile& to) {
  for (std::int64_t g = 0; g < groups; g += slice_groups)
    multiply<typename Pack::Lanes, rows, vectors>(powers + g * block_rows, values + g * panel_columns,
                                                  groups - g < slice_groups ? groups - g : slice_groups,
                                                  [=](int r, int v, Floats sum) {
                                                    float* at = sums + r * panel_columns + v * width;
                                                    store(at, g == 0 ? sum : load(at) + sum);
                                                  });
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v)
      finish_output<Pack, vectors>(r, v, load(sums + r * panel_columns + v * width), to);
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
inline void exponentiate(Float32Pack, float* scores, std::int64_t rows, std::int64_t num_keys, float, float* totals,
                         const float* of_row) {
  for (std::int64_t r = 0; r < rows; ++r, scores += width) {
    const Floats maximum = all(of_row[r]);
    Floats total = zero();
    float* at = scores;
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
    store(totals + r * width, total);
  }
}

#if defined(__AVX512BF16__)
// The sum is that of the rounded ones, which is what the product will add up.
inline void exponentiate(Bfloat16Pack, float* scores, std::int64_t rows, std::int64_t num_keys, float scale, float* totals,
                         const float* of_row) {
  const Floats factor = all(scale);
  const auto ones = __builtin_bit_cast(__m512bh, _mm512_set1_epi32(0x3f803f80));
  for (std::int64_t r = 0; r < rows; ++r, scores += width) {
    const Floats maximum = all(of_row[r]);
    __m512 total = _mm512_setzero_ps();
    for (std::int64_t j = 0; j < num_keys; j += 2 * width) {
      const Floats low = power<true>(load(scores + j * block_rows), maximum, factor);
      const Floats high = power<true>(load(scores + (j + width) * block_rows), maximum, factor);
      __m512bh pairs = _mm512_cvtne2ps_pbh(high.v, low.v);
      if (num_keys - j < 2 * width) {
        const auto mask = static_cast<__mmask32>((1U << (num_keys - j)) - 1U);
        pairs = __builtin_bit_cast(__m512bh, _mm512_maskz_mov_epi16(mask, __builtin_bit_cast(__m512i, pairs)));
      }
      total = _mm512_dpbf16_ps(total, pairs, ones);
      // in the place of the row's scores that have been read
      _mm512_storeu_si512(scores + j / 2 * block_rows, __builtin_bit_cast(__m512i, pairs));
    }
    store(totals + r * width, Floats{total});
  }
}
#endif

// Softmax in float32 of a block's scores, for whoever wants to see it.
void write_probabilities(const float* scores, std::int64_t rows, std::int64_t num_keys, float scale, const float* of_row,
                         float* out) {
  for (std::int64_t r = 0; r < rows; ++r, out += num_keys) {
    Floats total = zero();
    for (std::int64_t j = 0; j < num_keys; j += width) {
      const std::int64_t count = num_keys - j < width ? num_keys - j : width;
      const Floats score = load(scores + j * block_rows + r * width);
      store(out + j, exp2((score - all(of_row[r])) * all(scale)), count);
      total = total + load(out + j, count);
    }
    const Floats factor = all(1.0F / sum(total));
    for (std::int64_t j = 0; j < num_keys; j += width) {
      const std::int64_t count = num_keys - j < width ? num_keys - j : width;
      store(out + j, load(out + j, count) * factor, count);
    }
  }
}

// One head; how its parts lie in the scratch.
template <class Pack>
class Attend {
 public:
  Attend(const AttentionHead& head, void* scratch)
      : h_(head),
        size_(sizes(head.num_keys, head.head_size)),
        band_blocks_(blocks_of_band(size_)),
        s_(lay_out(scratch, size_, band_blocks_)),
        scale_(head.scale * log2_of_e),
        groups_((head.head_size + Pack::group - 1) / Pack::group),
        key_groups_((head.num_keys + Pack::group - 1) / Pack::group) {}

  void run() const {
    pack_keys(static_cast<const char*>(h_.keys), h_.stride * element_bytes, h_.num_keys, h_.head_size * element_bytes,
              s_.keys);
    Pack::values(static_cast<const Element*>(h_.values), h_.stride, h_.num_keys, h_.head_size, s_.values);
    // 64 rows are 12 + 12 + 10 + 10 + 10 + 10
    std::int64_t steps = (h_.num_queries + row_step - 1) / row_step;
    std::int64_t blocks = (h_.num_queries + block_rows - 1) / block_rows;
    Block band[band_blocks];
    std::int64_t row = 0;
    while (blocks > 0) {
      const std::int64_t count = blocks < band_blocks_ ? blocks : band_blocks_;
      for (std::int64_t b = 0; b < count; ++b, --blocks) {
        const std::int64_t some = (steps + blocks - 1) / blocks;
        const std::int64_t left = h_.num_queries - row;
        band[b] = {b, row, some * row_step < left ? some * row_step : left};
        row += band[b].rows;
        steps -= some;
      }
      for (std::int64_t b = 0; b < count; ++b) score(band[b]);
      for (std::int64_t b = 0; b < count; ++b) normalize(band[b]);
      for (std::int64_t b = 0; b < count; ++b) output(band[b]);
    }
  }

 private:
  using Element = typename Pack::Element;
  using Lanes = typename Pack::Lanes;
  static constexpr auto element_bytes = static_cast<std::int64_t>(sizeof(Element));

  struct Block {
    std::int64_t index;  // in the band
    std::int64_t row;    // the first
    std::int64_t rows;
  };

  void score(const Block& block) const {
    std::int32_t* queries = s_.queries + block.index * size_.queries;
    Pack::queries(static_cast<const Element*>(h_.queries) + block.row * h_.query_stride, h_.query_stride, block.rows,
                  h_.head_size, scale_, queries);
    const std::int64_t panel_words = rounded_up(groups_, quarter) * panel_columns;
    float* scores = s_.scores + block.index * size_.scores;
    with_rows(rounded_up(block.rows, row_step), [&]<int rows>() {
      const std::int32_t* keys = s_.keys;
      for (std::int64_t j = 0; j < h_.num_keys; j += panel_columns, keys += panel_words) {
        if (h_.num_keys - j > width)
          score_tile<Lanes, rows, 2>(queries, keys, groups_, scores + j * block_rows);
        else
          score_tile<Lanes, rows, 1>(queries, keys, groups_, scores + j * block_rows);
      }
    });
  }

  void normalize(const Block& block) const {
    float* scores = s_.scores + block.index * size_.scores;
    float* totals = s_.totals + block.index * size_.totals;
    float* of_row = s_.of_row + block.index * size_.of_row;
    find_maxima(scores, block.rows, h_.num_keys, totals, of_row);
    if (h_.probabilities != nullptr)
      write_probabilities(scores, block.rows, h_.num_keys, Pack::scaled_queries ? 1.0F : scale_, of_row,
                          h_.probabilities + block.row * h_.num_keys);
    exponentiate(Pack(), scores, block.rows, h_.num_keys, scale_, totals, of_row);
    store(of_row, all(1.0F) / sum_of_rows(totals));
  }

  void output(const Block& block) const {
    const auto* powers = static_cast<const std::int32_t*>(static_cast<const void*>(s_.scores + block.index * size_.scores));
    auto* out = static_cast<Element*>(h_.out) + block.row * h_.out_stride;
    const float* factors = s_.of_row + block.index * size_.of_row;
    with_rows(rounded_up(block.rows, row_step), [&]<int rows>() {
      for (std::int64_t d = 0; d < h_.head_size; d += panel_columns) {
        const std::int32_t* values = s_.values + d * key_groups_;
        const std::int64_t columns = h_.head_size - d < panel_columns ? h_.head_size - d : panel_columns;
        if (columns > width)
          output_panel<rows, 2>(powers, values, {out + d, h_.out_stride, block.rows, columns - width, factors});
        else
          output_panel<rows, 1>(powers, values, {out + d, h_.out_stride, block.rows, columns, factors});
      }
    });
  }

  template <int rows, int vectors>
  void output_panel(const std::int32_t* powers, const std::int32_t* values, const OutputTile& to) const {
    if (key_groups_ <= slice_groups)
      output_tile<Pack, rows, vectors>(powers, values, key_groups_, to);
    else
      output_slices<Pack, rows, vectors>(powers, values, key_groups_, s_.sums, to);
  }

  const AttentionHead& h_;
  Sizes size_;
  std::int64_t band_blocks_;
  Scratch s_;
  float scale_;  // of scores, that powers of two want
  std::int64_t groups_, key_groups_;
};

}  // namespace

std::size_t attention_scratch(std::int64_t num_keys, std::int64_t head_size) {
  const Sizes size = sizes(num_keys, head_size);
  const std::int64_t of_block = size.queries + size.scores + size.totals + size.of_row;
  return static_cast<std::size_t>(size.keys + size.values + size.sums + blocks_of_band(size) * of_block) * group_bytes + cache_line;
}

void attention(const AttentionHead& head, void* scratch) {
#if defined(__AVX512BF16__)
  if (head.is_bfloat16) return Attend<Bfloat16Pack>(head, scratch).run();
#endif
  Attend<Float32Pack>(head, scratch).run();
}

}  // namespace layertap::LAYERTAP_ISA
