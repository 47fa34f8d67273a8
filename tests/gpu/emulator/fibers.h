// Runs grids of kernels: blocks one after the other on each of some host threads, threads of a
// block as fibers.
#pragma once

#include "include/runtime.h"

namespace emulator {

struct Grid {
    Index grid, block;
};

// The statics of kernels that blocks share: where a host thread has them.
struct Shared {
    size_t module, bytes;
};

// Ends the program, with the place, if threads of a warp or a block wait for what cannot come.
void run(const Kernel &kernel, const void *parameters, Grid grid, Shared shared);

} // namespace emulator
