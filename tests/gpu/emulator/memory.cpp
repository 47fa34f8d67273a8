#include "memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

namespace emulator {
namespace {

constexpr size_t PAGE = 4096, ALIGN = 256;
constexpr unsigned char UNWRITTEN = 0xff;

struct Allocation {
    char *map;
    size_t mapped, bytes;
};

std::map<void *, Allocation> &all() {
    static auto *all = new std::map<void *, Allocation>;
    return *all;
}
size_t used = 0;

size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

} // namespace

void *allocate(size_t bytes) {
    size_t whole = up(bytes, ALIGN), pages = up(whole, PAGE);
    if (used + whole > TOTAL) {
        return nullptr;
    }
    // A guard before and behind.
    size_t mapped = pages + 2 * PAGE;
    void *map =
        mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return nullptr;
    }
    char *start = static_cast<char *>(map);
    mprotect(start + PAGE, pages, PROT_READ | PROT_WRITE);
    std::memset(start + PAGE, UNWRITTEN, pages);
    void *at = start + PAGE + pages - whole;
    all()[at] = {start, mapped, bytes};
    used += whole;
    return at;
}

bool release(void *at) {
    auto found = all().find(at);
    if (found == all().end()) {
        return false;
    }
    Allocation a = found->second;
    auto *end = static_cast<unsigned char *>(at) + a.bytes;
    for (; end < reinterpret_cast<unsigned char *>(a.map + a.mapped - PAGE); end++) {
        if (*end != UNWRITTEN) {
            std::fprintf(stderr,
                         "emulated device: something wrote behind an allocation of %zu bytes\n",
                         a.bytes);
            std::abort();
        }
    }
    munmap(a.map, a.mapped);
    used -= up(a.bytes, ALIGN);
    all().erase(found);
    return true;
}

size_t allocated() { return used; }

} // namespace emulator
