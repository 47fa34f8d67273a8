// One thread of control for another: the registers that a call keeps, and the stack.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

#if defined(__x86_64__)

struct Context {
    void *stack = nullptr;
};

extern "C" void emulator_switch(Context *from, const Context *to);
asm(R"(
    .text
    .globl emulator_switch
    .hidden emulator_switch
emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov (%rsi), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

// `start`, which never returns, is what the first switch there runs.
inline void prepare(Context &context, char *stack, size_t bytes, void (*start)()) {
    auto *top = reinterpret_cast<uintptr_t *>((reinterpret_cast<uintptr_t>(stack) + bytes) &
                                              ~uintptr_t(15));
    // Where `start` would return to, its address, six registers.
    *--top = 0;
    *--top = reinterpret_cast<uintptr_t>(start);
    for (int i = 0; i < 6; i++) {
        *--top = 0;
    }
    context.stack = top;
}
inline void change(Context &from, const Context &to) { emulator_switch(&from, &to); }

#else

} // namespace emulator
#include <ucontext.h>
namespace emulator {

struct Context {
    ucontext_t all;
};

inline void prepare(Context &context, char *stack, size_t bytes, void (*start)()) {
    getcontext(&context.all);
    context.all.uc_stack.ss_sp = stack;
    context.all.uc_stack.ss_size = bytes;
    context.all.uc_link = nullptr;
    makecontext(&context.all, start, 0);
}
inline void change(Context &from, const Context &to) { swapcontext(&from.all, &to.all); }

#endif

} // namespace emulator
