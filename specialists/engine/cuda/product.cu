// out[r] = W x[r] + bias: the products of `product.cuh`, one kernel a format.
#include "product.cuh"

#define PRODUCT(HOW, NAME, F)                                     \
    extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS) \
        product_##NAME(Product p, Rounded x, float *out) {        \
        const Product one[1] = {p};                               \
        multiply<HOW, F>(one, x, 0, out);                         \
    }
#define NUMBERS(NAME, F) PRODUCT(Numbers, NAME, F)
#define BLOCKS(NAME, F) PRODUCT(Blocks, NAME, F)
#define SUPERS(NAME, F) PRODUCT(Supers, NAME, F)
NUMBER_FORMATS(NUMBERS)
BLOCK_FORMATS(BLOCKS)
SUPER_FORMATS(SUPERS)
