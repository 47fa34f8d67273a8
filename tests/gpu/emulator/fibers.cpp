// Threads of a block as fibers.  A fiber runs until it waits: for its warp, whose lanes then trade
// values at once, or for its block.  Variables:
//   EMULATOR_THREADS    host threads that share the blocks of a grid; 1 without it
//   EMULATOR_BACKWARDS  blocks, warps and lanes run from the last to the first, which shows kernels
//   that count on an order
//
// Before each block what its threads share is filled with patterns that are no number, so that what
// is read unwritten is seen.

#include "fibers.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <signal.h>
#include <sys/mman.h>
#include <thread>
#include <vector>

#include "switch.h"

// Where a host thread has the thread-local statics of a module.
extern "C" void *__tls_get_addr(size_t *module_and_offset);

namespace emulator {
namespace {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 256 << 10;

enum class State { Runs, AtWarp, AtBlock, Ended };

struct Fiber {
    Context context;
    State state;
    // Values that the lane brought, and from whom it takes: of this exchange and the one before,
    // which others may not have read yet.
    uint64_t values[2];
    unsigned from, exchanges;
};

struct Worker {
    Here here{};
    Context scheduler;
    std::vector<Fiber> fibers;
    char *stacks = nullptr;
    Fiber *now = nullptr;
    const Kernel *kernel = nullptr;
    const void *parameters = nullptr;

    ~Worker() {
        if (stacks) {
            munmap(stacks, fibers.size() * STACK);
        }
    }
};

Worker &worker() {
    static thread_local Worker worker;
    return worker;
}

bool backwards() {
    static const bool set = std::getenv("EMULATOR_BACKWARDS") != nullptr;
    return set;
}

void say(const char *what) {
    const Worker &w = worker();
    const Index &b = w.here.block, &t = w.here.thread;
    std::fprintf(stderr, "emulated device: %s: block %u,%u,%u, thread %u,%u,%u: %s\n",
                 w.kernel->name, b.x, b.y, b.z, t.x, t.y, t.z, what);
}

[[noreturn]] void fail(const char *what) {
    say(what);
    std::abort();
}

struct sigaction handled_before;

// Says where a kernel was when it touched what is not its; then whoever handled such faults before
// does.
void touched(int signal, siginfo_t *, void *) {
    if (worker().now) {
        say("it touches memory that is in no allocation");
    }
    sigaction(signal, &handled_before, nullptr);
}

void watch() {
    struct sigaction action{};
    action.sa_sigaction = touched;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &handled_before);
}

void wait(State state) {
    Worker &w = worker();
    w.now->state = state;
    change(w.now->context, w.scheduler);
}

void start() {
    Worker &w = worker();
    w.kernel->call(w.parameters);
    wait(State::Ended);
    __builtin_unreachable();
}

// Runs a fiber until it waits.
void resume(Worker &w, unsigned thread) {
    w.now = &w.fibers[thread];
    const Index &size = w.here.block_size;
    w.here.thread = {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
    w.here.lane = thread % WARP;
    w.now->state = State::Runs;
    change(w.scheduler, w.now->context);
}

// Runs a warp until all that have not ended wait for the block.
void run_warp(Worker &w, unsigned first, unsigned lanes) {
    for (;;) {
        unsigned at_warp = 0;
        for (unsigned i = 0; i < lanes; i++) {
            unsigned thread = first + (backwards() ? lanes - 1 - i : i);
            State state = w.fibers[thread].state;
            if (state == State::Runs || state == State::AtWarp) {
                resume(w, thread);
                at_warp += w.fibers[thread].state == State::AtWarp;
            }
        }
        if (at_warp == 0) {
            return;
        }
        if (at_warp != WARP) {
            fail("some lanes of a warp trade values, and others have ended or wait for the block");
        }
    }
}

void run_block(Worker &w, unsigned threads) {
    if (w.fibers.size() < threads) {
        if (w.stacks) {
            munmap(w.stacks, w.fibers.size() * STACK);
        }
        w.fibers.resize(threads);
        w.stacks = static_cast<char *>(mmap(nullptr, threads * STACK, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (w.stacks == MAP_FAILED) {
            fail("there is no memory for its stacks");
        }
    }
    for (unsigned i = 0; i < threads; i++) {
        w.fibers[i].state = State::Runs;
        w.fibers[i].exchanges = 0;
        prepare(w.fibers[i].context, w.stacks + i * STACK, STACK, start);
    }
    for (;;) {
        for (unsigned i = 0; i < threads; i += WARP) {
            unsigned first = backwards() ? (threads - 1) / WARP * WARP - i : i;
            run_warp(w, first, threads - first < WARP ? threads - first : WARP);
        }
        bool waits = false;
        for (unsigned i = 0; i < threads; i++) {
            if (w.fibers[i].state == State::AtBlock) {
                w.fibers[i].state = State::Runs;
                waits = true;
            }
        }
        if (!waits) {
            return;
        }
    }
}

} // namespace

extern "C" Here *emulator_here() { return &worker().here; }

extern "C" void emulator_block_barrier() { wait(State::AtBlock); }

extern "C" uint64_t emulator_warp_exchange(unsigned mask, uint64_t value, unsigned from) {
    if (mask != ~0u) {
        fail("the emulator trades values among whole warps alone");
    }
    Worker &w = worker();
    Fiber *lanes = w.now - w.here.lane;
    unsigned turn = w.now->exchanges++ % 2;
    w.now->values[turn] = value;
    wait(State::AtWarp);
    return lanes[from].values[turn];
}

void run(const Kernel &kernel, const void *parameters, Grid grid, Shared shared) {
    unsigned threads = grid.block.x * grid.block.y * grid.block.z;
    size_t blocks = size_t(grid.grid.x) * grid.grid.y * grid.grid.z;
    std::atomic<size_t> next{0};
    auto work = [&] {
        Worker &w = worker();
        w.kernel = &kernel;
        w.parameters = parameters;
        w.here.block_size = grid.block;
        w.here.grid_size = grid.grid;
        for (size_t i; (i = next++) < blocks;) {
            size_t b = backwards() ? blocks - 1 - i : i;
            w.here.block = {unsigned(b % grid.grid.x), unsigned(b / grid.grid.x % grid.grid.y),
                            unsigned(b / grid.grid.x / grid.grid.y)};
            if (shared.bytes > 0) {
                size_t start[2] = {shared.module, 0};
                std::memset(__tls_get_addr(start), 0xff, shared.bytes);
            }
            run_block(w, threads);
        }
        w.now = nullptr;
    };
    static std::once_flag watched;
    std::call_once(watched, watch);
    static const int most =
        std::getenv("EMULATOR_THREADS") ? std::atoi(std::getenv("EMULATOR_THREADS")) : 1;
    // A thread is not worth it for less.
    constexpr size_t ENOUGH = 1 << 13;
    std::vector<std::thread> others;
    for (int i = 1; i < most && blocks > 1 && blocks * threads >= ENOUGH; i++) {
        others.emplace_back(work);
    }
    work();
    for (std::thread &other : others) {
        other.join();
    }
}

} // namespace emulator
