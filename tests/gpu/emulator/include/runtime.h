// What compiled kernels and the driver share: where a thread is, how it waits for others, and how
// kernels are called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <tuple>
#include <utility>

namespace emulator {

struct Index {
    unsigned x, y, z;
};

// Where the thread that runs is.  One a host thread: its contents change, its address does not.
struct Here {
    Index thread, block, block_size, grid_size;
    unsigned lane;
};

#pragma GCC visibility push(default)
extern "C" {
// The address may be kept: a fiber stays on its host thread.
__attribute__((const)) Here *emulator_here();
// All threads of the block come here, or have ended.
void emulator_block_barrier();
// All 32 lanes bring a value and take that of lane `from`.
uint64_t emulator_warp_exchange(unsigned mask, uint64_t value, unsigned from);
}
#pragma GCC visibility pop

inline const Here &here() { return *emulator_here(); }
inline void block_barrier() { emulator_block_barrier(); }
inline uint64_t warp_exchange(unsigned mask, uint64_t value, unsigned from) {
    return emulator_warp_exchange(mask, value, from);
}

// How a kernel is called without its types.
struct Kernel {
    const char *name;
    // Bytes of its parameters, packed by `pack`.
    size_t bytes;
    void (*pack)(void *to, void **parameters);
    void (*call)(const void *packed);
};

template <auto F>
struct Trampoline;

template <class... A, void (*F)(A...)>
struct Trampoline<F> {
    using Packed = std::tuple<A...>;

    template <size_t... I>
    static void fill(Packed &to, void **from, std::index_sequence<I...>) {
        ((std::get<I>(to) = *static_cast<A *>(from[I])), ...);
    }
    static void pack(void *to, void **from) {
        fill(*new (to) Packed, from, std::index_sequence_for<A...>());
    }
    static void call(const void *packed) { std::apply(F, *static_cast<const Packed *>(packed)); }
    static constexpr Kernel kernel(const char *name) { return {name, sizeof(Packed), pack, call}; }
};

} // namespace emulator
