#include "attention.hpp"

#include "attention_distances.hpp"
#include "attention_lanes.hpp"
#include "attention_pack.hpp"
#include "attention_softmax.hpp"
#if defined(LAYERTAP_TILES)
#include "attention_tiles.hpp"
#endif

namespace layertap::LAYERTAP_ISA {

namespace {

// The keys and values of a head are packed once. Queries are then processed in bands of a few blocks, whose scores stay in
// the first cache: scores of all blocks, softmax of all, output of all, so that each kind of work runs in long stretches.
struct Scratch {
  std::int32_t* keys;     // [strips of keys][groups of D][strip_columns]
  std::int32_t* values;   // [strips of D][groups of keys][strip_columns]
  float* sums;            // [block_rows][strip_columns]
  std::int32_t* queries;  // [blocks of a band][vectors of groups][block_rows][width]
  float* scores;          // [blocks of a band][vectors of keys][block_rows][width]; then powers, as the product wants them
  float* totals;          // [blocks of a band][block_rows][width]: a maximum, then a sum, of each row and lane
  float* of_row;          // [blocks of a band][block_rows]: a maximum, then 1 / sum, of each row
};

constexpr std::int64_t most_blocks = 4;         // of a band
constexpr std::int64_t band_bytes = 24 * 1024;  // of scores

// Sizes in words, for the format that needs most; the sizes after `sums` are those of one block.
struct Sizes {
  std::int64_t keys, values, sums, queries, scores, totals, of_row;
  std::int64_t blocks;  // of a band

  std::int64_t all() const { return keys + values + sums + blocks * (queries + scores + totals + of_row); }
};

template <class Products>
Sizes sizes(std::int64_t num_keys, std::int64_t head_size) {
  constexpr std::int64_t rows = Products::block_rows;
  const std::int64_t columns = rounded_up(num_keys, strip_columns);
  const std::int64_t groups = rounded_up(head_size, width);
  Sizes s = {};
  s.keys = columns * groups;
  s.values = rounded_up(num_keys, Products::group_step) * rounded_up(head_size, strip_columns);
  s.sums = rows * strip_columns;
  s.queries = rows * groups;
  s.scores = rows * columns;
  s.totals = rounded_up(rows, width) * width;
  s.of_row = rounded_up(rows, width);
  const std::int64_t fit = band_bytes / (s.scores * group_bytes);
  s.blocks = fit < 1 ? 1 : fit > most_blocks ? most_blocks : fit;
  return s;
}

constexpr std::size_t cache_line = 64;

Scratch lay_out(void* scratch, const Sizes& size) {
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
  s.sums = floats(size.sums);
  s.queries = take(size.blocks * size.queries);
  s.scores = floats(size.blocks * size.scores);
  s.totals = floats(size.blocks * size.totals);
  s.of_row = floats(size.blocks * size.of_row);
  return s;
}

// Attention of one head, with its scratch memory. `Products` defines how blocks are multiplied.
template <class Products>
class Attend {
 public:
  Attend(const AttentionHead& head, void* scratch)
      : h_(head),
        size_(sizes<Products>(head.num_keys, head.head_size)),
        s_(lay_out(scratch, size_)),
        scale_(head.scale * log2_of_e),
        groups_(groups_of(head.head_size)),
        key_groups_(groups_of(head.num_keys)) {}

  void run() const {
    pack_keys(static_cast<const char*>(h_.keys), h_.stride * element_bytes, h_.num_keys, h_.head_size * element_bytes,
              s_.keys);
    Pack::values(static_cast<const Element*>(h_.values), h_.stride, h_.num_keys, key_groups_, h_.head_size, s_.values);
    Products::begin();
    // in steps: 64 rows are 12 + 12 + 10 + 10 + 10 + 10 where blocks are 12 and steps 2
    std::int64_t steps = (h_.num_queries + Products::row_step - 1) / Products::row_step;
    std::int64_t blocks = (h_.num_queries + block_rows - 1) / block_rows;
    Block band[most_blocks];
    std::int64_t row = 0;
    while (blocks > 0) {
      const std::int64_t count = blocks < size_.blocks ? blocks : size_.blocks;
      for (std::int64_t b = 0; b < count; ++b, --blocks) {
        const std::int64_t some = (steps + blocks - 1) / blocks;
        const std::int64_t left = h_.num_queries - row;
        band[b] = {b, row, some * Products::row_step < left ? some * Products::row_step : left};
        row += band[b].rows;
        steps -= some;
      }
      for (std::int64_t b = 0; b < count; ++b) score(band[b]);
      for (std::int64_t b = 0; b < count; ++b) normalize(band[b]);
      for (std::int64_t b = 0; b < count; ++b) output(band[b]);
    }
    Products::end();
  }

