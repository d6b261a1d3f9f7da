// Disentangled attention (He et al. 2021): vectors of distances, of which every block makes keys and queries that the
// tokens' queries and keys meet.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "arena.hpp"
#include "buffer.hpp"
#include "kernels.hpp"
#include "matrix.hpp"

namespace layertap {

// Where in the matrices of distances that of each distance is: columns ascend with key's place minus query's.
struct DistanceColumns {
  std::vector<std::int32_t> columns;
  std::int64_t longest = 0;  // tokens of a sequence that they reach

  const std::int32_t* of_zero() const { return columns.data() + longest + distances_beyond; }
};

// The keys or the queries that a block makes of distances: a matrix [columns, D] a head.
using DistanceHeads = std::vector<Matrix>;

class Distances {
 public:
  // `vectors` [count, padded(H)], normed where they are.
  Distances(Buffer vectors, std::int64_t count, std::int64_t hidden_size)
      : vectors_(std::move(vectors)), count_(count), hidden_size_(hidden_size) {}

  std::int64_t count() const { return count_; }
  // Those of a matrix, beginning with some that no distance has: distance 0 is in the middle of a panel, so that short
  // sequences reach one panel only.
  std::int64_t columns() const { return first_column() + count_; }

  // The vectors through a dense layer [H, H], head by head. Computed in float32 by these kernels and not by a library:
  // its bits would be another machine's own. The matrices' memory is the arena's.
  DistanceHeads project(const Kernels& kernels, Format format, const Weight& dense, std::int64_t num_heads,
                        Arena& arena) const;

  // `vectors`: the vector of each distance, query's place minus key's, from 1 - longest to longest - 1; ascending. While
  // others run those before are kept.
  void reach(const std::int32_t* vectors, std::int64_t longest);
  std::shared_ptr<const DistanceColumns> reached() const;

 private:
  std::int64_t first_column() const;

  Buffer vectors_;
  std::int64_t count_, hidden_size_;
  mutable std::mutex lock_;
  std::shared_ptr<const DistanceColumns> reached_;
};

}  // namespace layertap
