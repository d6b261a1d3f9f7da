// Threads that nobody waits for.
#pragma once

#include <sched.h>

#include <functional>

namespace layertap {

// Starts threads on other processors than the one that it was made on, where the process may use others. Left to the
// system, some begin on that one and come to run when its time slice ends, milliseconds later.
class ThreadStarter {
 public:
  ThreadStarter();
  // Whether the process may start one more.
  bool start(std::function<void()> body) const;

 private:
  cpu_set_t others_;
  bool has_others_ = false;
};

}  // namespace layertap
