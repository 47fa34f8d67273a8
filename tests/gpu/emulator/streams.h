// Streams of the emulated device.  What is asked of a stream runs only when somebody waits for it,
// so that a program that forgets to wait finds memory as it was before.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

namespace emulator {

using Operation = std::function<void()>;

struct Stream {
    std::deque<Operation> queue;
    // Operations that have run and that were asked for.
    size_t done = 0, asked = 0;
    // What is asked for goes there instead.
    std::vector<Operation> *captured = nullptr;

    void ask(Operation operation) {
        if (captured) {
            captured->push_back(std::move(operation));
            return;
        }
        queue.push_back(std::move(operation));
        asked++;
    }
    // Runs up to the operation with this number.
    void run(size_t until) {
        while (done < until) {
            Operation next = std::move(queue.front());
            queue.pop_front();
            done++;
            next();
        }
    }
};

// Where a stream was; nowhere before it is recorded.
struct Event {
    Stream *stream = nullptr;
    size_t at = 0;

    void wait() {
        if (stream) {
            stream->run(at);
        }
    }
    bool passed() const { return !stream || stream->done >= at; }
};

struct Graph {
    std::vector<Operation> operations;
};

} // namespace emulator
