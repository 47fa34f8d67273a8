// out[r] = act(G x[r] + bias, U x[r] + bias) in one pass, of two matrices of one format and shape:
// one kernel a format.
#include "product.cuh"

#define GATED(HOW, NAME, F)                                                      \
    extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS)                \
        gated_##NAME(Product gate, Product up, Rounded x, int act, float *out) { \
        const Product both[2] = {gate, up};                                      \
        multiply<HOW, F>(both, x, act, out);                                     \
    }
#define NUMBERS(NAME, F) GATED(Numbers, NAME, F)
#define BLOCKS(NAME, F) GATED(Blocks, NAME, F)
#define SUPERS(NAME, F) GATED(Supers, NAME, F)
NUMBER_FORMATS(NUMBERS)
BLOCK_FORMATS(BLOCKS)
SUPER_FORMATS(SUPERS)
