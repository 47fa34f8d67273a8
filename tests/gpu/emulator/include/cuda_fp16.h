// F16 as kernels use it: stored, and turned into F32 and back, to the nearest.
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
    uint16_t bits;
};

inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline float __half2float(__half h) {
    _Float16 v;
    std::memcpy(&v, &h.bits, 2);
    return v;
}
inline __half __float2half_rn(float v) {
    _Float16 rounded = v;
    __half h;
    std::memcpy(&h.bits, &rounded, 2);
    return h;
}
