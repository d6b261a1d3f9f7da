// Memory for weights, in a few large pieces that the system backs with large pages. A run reads all weights, more than the
// translation buffers cover with pages of 4 KiB: with those a short text took a third longer.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

namespace layertap {

class Arena {
 public:
  // Memory that is zeroed, aligned to cache lines and freed with the arena.
  void* take(std::size_t bytes);

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  std::vector<std::unique_ptr<char, Free>> pieces_;
  std::size_t left_ = 0;  // of the last piece
  char* next_ = nullptr;
};

}  // namespace layertap
