/* The kernels for x86 with AVX2 and fused multiply-add. */

#if defined(__x86_64__)

#define LEVEL avx2
#define LANES 8
#define TARGET __attribute__((target("avx2,fma")))
#define TILE_ROWS 2

#include "level.h"

#endif
