// Memory for weights, in few large pieces that the system backs with large pages. A run reads weights from end to end,
// more than the processor's table of pages covers: with pages of 4 KiB a short text took a third longer.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <vector>

namespace layertap {

class Arena {
 public:
  // Zeroed and aligned to cache lines; it stays until the arena goes.
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