 private:
  using Pack = typename Products::Pack;
  using Element = typename Pack::Element;
  static constexpr std::int64_t block_rows = Products::block_rows;
  static constexpr auto element_bytes = static_cast<std::int64_t>(sizeof(Element));

  struct Block {
    std::int64_t index;  // in the band
    std::int64_t row;    // the first
    std::int64_t rows;
  };

  static std::int64_t groups_of(std::int64_t elements) {
    return rounded_up((elements + Pack::group - 1) / Pack::group, Products::group_step);
  }

  void score(const Block& block) const {
    std::int32_t* queries = s_.queries + block.index * size_.queries;
    Pack::template queries<block_rows>(static_cast<const Element*>(h_.queries) + block.row * h_.query_stride,
                                       h_.query_stride, block.rows, h_.head_size, scale_, queries);
    Products::score(queries, s_.keys, groups_, h_.num_keys, rounded_up(block.rows, Products::row_step),
                    s_.scores + block.index * size_.scores);
  }

  void normalize(const Block& block) const {
    float* scores = s_.scores + block.index * size_.scores;
    float* totals = s_.totals + block.index * size_.totals;
    float* of_row = s_.of_row + block.index * size_.of_row;
    float scale = Pack::scaled_queries ? 1.0F : scale_;
    if (h_.query_distances != nullptr || h_.key_distances != nullptr) {
      add_distance_terms<block_rows>(scores, h_, block.row, block.rows, scale, scale_);
      scale = 1;
    } else if (h_.distance_bias != nullptr || h_.window > 0) {
      add_terms(scores, block, scale);
      scale = 1;
    }
    find_maxima<block_rows>(scores, block.rows, h_.num_keys, totals, of_row);
    if (h_.probabilities != nullptr)
      write_probabilities<block_rows>(scores, block.rows, h_.num_keys, scale, of_row,
                                      h_.probabilities + block.row * h_.num_keys);
    exponentiate<block_rows>(Pack(), scores, block.rows, h_.num_keys, scale, of_row, totals);
    invert_sums<block_rows>(totals, block.rows, of_row);
  }

  void add_terms(float* scores, const Block& block, float scale) const {
    const float* bias = h_.distance_bias == nullptr ? nullptr : h_.distance_bias + h_.num_keys - 1;
    for (std::int64_t r = 0; r < block.rows; ++r) {
      const std::int64_t row = h_.query_rows == nullptr ? block.row + r : h_.query_rows[block.row + r];
      const std::int64_t place = row + h_.query_offset;
      add_row_terms<block_rows>(scores + r * width, h_.num_keys, scale, bias, h_.window, place);
    }
  }

  void output(const Block& block) const {
    const auto* powers = static_cast<const std::int32_t*>(static_cast<const void*>(s_.scores + block.index * size_.scores));
    auto* out = static_cast<Element*>(h_.out) + block.row * h_.out_stride;
    const float* factors = s_.of_row + block.index * size_.of_row;
    for (std::int64_t d = 0; d < h_.head_size; d += strip_columns) {
      const std::int64_t columns = h_.head_size - d < strip_columns ? h_.head_size - d : strip_columns;
      Products::output(powers, s_.values + d * key_groups_, key_groups_, s_.sums,
                       {out + d, h_.out_stride, block.rows, columns, factors});
    }
  }

  const AttentionHead& h_;
  Sizes size_;
  Scratch s_;
  float scale_;  // turns scores into exponents of two
  std::int64_t groups_, key_groups_;
};

}  // namespace

std::size_t attention_scratch(std::int64_t num_keys, std::int64_t head_size) {
  std::int64_t words = sizes<LaneProducts<Float32Pack>>(num_keys, head_size).all();
#if defined(LAYERTAP_TILES)
  const std::int64_t by_tiles = sizes<TileProducts>(num_keys, head_size).all();
  if (by_tiles > words) words = by_tiles;
#endif
  return static_cast<std::size_t>(words * group_bytes) + cache_line;
}

void attention(const AttentionHead& head, void* scratch) {
#if defined(LAYERTAP_TILES)
  if (head.is_bfloat16 && TileProducts::suits(head.head_size)) return Attend<TileProducts>(head, scratch).run();
#endif
#if defined(__AVX512BF16__)
  if (head.is_bfloat16) return Attend<LaneProducts<Bfloat16Pack>>(head, scratch).run();
#endif
  Attend<LaneProducts<Float32Pack>>(head, scratch).run();
}

}  // namespace layertap::LAYERTAP_ISA
