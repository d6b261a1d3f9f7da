// Angles of rotary positions: what turns queries and keys by where they stand.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace layertap {

// Of places 0, 1, 2, ...: [places, D/2] each.
struct Angles {
  std::vector<float> cosines, sines;
  std::int64_t places = 0;
};

// One set of frequencies, and the angles of as many places as have been asked for.
class Rotary {
 public:
  // `frequencies` [D/2]: radians from a place to the next.
  explicit Rotary(std::vector<float> frequencies) : frequencies_(std::move(frequencies)) {}

  // Of at least so many places. They stay as they are while someone holds them. Any thread may ask.
  std::shared_ptr<const Angles> angles(std::int64_t places);

 private:
  std::vector<float> frequencies_;
  std::mutex lock_;
  std::shared_ptr<const Angles> made_;
};

}  // namespace layertap
