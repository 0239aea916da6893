/* The kernels for x86 with AVX-512 and its matrix unit for bfloat16. */

#include "kernels.h"

#if defined(HAS_MATRIX_UNIT)

#define LEVEL amx_bf16
#define LANES 16
#define TARGET                                                                                     \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,amx-tile,amx-bf16")))
#define TILE_ROWS 4
#define HAS_BF16_DOT
#define MATRIX_UNIT "matrix_unit.h"

#include "level.h"

#endif
