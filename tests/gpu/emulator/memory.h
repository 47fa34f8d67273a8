// Memory of the emulated device: this machine's, so placed that what is touched outside an
// allocation is seen.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

// So many bytes, aligned to 256, filled with 0xff, which is no number as F32 and far out of range
// as an index.  Behind the last whole 256 lies a page that may not be touched.  Null if there is no
// memory left.
void *allocate(size_t bytes);
// Ends the program if what lies between the bytes and the guard was written.  Whether it was an
// allocation.
bool release(void *at);
size_t allocated();
// What the device claims to have.
constexpr size_t TOTAL = size_t(4) << 30;

} // namespace emulator
