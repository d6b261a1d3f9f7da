#include "machine.hpp"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "kernels.hpp"

namespace layertap {

#define LAYERTAP_DECLARE(isa)   \
  namespace isa {               \
  const Kernels& kernels();     \
  }
LAYERTAP_DECLARE(avx2)
LAYERTAP_DECLARE(avx512)
LAYERTAP_DECLARE(avx512_vnni)
LAYERTAP_DECLARE(avx512_bf16)
LAYERTAP_DECLARE(amx)
LAYERTAP_DECLARE(amx_emulated)
#undef LAYERTAP_DECLARE

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

// Which register states the operating system saves (XCR0).
std::uint64_t saved_states() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Linux gives a process the tile registers when it asks for them, once.
bool tiles_granted() {
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

std::vector<std::string> detected() {
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
  std::vector<std::string> found;
  if (amx) found.emplace_back("amx");
  if (bf16) found.emplace_back("avx512_bf16");
  if (vnni) found.emplace_back("avx512_vnni");
  if (avx512) found.emplace_back("avx512");
  if (avx2) found.emplace_back("avx2");
  if (bf16) found.emplace_back("amx_emulated");
  return found;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  static const std::vector<std::string> found = detected();
  return found;
}

const Kernels* kernels_of(const char* instruction_set) {
  const std::string name = instruction_set;
  for (const std::string& there : instruction_sets()) {
    if (there != name) continue;
    if (name == "amx") return &amx::kernels();
    if (name == "avx512_bf16") return &avx512_bf16::kernels();
    if (name == "avx512_vnni") return &avx512_vnni::kernels();
    if (name == "avx512") return &avx512::kernels();
    if (name == "avx2") return &avx2::kernels();
    return &amx_emulated::kernels();
  }
  return nullptr;
}

int available_threads() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return CPU_COUNT(&cores);
}

}  // namespace layertap
