#include "rotary.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace layertap {

std::shared_ptr<const Angles> Rotary::angles(std::int64_t places) {
  constexpr std::int64_t least = 512;
  const std::lock_guard guard(lock_);
  if (made_ != nullptr && made_->places >= places) return made_;
  auto more = std::make_shared<Angles>();
  more->places = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(std::max(places, least))));
  more->cosines.reserve(static_cast<std::size_t>(more->places) * frequencies_.size());
  more->sines.reserve(more->cosines.capacity());
  for (std::int64_t place = 0; place < more->places; ++place) {
    for (const float frequency : frequencies_) {
      // rounded to float32 as in training: at distant places this rounding outweighs all others
      const float angle = static_cast<float>(place) * frequency;
      more->cosines.push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
      more->sines.push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  made_ = std::move(more);
  return made_;
}

}  // namespace layertap
