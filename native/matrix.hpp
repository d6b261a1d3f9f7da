// The weights of a dense layer in the layout that products read.
#pragma once

#include <cstdint>
#include <vector>

#include "arena.hpp"
#include "kernels.hpp"

namespace layertap {

// One weight of a dense layer: [rows, columns] float32, row-major, and its bias [rows] or null.
struct Weight {
  const float* data;
  std::int64_t rows;
  std::int64_t columns;
  const float* bias;
};

// Several weights of the same inner size side by side, each beginning at a panel: their products run as one.
class Matrix {
 public:
  Matrix() = default;
  // Takes its memory from the arena.
  Matrix(const Kernels& kernels, Format format, const std::vector<Weight>& parts, Arena& arena);

  const PackedMatrix& packed() const { return packed_; }
  const float* bias() const { return bias_; }
  std::int64_t panels() const { return packed_.panels; }
  std::size_t bytes() const { return bytes_; }

 private:
  PackedMatrix packed_{};
  const float* bias_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace layertap
