/* The kernels for x86 with AVX-512. */

#if defined(__x86_64__)

#define LEVEL avx512
#define LANES 16
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define TILE_ROWS 4

#include "level.h"

#endif
