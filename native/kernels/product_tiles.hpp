// Products by AMX tiles: bfloat16, int8 and the splits of float32.
//
// A packed matrix for tiles is made of strips of 32 columns (two to a panel). In a strip everything lies in the order in
// which it is multiplied: for each step along K (64 bytes of a row: 32 bfloat16 or 64 int8), for each part (splits), the
// two tiles of 16 columns, each 1 KiB of 16 groups x 16 columns. So weights are read as one stream, and a resident strip
// spreads evenly over the sets of a cache; rows of 64 columns would put it in half of the sets.
#pragma once

#include "kernels.hpp"

namespace layertap::LAYERTAP_ISA {

// The 32-bit word that holds group `group` of column n in part `part` of `parts`, with `groups` (a multiple of 16) of
// them along K.
constexpr std::int64_t tile_word(std::int64_t n, std::int64_t group, std::int64_t part, std::int64_t parts,
                                 std::int64_t groups) {
  const std::int64_t strip = n / 32;
  const std::int64_t step = strip * (groups / 16) + group / 16;
  const std::int64_t tile = (step * parts + part) * 2 + n % 32 / 16;
  return (tile * 16 + group % 16) * 16 + n % 16;
}

std::size_t product_tiles_scratch();  // bytes
void product_tiles(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
                   std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue, void* scratch);

}  // namespace layertap::LAYERTAP_ISA
