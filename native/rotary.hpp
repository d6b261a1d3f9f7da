// Angles of rotary positions, by which queries and keys are rotated according to their places.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace layertap {

// Cosines and sines of the angles of places 0, 1, 2, ...: [places, D/2] each.
struct Angles {
  std::vector<float> cosines, sines;
  std::int64_t places = 0;
};

// One set of frequencies, and the angles of as many places as any run has asked for. Safe to use from several threads.
class Rotary {
 public:
  // `frequencies` [D/2]: radians from one place to the next.
  explicit Rotary(std::vector<float> frequencies) : frequencies_(std::move(frequencies)) {}

  // Angles of at least `places` places. They never change; a longer table replaces them for later callers.
  std::shared_ptr<const Angles> angles(std::int64_t places);

 private:
  std::vector<float> frequencies_;
  std::mutex lock_;
  std::shared_ptr<const Angles> made_;
};

}  // namespace layertap
