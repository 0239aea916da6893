/* Whether the processor has a matrix unit, the system lends it, and it computes what it should. */

#define _GNU_SOURCE /* syscall */

#include "matrix_check.h"

#include <math.h>

#if defined(HAS_MATRIX_UNIT)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Of no size that registers have. The second half of the rows is the first once more. */
#define HALF_ROWS 19
#define NUM_ROWS (2 * HALF_ROWS)
#define NUM_OUTPUTS 21
#define WIDTH 333

/* What float32 sums may differ by in another order, of the sum of what is added without signs. */
#define ORDER_TOLERANCE 1e-5f

struct sample {
    uint16_t rows[NUM_ROWS][WIDTH], weights[NUM_OUTPUTS][WIDTH];
};

typedef float results[NUM_ROWS][NUM_OUTPUTS];

static uint16_t to_bfloat16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* A whole number from -8 to 8, or such a one divided by a power of two of its own: always the same
 * ones. */
static uint16_t drawn(uint32_t *state, int is_whole) {
    *state = *state * 1664525u + 1013904223u;
    const int number = (int)(*state >> 16) % 17 - 8, power = (int)(*state >> 24) % 8;
    return to_bfloat16(is_whole ? (float)number : (float)(number * 15 + 1) / (float)(1 << power));
}

static void fill(struct sample *sample, int is_whole) {
    uint32_t state = 1;
    for (int input = 0; input < WIDTH; input++) {
        for (int row = 0; row < HALF_ROWS; row++)
            sample->rows[row][input] = sample->rows[HALF_ROWS + row][input] =
                drawn(&state, is_whole);
        for (int output = 0; output < NUM_OUTPUTS; output++)
            sample->weights[output][input] = drawn(&state, is_whole);
    }
}

static void multiply_sample(const struct level *level, const struct sample *sample, results out) {
    const struct product product = {
        .rows = (const char *)sample->rows,
        .row_stride = WIDTH * 2,
        .weight = (const char *)sample->weights,
        .weight_stride = WIDTH * 2,
        .out = (char *)out,
        .out_stride = NUM_OUTPUTS * sizeof(float),
        .num_rows = NUM_ROWS,
        .num_outputs = NUM_OUTPUTS,
        .width = WIDTH,
        .dtype = BFLOAT16,
        .out_dtype = FLOAT32,
    };
    level->multiply(&product);
}

static float size_of(uint16_t number) {
    float size;
    widen_weights(&size, (const char *)&number, 1, BFLOAT16);
    return fabsf(size);
}

/* Without signs. */
static float size_of_terms(const struct sample *sample, int row, int output) {
    float sum = 0;
    for (int input = 0; input < WIDTH; input++)
        sum += size_of(sample->rows[row][input]) * size_of(sample->weights[output][input]);
    return sum;
}

static int are_near(const struct sample *sample, results got, results emulated) {
    for (int row = 0; row < NUM_ROWS; row++)
        for (int output = 0; output < NUM_OUTPUTS; output++) {
            const float off = fabsf(got[row][output] - emulated[row][output]);
            if (!(off <= ORDER_TOLERANCE * size_of_terms(sample, row, output))) return 0;
        }
    return !memcmp(got, got + HALF_ROWS, sizeof(results) / 2);
}

int computes_as_emulated(const struct level *level) {
    struct sample sample;
    results got, emulated;
    fill(&sample, 1);
    multiply_sample(level, &sample, got);
    multiply_sample(&level_amx_emulated, &sample, emulated);
    if (memcmp(got, emulated, sizeof got)) return 0;
    fill(&sample, 0);
    multiply_sample(level, &sample, got);
    multiply_sample(&level_amx_emulated, &sample, emulated);
    return are_near(&sample, got, emulated);
}

#if defined(HAS_MATRIX_UNIT)

/* Of leaf 7, in EDX. */
#define MATRIX_BFLOAT16 (1u << 22)
#define MATRIX_TILES (1u << 24)
/* Of leaf 1, in ECX: XGETBV may be asked what the system keeps for each thread. */
#define STATES_ARE_KEPT (1u << 27)
/* Configuration and data of the unit. */
#define MATRIX_STATES (3u << 17)
/* Of arch_prctl, since Linux 5.16; and the state that is large enough to be asked for. */
#define ASK_FOR_STATE 0x1023
#define MATRIX_DATA 18

static int has_unit(void) {
    unsigned a, b, c, d, states, upper;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & STATES_ARE_KEPT)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (!(d & MATRIX_BFLOAT16) || !(d & MATRIX_TILES)) return 0;
    __asm__ volatile("xgetbv" : "=a"(states), "=d"(upper) : "c"(0));
    return (states & MATRIX_STATES) == MATRIX_STATES;
}

static enum unit_state look(void) {
    if (!has_unit()) return UNIT_ABSENT;
    if (syscall(SYS_arch_prctl, ASK_FOR_STATE, MATRIX_DATA)) return UNIT_REFUSED;
    return computes_as_emulated(&level_amx_bf16) ? UNIT_USABLE : UNIT_WRONG;
}

enum unit_state find_matrix_unit(void) {
    static enum unit_state found;
    static int has_looked;
    if (!has_looked) found = look();
    has_looked = 1;
    return found;
}

#else

enum unit_state find_matrix_unit(void) { return UNIT_ABSENT; }

#endif
