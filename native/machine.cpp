#include "machine.hpp"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <string_view>

#include "kernels.hpp"

namespace layertap {

#define LAYERTAP_SET(isa)   \
  namespace isa {           \
  const Kernels& kernels(); \
  }
#include "built_sets.inc"
#undef LAYERTAP_SET

namespace {

struct Registers {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
  return r;
}

bool bit(std::uint32_t value, int index) { return ((value >> index) & 1U) != 0; }

// The register states that the operating system saves (XCR0).
std::uint64_t saved_states() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Linux grants the tile registers to a process that asks for them; asking once is enough.
bool tiles_granted() {
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

// Whether processor and operating system have what each instruction set needs.
std::map<std::string, bool> detected() {
  const Registers base = cpuid(1, 0);
  if (!bit(base.c, 27)) return {};  // OSXSAVE: no xgetbv otherwise
  const std::uint64_t saved = saved_states();
  const Registers extended = cpuid(7, 0);
  const Registers more = cpuid(7, 1);
  constexpr std::uint64_t ymm = 0x6;
  constexpr std::uint64_t zmm = 0xe6;
  constexpr std::uint64_t tiles = 0x60000;
  const bool avx2 = bit(base.c, 12) && bit(base.c, 29) && bit(extended.b, 5) && (saved & ymm) == ymm;
  const bool avx512 = avx2 && bit(extended.b, 16) && bit(extended.b, 17) && bit(extended.b, 30) &&
                      bit(extended.b, 31) && (saved & zmm) == zmm;
  const bool vnni = avx512 && bit(extended.c, 11);
  const bool bf16 = vnni && bit(more.a, 5);
  const bool amx = bf16 && bit(extended.d, 22) && bit(extended.d, 24) && bit(extended.d, 25) &&
                   (saved & tiles) == tiles && tiles_granted();
  return {{"amx", amx}, {"avx512_bf16", bf16}, {"avx512_vnni", vnni}, {"avx512", avx512}, {"avx2", avx2}, {"amx_emulated", bf16}};
}

struct Set {
  const char* name;
  const Kernels& (*kernels)();
};

// Kernels that are built and that run here, best first.
const std::vector<Set>& available() {
  static const std::vector<Set> sets = [] {
    std::vector<Set> all = {
#define LAYERTAP_SET(isa) {#isa, isa::kernels},
#include "built_sets.inc"
#undef LAYERTAP_SET
    };
    std::map<std::string, bool> offered = detected();
    std::erase_if(all, [&](const Set& set) { return !offered[set.name]; });
    return all;
  }();
  return sets;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Set& set : available()) names.emplace_back(set.name);
  return names;
}

const Kernels* kernels_of(const char* instruction_set) {
  for (const Set& set : available())
    if (std::string_view(set.name) == instruction_set) return &set.kernels();
  return nullptr;
}

int available_threads() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return CPU_COUNT(&cores);
}

}  // namespace layertap
