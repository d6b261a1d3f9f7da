#include "arena.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace layertap {

void* Arena::take(std::size_t bytes) {
  constexpr std::size_t line = 64;
  constexpr std::size_t large_page = std::size_t{2} << 20;
  constexpr std::size_t piece = std::size_t{32} << 20;  // what is not used of it is never there
  // kernels prefetch and load whole vectors slightly beyond the end of their data
  constexpr std::size_t slack = 256;
  bytes = (bytes + line - 1) / line * line + slack;
  if (bytes > left_) {
    const std::size_t size = (std::max(bytes, piece) + large_page - 1) / large_page * large_page;
    pieces_.emplace_back(static_cast<char*>(std::aligned_alloc(large_page, size)));
    next_ = pieces_.back().get();
    if (next_ == nullptr) throw std::bad_alloc();
    left_ = size;
    // only advice: without large pages, small ones are used
    madvise(next_, size, MADV_HUGEPAGE);
  }
  char* taken = next_;
  next_ += bytes;
  left_ -= bytes;
  std::memset(taken, 0, bytes);
  return taken;
}

}  // namespace layertap
