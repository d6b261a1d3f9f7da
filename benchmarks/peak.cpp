// The processor's matrix peak: register-only loops of the widest multiply-add instruction for each precision.
// Usage: peak THREADS SECONDS; prints one line a precision: name, instruction, operations a second.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <immintrin.h>
#include <thread>
#include <vector>
#if defined(__AMX_TILE__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// Of this thread: what other processes take from it does not count.
double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

constexpr int kBlocks = 20000;  // blocks between two looks at the clock, which take half a microsecond

// The loop is written in the instruction itself, with each accumulator a variable: as intrinsics on an array,
// the compiler keeps the accumulators in memory, and the loop measures stores.
#define CHAIN_ZERO(i, Register) Register acc##i{};
#define CHAIN_STEP(i, mnemonic) asm volatile(mnemonic " %1, %2, %0" : "+v"(acc##i) : "v"(a), "v"(b));
#define TWELVE_CHAINS(DO, x) \
    DO(0, x) DO(1, x) DO(2, x) DO(3, x) DO(4, x) DO(5, x) DO(6, x) DO(7, x) DO(8, x) DO(9, x) DO(10, x) DO(11, x)
// Independent accumulators, enough to cover latency x ports: 12 are too few for VDPBF16PS on Zen 5 (8 % lower).
#if defined(__AVX512F__)
constexpr int kChains = 24;
#define EVERY_CHAIN(DO, x)                                                                                     \
    TWELVE_CHAINS(DO, x) DO(12, x) DO(13, x) DO(14, x) DO(15, x) DO(16, x) DO(17, x) DO(18, x) DO(19, x) DO(20, x) \
    DO(21, x) DO(22, x) DO(23, x)
#else
constexpr int kChains = 12;
#define EVERY_CHAIN(DO, x) TWELVE_CHAINS(DO, x)
#endif
#define REGISTER_LOOP(Register, mnemonic)          \
    Register a{}, b{};                             \
    EVERY_CHAIN(CHAIN_ZERO, Register)              \
    for (int i = 0; i < kBlocks; ++i) {            \
        EVERY_CHAIN(CHAIN_STEP, mnemonic)          \
    }

#if defined(__AVX512F__)
using Floats = __m512;
constexpr const char* kFloatInstruction = "AVX-512 FMA";
#elif defined(__FMA__)
using Floats = __m256;
constexpr const char* kFloatInstruction = "AVX2 FMA";
#else
#error "needs a processor with FMA"
#endif

double float32_block() {
    REGISTER_LOOP(Floats, "vfmadd231ps")
    return 2.0 * (sizeof(Floats) / 4) * kChains * kBlocks;
}

#if defined(__AMX_BF16__) && defined(__AMX_INT8__)
struct TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

void configure_tiles() {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
        config.bytes[tile] = 64;
        config.rows[tile] = 16;
    }
    _tile_loadconfig(&config);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
}

double bfloat16_block() {
    for (int i = 0; i < kBlocks; ++i) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    return 4.0 * (2.0 * 16 * 16 * 32) * kBlocks;
}

double int8_block() {
    for (int i = 0; i < kBlocks; ++i) {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    return 4.0 * (2.0 * 16 * 16 * 64) * kBlocks;
}
constexpr const char* kBfloat16Instruction = "AMX TDPBF16PS";
constexpr const char* kInt8Instruction = "AMX TDPBUSD";
#else
void configure_tiles() {}

#if defined(__AVX512BF16__)
double bfloat16_block() {
    REGISTER_LOOP(__m512i, "vdpbf16ps")
    return 2.0 * 32 * kChains * kBlocks;
}
constexpr const char* kBfloat16Instruction = "AVX-512 VDPBF16PS";
#else
constexpr const char* kBfloat16Instruction = nullptr;
double bfloat16_block() { return 0; }
#endif

#if defined(__AVX512VNNI__)
double int8_block() {
    REGISTER_LOOP(__m512i, "vpdpbusd")
    return 2.0 * 64 * kChains * kBlocks;
}
constexpr const char* kInt8Instruction = "AVX-512 VPDPBUSD";
#else
constexpr const char* kInt8Instruction = nullptr;
double int8_block() { return 0; }
#endif
#endif

void measure(const char* precision, const char* instruction, double (*block)(), int threads, double seconds) {
    if (instruction == nullptr) return;
    std::atomic<int> ready{0};
    std::vector<double> rates(threads);
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; ++t) {
        pool.emplace_back([&, t] {
            configure_tiles();
            ++ready;
            while (ready < threads) {}
            double operations = 0, elapsed = 0;
            const double start = processor_seconds();
            do {
                operations += block();
                elapsed = processor_seconds() - start;
            } while (elapsed < seconds);
            rates[t] = operations / elapsed;
        });
    }
    double total = 0;
    for (int t = 0; t < threads; ++t) {
        pool[t].join();
        total += rates[t];
    }
    std::printf("%s\t%s\t%.6g\n", precision, instruction, total);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const int threads = std::atoi(argv[1]);
    const double seconds = std::atof(argv[2]);
#if defined(__AMX_TILE__)
    constexpr int kArchReqXcompPerm = 0x1023, kTileData = 18;  // the kernel grants AMX state on request
    if (syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) != 0) return 3;
#endif
    measure("float32", kFloatInstruction, float32_block, threads, seconds);
    measure("bfloat16", kBfloat16Instruction, bfloat16_block, threads, seconds);
    measure("int8", kInt8Instruction, int8_block, threads, seconds);
}
