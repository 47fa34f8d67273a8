#include "device.h"
#include ""
extern "C" const emulator::Kernel emulator_kernels[] = {
{}};
