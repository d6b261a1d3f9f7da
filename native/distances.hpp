// Disentangled attention (He et al. 2021): vectors of distances, from which every block makes keys and queries that the
// queries and keys of tokens are multiplied with.
#pragma once

#include <cstdint>
#include <vector>

#include "arena.hpp"
#include "buffer.hpp"
#include "kernels.hpp"
#include "matrix.hpp"

namespace layertap {

// The column of each distance in the matrices of distances; columns ascend with the key's place minus the query's.
struct DistanceColumns {
  std::vector<std::int32_t> columns;
  std::int64_t longest = 0;  // tokens of the longest sequence whose distances are known

  const std::int32_t* of_zero() const { return columns.data() + longest + distances_beyond; }
};

// The keys or the queries that a block makes of distances: a matrix [columns, D] for each head.
using DistanceHeads = std::vector<Matrix>;

class Distances {
 public:
  // `vectors` [count, padded(H)], normalised where the model does so.
  Distances(Buffer vectors, std::int64_t count, std::int64_t hidden_size)
      : vectors_(std::move(vectors)), count_(count), hidden_size_(hidden_size) {}

  std::int64_t count() const { return count_; }
  // Columns of a matrix of distances. The first few belong to no distance: they put distance 0 into the middle of a
  // panel, so that short sequences need one panel only.
  std::int64_t columns() const { return first_column() + count_; }

  // The vectors through a dense layer [H, H], head by head. Computed in float32 by these kernels and not by a library,
  // whose bits would differ between machines. The memory of the matrices is the arena's.
  DistanceHeads project(const Kernels& kernels, Format format, const Weight& dense, std::int64_t num_heads,
                        Arena& arena) const;

  // The columns for sequences of up to `longest` tokens. `vectors`: the index of the vector of each distance (query's
  // place minus key's) from 1 - longest to longest - 1, ascending.
  DistanceColumns reach(const std::int32_t* vectors, std::int64_t longest) const;

 private:
  std::int64_t first_column() const;

  Buffer vectors_;
  std::int64_t count_, hidden_size_;
};

}  // namespace layertap
