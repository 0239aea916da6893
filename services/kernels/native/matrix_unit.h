/* The processor's matrix unit (Intel AMX): the instructions that matrix_emulated.h has in plain C.
 *
 * Compilers may not know that loads read what a pointer leads to (GCC's intrinsics do not say so),
 * so all that was written is in memory before each. */

#ifndef MOESAIC_MATRIX_UNIT_H
#define MOESAIC_MATRIX_UNIT_H

#include <immintrin.h>
#include <stdint.h>

/* The registers are the processor's. */
struct unit {
    /* As LDTILECFG takes it. */
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t num_rows[16];
    } shapes;
};

#define SETTLED() __asm__ volatile("" ::: "memory")

/* For sums in registers 0 to 3, weights in 4 and 6, rows in 5 and 7. */
INLINE void unit_configure(struct unit *unit, int64_t num_outputs, int64_t num_rows) {
    memset(unit, 0, sizeof *unit);
    unit->shapes.palette = 1;
    for (int i = 0; i < 8; i++) {
        const int is_weights = i == 4 || i == 6, is_rows = i == 5 || i == 7;
        unit->shapes.num_rows[i] = (uint8_t)(is_rows ? 16 : num_outputs);
        unit->shapes.row_bytes[i] = (uint16_t)(is_weights ? 64 : num_rows * 4);
    }
    SETTLED();
    _tile_loadconfig(&unit->shapes);
}

/* The numbers of registers are constants. */
#define unit_zero(unit, number)                                                                    \
    do {                                                                                           \
        (void)(unit);                                                                              \
        _tile_zero(number);                                                                        \
    } while (0)
#define unit_load(unit, number, from, stride)                                                      \
    do {                                                                                           \
        (void)(unit);                                                                              \
        SETTLED();                                                                                 \
        _tile_loadd(number, from, stride);                                                         \
    } while (0)
#define unit_store(unit, number, to, stride)                                                       \
    do {                                                                                           \
        (void)(unit);                                                                              \
        _tile_stored(number, to, stride);                                                          \
        SETTLED();                                                                                 \
    } while (0)
#define unit_dot(unit, sums, left, right)                                                          \
    do {                                                                                           \
        (void)(unit);                                                                              \
        _tile_dpbf16ps(sums, left, right);                                                         \
    } while (0)
#define unit_release(unit) _tile_release()

#endif
