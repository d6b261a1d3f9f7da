// The two products of attention by AMX tiles: bfloat16, head sizes that are multiples of 32.
#pragma once

#include "attention_lanes.hpp"
#include "tiles.hpp"

namespace layertap::LAYERTAP_ISA {

struct TileProducts {
  using Pack = Bfloat16Pack;

  // Up to 2 x 2 tiles of sums.
  static constexpr std::int64_t block_rows = 2 * tile_rows;
  static constexpr std::int64_t row_step = tile_rows;
  static constexpr std::int64_t group_step = tile_groups;

  static bool suits(std::int64_t head_size) { return head_size % (2 * tile_groups) == 0; }

  // Tiles are configured at each entry and released at the end, as for other products.
  static void begin() { configure_tiles(); }
  static void end() { release_tiles(); }

  static void score(const std::int32_t* queries, const std::int32_t* keys, std::int64_t groups, std::int64_t num_keys,
                    std::int64_t rows, float* scores) {
    memory_settled();
    for (std::int64_t j = 0; j < num_keys; j += strip_columns, keys += groups * strip_columns) {
      float* to = scores + j * block_rows;
      const bool two = num_keys - j > tile_columns;
      if (rows > tile_rows)
        two ? multiply<2, 2>(queries, keys, groups, to) : multiply<2, 1>(queries, keys, groups, to);
      else
        two ? multiply<1, 2>(queries, keys, groups, to) : multiply<1, 1>(queries, keys, groups, to);
    }
    memory_settled();
  }

  // `sums`, [2][block_rows][width], holds the sums until they are stored as output.
  static void output(const std::int32_t* powers, const std::int32_t* values, std::int64_t groups, float* sums,
                     const OutputStrip& to) {
    memory_settled();
    if (to.rows > tile_rows)
      multiply<2, 2>(powers, values, groups, sums);
    else
      multiply<1, 2>(powers, values, groups, sums);
    memory_settled();
    for (std::int64_t r = 0; r < to.rows; ++r)
      for (int v = 0; v < 2; ++v) finish_output<bfloat16, 2>(r, v, load(sums + (v * block_rows + r) * width), to);
  }

 private:
  static constexpr std::int64_t tile_words = tile_bytes / group_bytes;

  // [vector of groups][block_rows][16] x [group][strip_columns] -> [column tile][block_rows][16].
  template <int row_tiles, int column_tiles>
  static void multiply(const std::int32_t* a, const std::int32_t* b, std::int64_t groups, float* out) {
    constexpr std::int64_t b_stride = strip_columns * group_bytes;
    zero_tile<0>();
    if constexpr (column_tiles == 2) zero_tile<1>();
    if constexpr (row_tiles == 2) zero_tile<2>();
    if constexpr (row_tiles == 2 && column_tiles == 2) zero_tile<3>();
    for (std::int64_t g = 0; g < groups; g += tile_groups, a += block_rows * width, b += tile_groups * strip_columns) {
      load_tile<4>(a, tile_row_bytes);
      if constexpr (row_tiles == 2) load_tile<5>(a + tile_words, tile_row_bytes);
      load_tile<6>(b, b_stride);
      if constexpr (column_tiles == 2) load_tile<7>(b + tile_columns, b_stride);
      dot_bfloat16<0, 0>();
      if constexpr (column_tiles == 2) dot_bfloat16<0, 1>();
      if constexpr (row_tiles == 2) dot_bfloat16<1, 0>();
      if constexpr (row_tiles == 2 && column_tiles == 2) dot_bfloat16<1, 1>();
    }
    store_tile<0>(out, tile_row_bytes);
    if constexpr (column_tiles == 2) store_tile<1>(out + block_rows * width, tile_row_bytes);
    if constexpr (row_tiles == 2) store_tile<2>(out + tile_words, tile_row_bytes);
    if constexpr (row_tiles == 2 && column_tiles == 2) store_tile<3>(out + block_rows * width + tile_words, tile_row_bytes);
  }
};

}  // namespace layertap::LAYERTAP_ISA
