// Tiles in software, for tests on processors without AMX: bit for bit what the instructions do (Intel 64 and IA-32
// Architectures Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS, TDPBUSD), and a
// stop with a message where an instruction would fault.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tiles.hpp"

namespace layertap::LAYERTAP_ISA {

struct Tile {
  alignas(64) std::uint8_t data[tile_rows][tile_row_bytes];

  __m512i row(std::int64_t index) const { return _mm512_load_si512(data[index]); }
  void set_row(std::int64_t index, __m512i value) { _mm512_store_si512(data[index], value); }
};

struct TileFile {
  TileConfiguration configuration;
  Tile tiles[8];
};

// As the registers: one file a thread.
inline constinit thread_local TileFile tile_file = {};

inline void tile_check(bool holds, const char* why) {
  if (holds) return;
  std::fprintf(stderr, "emulated tiles: %s\n", why);
  std::abort();
}

inline void load_configuration(const TileConfiguration& given) {
  tile_check(given.palette == 1, "palette 1 is the one with tiles");
  tile_check(given.start_row == 0, "start_row is for interrupted loads");
  for (const std::uint8_t byte : given.reserved) tile_check(byte == 0, "reserved bytes of the configuration are zero");
  for (int t = 0; t < 16; ++t) {
    tile_check(given.row_bytes[t] <= 64 && given.rows[t] <= 16, "a tile has at most 16 rows of 64 bytes");
    tile_check((given.row_bytes[t] == 0) == (given.rows[t] == 0), "rows and row bytes: both zero or neither");
    tile_check(t < 8 || given.rows[t] == 0, "palette 1 has eight tiles");
  }
  std::memset(tile_file.tiles, 0, sizeof tile_file.tiles);
  tile_file.configuration = given;
}

inline void configure_tiles() { load_configuration(whole_tiles); }
inline void release_tiles() { tile_file = {}; }

inline std::int64_t rows_of(int tile) { return tile_file.configuration.rows[tile]; }
inline std::int64_t row_bytes_of(int tile) { return tile_file.configuration.row_bytes[tile]; }

inline void check_configured(int tile) {
  tile_check(tile_file.configuration.palette == 1, "tiles used on a thread before they were configured there");
  tile_check(rows_of(tile) > 0, "a tile used that the configuration leaves out");
}

template <int tile>
inline void zero_tile() {
  check_configured(tile);
  std::memset(&tile_file.tiles[tile], 0, sizeof(Tile));
}

template <int tile>
inline void load_tile(const void* from, std::int64_t stride) {
  check_configured(tile);
  Tile& to = tile_file.tiles[tile];
  std::memset(&to, 0, sizeof to);
  for (std::int64_t r = 0; r < rows_of(tile); ++r)
    std::memcpy(to.data[r], static_cast<const char*>(from) + r * stride, static_cast<std::size_t>(row_bytes_of(tile)));
}

template <int tile>
inline void store_tile(void* to, std::int64_t stride) {
  check_configured(tile);
  for (std::int64_t r = 0; r < rows_of(tile); ++r)
    std::memcpy(static_cast<char*>(to) + r * stride, tile_file.tiles[tile].data[r],
                static_cast<std::size_t>(row_bytes_of(tile)));
}

// sums [rows][columns] += a [rows][groups] * b [groups][columns].
inline void check_dot(int sums, int a, int b) {
  check_configured(sums);
  check_configured(a);
  check_configured(b);
  tile_check(sums != a && sums != b && a != b, "the three tiles of a product differ");
  tile_check(rows_of(sums) == rows_of(a), "rows of sums and of a");
  tile_check(row_bytes_of(sums) == row_bytes_of(b), "columns of sums and of b");
  tile_check(row_bytes_of(a) == rows_of(b) * 4, "groups of a and of b");
  tile_check(row_bytes_of(a) % 4 == 0 && row_bytes_of(b) % 4 == 0, "a tile row of a product is whole groups");
}

inline std::int32_t group_of(const Tile& tile, std::int64_t row, std::int64_t group) {
  std::int32_t value = 0;
  std::memcpy(&value, tile.data[row] + group * 4, sizeof value);
  return value;
}

// Within one instruction the even and the odd values of K are summed apart, from zero, with fused multiplications; then
// the two sums are added, and that to the tile. Whole rows of 16 columns at a time: what is beyond a tile's columns is
// zero and stays so.
[[gnu::noinline]] inline void multiply_bfloat16(Tile& sums, const Tile& a, const Tile& b, std::int64_t rows,
                                                std::int64_t groups) {
  const __m512i upper = _mm512_set1_epi32(static_cast<std::int32_t>(0xffff0000U));
  for (std::int64_t r = 0; r < rows; ++r) {
    __m512 even = _mm512_setzero_ps();
    __m512 odd = _mm512_setzero_ps();
    for (std::int64_t g = 0; g < groups; ++g) {
      const __m512i pair = _mm512_set1_epi32(group_of(a, r, g));
      const __m512i columns = b.row(g);
      even = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)),
                             _mm512_castsi512_ps(_mm512_slli_epi32(columns, 16)), even);
      odd = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(pair, upper)),
                            _mm512_castsi512_ps(_mm512_and_si512(columns, upper)), odd);
    }
    const __m512 total = _mm512_add_ps(_mm512_castsi512_ps(sums.row(r)), _mm512_add_ps(even, odd));
    sums.set_row(r, _mm512_castps_si512(total));
  }
}

template <int row, int column>
inline void dot_bfloat16() {
  constexpr int sums = 2 * row + column;
  check_dot(sums, 4 + row, 6 + column);
  // The instruction takes numbers below the normal ones as zero, makes none, and rounds to nearest even, whatever the
  // thread's settings are. (The arithmetic is a call apart, so that the compiler cannot move it over their change.)
  constexpr unsigned flush_and_nearest = 0x9fc0;
  const unsigned before = _mm_getcsr();
  _mm_setcsr(flush_and_nearest);
  multiply_bfloat16(tile_file.tiles[sums], tile_file.tiles[4 + row], tile_file.tiles[6 + column], rows_of(sums),
                    rows_of(6 + column));
  _mm_setcsr(before);
}

// In int32, wrapping around.
template <int row, int column>
inline void dot_int8() {
  constexpr int sums = 2 * row + column;
  check_dot(sums, 4 + row, 6 + column);
  Tile& to = tile_file.tiles[sums];
  for (std::int64_t r = 0; r < rows_of(sums); ++r) {
    __m512i total = to.row(r);
    for (std::int64_t g = 0; g < rows_of(6 + column); ++g)
      total = _mm512_dpbusd_epi32(total, _mm512_set1_epi32(group_of(tile_file.tiles[4 + row], r, g)),
                                  tile_file.tiles[6 + column].row(g));
    to.set_row(r, total);
  }
}

inline void memory_settled() {}

}  // namespace layertap::LAYERTAP_ISA
