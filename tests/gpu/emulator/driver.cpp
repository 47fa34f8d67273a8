// The entry points of libcuda.so.1 that the engine calls, over memory and threads of this machine.
//
// Promised: what works here in order works on a device in order; work is put off for as long as a
// device may put it off. A device address is an address here.  Numbers of errors and attributes are
// those of cuda.h. Absent: speed, contexts of several devices, everything that the engine does not
// call.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <filesystem>
#include <link.h>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unistd.h>
#include <vector>

#include "fibers.h"
#include "memory.h"
#include "streams.h"

using emulator::Event, emulator::Graph, emulator::Kernel, emulator::Shared, emulator::Stream;

namespace {

enum Result {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_IMAGE = 200,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
};

struct Function {
    Kernel kernel;
    Shared shared;
};

struct Module {
    void *library;
    std::vector<Function> functions;
};

// One call at a time; all that follows is guarded by it.
std::recursive_mutex lock;
std::set<Stream *> streams;
// Host memory that copies may read later: where it begins, and its bytes.
std::map<char *, size_t> pinned;

using Guard = std::lock_guard<std::recursive_mutex>;

bool is_pinned(const void *at, size_t bytes) {
    auto *start = static_cast<char *>(const_cast<void *>(at));
    auto next = pinned.upper_bound(start);
    if (next == pinned.begin()) {
        return false;
    }
    auto &[first, length] = *std::prev(next);
    return start + bytes <= first + length;
}

void run_all() {
    for (Stream *stream : streams) {
        stream->run(stream->asked);
    }
}

// The thread-local statics of a library that was just loaded.
Shared shared_of(void *library) {
    struct link_map *map = nullptr;
    dlinfo(library, RTLD_DI_LINKMAP, &map);
    struct Search {
        ElfW(Addr) base;
        Shared found;
    } search{map->l_addr, {0, 0}};
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *data) {
            auto *search = static_cast<Search *>(data);
            for (int i = 0; info->dlpi_addr == search->base && i < info->dlpi_phnum; i++) {
                if (info->dlpi_phdr[i].p_type == PT_TLS) {
                    search->found = {info->dlpi_tls_modid, info->dlpi_phdr[i].p_memsz};
                }
            }
            return 0;
        },
        &search);
    return search.found;
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int

// EMULATOR_LACKS, so that programs can be tried with what they refuse: a device, a version, a
// capability.
static bool lacks(const char *what) {
    const char *named = std::getenv("EMULATOR_LACKS");
    return named && std::strcmp(named, what) == 0;
}

API cuInit(unsigned) { return lacks("device") ? NO_DEVICE : OK; }

API cuDriverGetVersion(int *version) {
    *version = lacks("version") ? 12040 : 13000;
    return OK;
}

API cuGetErrorName(int error, const char **name) {
    static const std::map<int, const char *> names = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
    };
    auto found = names.find(error);
    *name = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
    return OK;
}

API cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

API cuDeviceGetCount(int *count) {
    *count = 1;
    return OK;
}

API cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? OK : INVALID_VALUE;
}

API cuDeviceGetName(char *name, int length, int) {
    std::snprintf(name, length, "emulated device (no GPU)");
    return OK;
}

API cuDeviceGetAttribute(int *value, int attribute, int) {
    constexpr int PROCESSORS = 16, MAJOR = 75, MINOR = 76;
    switch (attribute) {
    case PROCESSORS: *value = 4; return OK;
    case MAJOR: *value = lacks("capability") ? 7 : 9; return OK;
    case MINOR: *value = 0; return OK;
    default: return INVALID_VALUE;
    }
}

API cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = emulator::TOTAL;
    return OK;
}

API cuDevicePrimaryCtxRetain(void **context, int) {
    static char one;
    *context = &one;
    return OK;
}

API cuDevicePrimaryCtxRelease_v2(int) { return OK; }
API cuCtxSetCurrent(void *) { return OK; }

API cuMemGetInfo_v2(size_t *free, size_t *total) {
    Guard guard(lock);
    *free = emulator::TOTAL - emulator::allocated();
    *total = emulator::TOTAL;
    return OK;
}

API cuMemAlloc_v2(void **at, size_t bytes) {
    Guard guard(lock);
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    *at = emulator::allocate(bytes);
    return *at ? OK : OUT_OF_MEMORY;
}

API cuMemFree_v2(void *at) {
    Guard guard(lock);
    run_all();
    return emulator::release(at) ? OK : INVALID_VALUE;
}

API cuMemHostAlloc(void **at, size_t bytes, unsigned) {
    Guard guard(lock);
    auto *memory = static_cast<char *>(std::malloc(bytes));
    if (!memory) {
        return OUT_OF_MEMORY;
    }
    std::memset(memory, 0xff, bytes);
    pinned[memory] = bytes;
    *at = memory;
    return OK;
}

API cuMemFreeHost(void *at) {
    Guard guard(lock);
    run_all();
    if (!pinned.erase(static_cast<char *>(at))) {
        return INVALID_VALUE;
    }
    std::free(at);
    return OK;
}

API cuStreamCreateWithPriority(Stream **stream, unsigned, int) {
    Guard guard(lock);
    *stream = new Stream;
    streams.insert(*stream);
    return OK;
}

API cuStreamDestroy_v2(Stream *stream) {
    Guard guard(lock);
    // Events may still point to it: it is kept, and has nothing left to do.
    stream->run(stream->asked);
    return OK;
}

API cuStreamSynchronize(Stream *stream) {
    Guard guard(lock);
    if (stream->captured) {
        return CAPTURE_UNSUPPORTED;
    }
    stream->run(stream->asked);
    return OK;
}

API cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
    Guard guard(lock);
    if (stream->captured) {
        return CAPTURE_UNSUPPORTED;
    }
    stream->ask([event = *event]() mutable { event.wait(); });
    return OK;
}

API cuEventCreate(Event **event, unsigned) {
    *event = new Event;
    return OK;
}

API cuEventDestroy_v2(Event *event) {
    Guard guard(lock);
    delete event;
    return OK;
}

API cuEventRecord(Event *event, Stream *stream) {
    Guard guard(lock);
    if (stream->captured) {
        return CAPTURE_UNSUPPORTED;
    }
    *event = {stream, stream->asked};
    return OK;
}

API cuEventSynchronize(Event *event) {
    Guard guard(lock);
    event->wait();
    return OK;
}

API cuEventQuery(Event *event) {
    Guard guard(lock);
    return event->passed() ? OK : NOT_READY;
}

API cuEventElapsedTime_v2(float *milliseconds, Event *, Event *) {
    *milliseconds = 0;
    return OK;
}

API cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    Guard guard(lock);
    if (is_pinned(from, bytes)) {
        stream->ask([=] { std::memcpy(to, from, bytes); });
        return OK;
    }
    // Other memory may change once the call returns.
    auto *start = static_cast<const char *>(from);
    stream->ask([to, copy = std::vector<char>(start, start + bytes)] {
        std::memcpy(to, copy.data(), copy.size());
    });
    return OK;
}

API cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    Guard guard(lock);
    stream->ask([=] { std::memcpy(to, from, bytes); });
    if (!is_pinned(to, bytes) && !stream->captured) {
        stream->run(stream->asked);
    }
    return OK;
}

API cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, Stream *stream) {
    Guard guard(lock);
    stream->ask([=] { std::memmove(to, from, bytes); });
    return OK;
}

API cuMemsetD8Async(void *at, unsigned char value, size_t bytes, Stream *stream) {
    Guard guard(lock);
    stream->ask([=] { std::memset(at, value, bytes); });
    return OK;
}

// An image is what the emulator's nvcc wrote: a library, which ends with the table of its sections.
API cuModuleLoadData(Module **module, const void *image) {
    Guard guard(lock);
    auto *header = static_cast<const ElfW(Ehdr) *>(image);
    if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) {
        return INVALID_IMAGE;
    }
    size_t bytes = header->e_shoff + size_t(header->e_shnum) * header->e_shentsize;
    // Under a name of its own: a library that could not be unloaded is found again by its name.
    std::string path = std::filesystem::temp_directory_path() / "kernels-XXXXXX";
    int file = mkstemp(path.data());
    bool written = file >= 0 && write(file, image, bytes) == ssize_t(bytes);
    void *library = written ? dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (file >= 0) {
        unlink(path.c_str());
        close(file);
    }
    if (!library) {
        std::fprintf(stderr, "emulated device: %s\n",
                     written ? dlerror() : "there is no room for a module among temporary files");
        return INVALID_IMAGE;
    }
    auto *made = new Module{library, {}};
    auto *kernel = static_cast<const Kernel *>(dlsym(library, "emulator_kernels"));
    for (; kernel && kernel->name; kernel++) {
        made->functions.push_back({*kernel, shared_of(library)});
    }
    *module = made;
    return OK;
}

API cuModuleUnload(Module *module) {
    Guard guard(lock);
    run_all();
    dlclose(module->library);
    delete module;
    return OK;
}

API cuModuleGetFunctionCount(unsigned *count, Module *module) {
    *count = module->functions.size();
    return OK;
}

API cuModuleEnumerateFunctions(Function **functions, unsigned count, Module *module) {
    for (unsigned i = 0; i < count; i++) {
        functions[i] = &module->functions[i];
    }
    return OK;
}

API cuFuncGetName(const char **name, Function *function) {
    *name = function->kernel.name;
    return OK;
}

API cuFuncLoad(Function *) { return OK; }

API cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned, Stream *stream, void **parameters, void **) {
    Guard guard(lock);
    // The limits of every device that the kernels are compiled for.
    bool fits =
        gx && gy && gz && bx && by && bz && gy <= 65535 && gz <= 65535 && bx * by * bz <= 1024;
    if (!fits) {
        return INVALID_VALUE;
    }
    struct Aligned {
        alignas(16) char bytes[16];
    };
    std::vector<Aligned> packed(function->kernel.bytes / sizeof(Aligned) + 1);
    function->kernel.pack(packed.data(), parameters);
    emulator::Grid grid{{gx, gy, gz}, {bx, by, bz}};
    stream->ask([function, grid, packed = std::move(packed)] {
        emulator::run(function->kernel, packed.data(), grid, function->shared);
    });
    return OK;
}

API cuStreamBeginCapture_v2(Stream *stream, int) {
    Guard guard(lock);
    stream->captured = new std::vector<emulator::Operation>;
    return OK;
}

API cuStreamEndCapture(Stream *stream, Graph **graph) {
    Guard guard(lock);
    *graph = new Graph{std::move(*stream->captured)};
    delete stream->captured;
    stream->captured = nullptr;
    return OK;
}

API cuGraphInstantiateWithFlags(Graph **runnable, Graph *graph, unsigned long long) {
    Guard guard(lock);
    *runnable = new Graph(*graph);
    return OK;
}

API cuGraphLaunch(Graph *graph, Stream *stream) {
    Guard guard(lock);
    for (auto &operation : graph->operations) {
        stream->ask(operation);
    }
    return OK;
}

API cuGraphDestroy(Graph *graph) {
    Guard guard(lock);
    run_all();
    delete graph;
    return OK;
}

API cuGraphExecDestroy(Graph *graph) { return cuGraphDestroy(graph); }
