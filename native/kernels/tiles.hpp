// The tile registers of AMX: eight of 16 rows x 64 bytes, all in use at that size. Their roles are fixed, a block of
// 2 x 2 tiles of sums: tiles 0 to 3 hold the sums (row tile r and column tile c in 2 r + c), 4 and 5 the rows of
// activations, 6 and 7 the columns of weights.
//
// A product of tiles: sums[16 rows][16 columns] += a[16 rows][16 groups] * b[16 groups][16 columns], where a group is 32
// bits of K (2 bfloat16 or 4 int8).
//
// Tiles belong to the kernel that configured them and to nobody it calls: the calling convention lets any function
// change them, but none does that has no tile instructions itself, and the compiler makes none of its own accord. So the
// functions of these kernels may be called while tiles are in use, and nothing else.
#pragma once

#include "simd.hpp"

namespace layertap::LAYERTAP_ISA {

constexpr std::int64_t tile_rows = 16;
constexpr std::int64_t tile_columns = 16;                  // of sums, and of a tile of weights
constexpr std::int64_t tile_groups = 16;                   // along K
constexpr std::int64_t tile_row_bytes = 64;                // of any tile
constexpr std::int64_t tile_bytes = tile_rows * tile_row_bytes;

// What LDTILECFG reads.
struct alignas(64) TileConfiguration {
  std::uint8_t palette;
  std::uint8_t start_row;
  std::uint8_t reserved[14];
  std::uint16_t row_bytes[16];  // palette 1 has eight tiles, the others stay zero
  std::uint8_t rows[16];
};

constexpr TileConfiguration whole_tiles = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

}  // namespace layertap::LAYERTAP_ISA

#if defined(LAYERTAP_TILES_EMULATED)
#include "tiles_emulated.hpp"
#else

namespace layertap::LAYERTAP_ISA {

// The numbers of tiles are part of the instructions and, with gcc, of the text of a macro: hence the ladders.
#define LAYERTAP_LADDER(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

inline void configure_tiles() { _tile_loadconfig(&whole_tiles); }
inline void release_tiles() { _tile_release(); }

template <int tile>
inline void zero_tile() {
#define LAYERTAP_STEP(t) \
  if constexpr (tile == t) _tile_zero(t);
  LAYERTAP_LADDER(LAYERTAP_STEP)
#undef LAYERTAP_STEP
}

// Rows `stride` bytes apart.
template <int tile>
inline void load_tile(const void* from, std::int64_t stride) {
#define LAYERTAP_STEP(t) \
  if constexpr (tile == t) _tile_loadd(t, from, stride);
  LAYERTAP_LADDER(LAYERTAP_STEP)
#undef LAYERTAP_STEP
}

template <int tile>
inline void store_tile(void* to, std::int64_t stride) {
#define LAYERTAP_STEP(t) \
  if constexpr (tile == t) _tile_stored(t, to, stride);
  LAYERTAP_LADDER(LAYERTAP_STEP)
#undef LAYERTAP_STEP
}

#undef LAYERTAP_LADDER

template <int row, int column>
inline void dot_bfloat16() {
  if constexpr (row == 0 && column == 0) _tile_dpbf16ps(0, 4, 6);
  if constexpr (row == 0 && column == 1) _tile_dpbf16ps(1, 4, 7);
  if constexpr (row == 1 && column == 0) _tile_dpbf16ps(2, 5, 6);
  if constexpr (row == 1 && column == 1) _tile_dpbf16ps(3, 5, 7);
}

// Activations uint8, weights int8, sums int32.
template <int row, int column>
inline void dot_int8() {
  if constexpr (row == 0 && column == 0) _tile_dpbusd(0, 4, 6);
  if constexpr (row == 0 && column == 1) _tile_dpbusd(1, 4, 7);
  if constexpr (row == 1 && column == 0) _tile_dpbusd(2, 5, 6);
  if constexpr (row == 1 && column == 1) _tile_dpbusd(3, 5, 7);
}

// gcc's intrinsic for loading a tile does not say that it reads memory: stores before this line stay before the loads
// after it.
inline void memory_settled() { __asm__ volatile("" ::: "memory"); }

}  // namespace layertap::LAYERTAP_ISA

#endif
