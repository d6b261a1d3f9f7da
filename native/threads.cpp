#include "threads.hpp"

#include <pthread.h>

#include <memory>
#include <utility>

namespace layertap {

namespace {

void* run(void* given) {
  const std::unique_ptr<std::function<void()>> body(static_cast<std::function<void()>*>(given));
  (*body)();
  return nullptr;
}

}  // namespace

ThreadStarter::ThreadStarter() {
  const int own = sched_getcpu();
  if (own < 0 || own >= CPU_SETSIZE || sched_getaffinity(0, sizeof others_, &others_) != 0) return;
  CPU_CLR(static_cast<unsigned>(own), &others_);
  has_others_ = CPU_COUNT(&others_) > 0;
}

bool ThreadStarter::start(std::function<void()> body) const {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  if (has_others_) pthread_attr_setaffinity_np(&attributes, sizeof others_, &others_);
  auto given = std::make_unique<std::function<void()>>(std::move(body));
  pthread_t thread{};
  const bool is_started = pthread_create(&thread, &attributes, run, given.get()) == 0;
  if (is_started) given.release();
  pthread_attr_destroy(&attributes);
  return is_started;
}

}  // namespace layertap
