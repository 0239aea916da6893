/* A library that plays the matrix unit for a process whose processor has none: its instructions are
 * illegal there, and a handler does what they would, by the emulation. And a comparison of two
 * levels. */

#define _GNU_SOURCE /* the registers' names */

#include <signal.h>
#include <ucontext.h>

#include "matrix_emulated.h"
#include "products.h"

static struct unit played;
int64_t num_played;

/* In the order in which instructions number them. */
static const int NAMES[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* An instruction with a prefix of three bytes (VEX) in the map 0F38. */
struct instruction {
    int kind, opcode, mod, reg, rm; /* `kind` is 0, 66, F3 or F2 */
    int source;
    const char *address;
    int64_t stride, length;
};

static int64_t value_of(const greg_t *registers, int number) { return registers[NAMES[number]]; }

/* What lies in memory: base, index and displacement. */
static void read_address(struct instruction *found, const unsigned char *code,
                         const greg_t *registers) {
    const int above_base = code[1] & 0x20 ? 0 : 8, above_index = code[1] & 0x40 ? 0 : 8;
    int64_t at = 5, base = 0, displacement = 0;
    int base_number = found->rm;
    if (found->rm == 4) {
        const int index = (code[at] >> 3 & 7) | above_index;
        if (index != 4) found->stride = value_of(registers, index) << (code[at] >> 6);
        base_number = code[at++] & 7;
    }
    const int is_bare = found->mod == 0 && base_number == 5;
    if (found->mod == 1) displacement = (signed char)code[at++];
    if (found->mod == 2 || is_bare) {
        int32_t wide;
        memcpy(&wide, code + at, sizeof wide);
        displacement = wide, at += 4;
    }
    if (is_bare)
        base = found->rm == 5 ? (int64_t)code + at : 0;
    else
        base = value_of(registers, base_number | above_base);
    found->address = (const char *)base + displacement;
    found->length = at;
}

/* Whether there is one that could be the unit's. */
static int read_instruction(struct instruction *found, const greg_t *registers) {
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    if (code[0] != 0xc4 || (code[1] & 31) != 2) return 0;
    *found = (struct instruction){
        .kind = (int[]){0, 0x66, 0xf3, 0xf2}[code[2] & 3],
        .opcode = code[3],
        .mod = code[4] >> 6,
        .reg = code[4] >> 3 & 7,
        .rm = code[4] & 7,
        .source = ~(code[2] >> 3) & 7,
        .length = 5,
    };
    if (found->mod != 3) read_address(found, code, registers);
    return 1;
}

/* The configuration as LDTILECFG reads it. */
static void configure(const char *from) {
    memset(&played, 0, sizeof played);
    for (int i = 0; i < UNIT_REGISTERS; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, from + 16 + 2 * i, 2);
        unit_shape(&played, i, (unsigned char)from[48 + i], row_bytes);
    }
}

/* Whether it was the unit's. */
static int play(const struct instruction *it) {
    const int is_memory = it->mod != 3;
    if (it->opcode == 0x49 && it->kind == 0 && is_memory)
        configure(it->address);
    else if (it->opcode == 0x49 && it->kind == 0)
        memset(&played, 0, sizeof played);
    else if (it->opcode == 0x49 && it->kind == 0xf2)
        unit_zero(&played, it->reg);
    else if (it->opcode == 0x4b && it->kind == 0xf2 && is_memory)
        unit_load(&played, it->reg, it->address, it->stride);
    else if (it->opcode == 0x4b && it->kind == 0xf3 && is_memory)
        unit_store(&played, it->reg, (char *)it->address, it->stride);
    else if (it->opcode == 0x5c && it->kind == 0xf3 && !is_memory)
        unit_dot(&played, it->reg, it->rm, it->source);
    else
        return 0;
    return 1;
}

static void on_illegal(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct instruction found;
    (void)info;
    if (!read_instruction(&found, registers) || !play(&found)) {
        signal(number, SIG_DFL); /* it is met again, and ends the process */
        return;
    }
    registers[REG_RIP] += found.length;
    num_played++;
}

/* From now on, in the whole process; one thread at a time may use the unit. */
void play_matrix_unit(void) {
    struct sigaction action = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
}

int has_avx512_bf16(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}

/* Of any exponent near a product's, so that sums cancel, round and lie halfway. */
static float addend(double product) {
    const int exponent = (int)below(80) - 50;
    const float size = (float)((1 + (double)next_random() * 0x1p-24) * exp2(exponent));
    const float near = (float)(product * (double)size);
    return below(2) ? near : -near;
}

/* By the processor's or the library's own sum of a product, scaled out of the range that is lost.
 */
static int is_rounded_once(float a, float b, float c) {
    const float got = unit_sum((double)a * (double)b, c);
    const float scaled = fmaf(a * 0x1p40f, b * 0x1p40f, c * 0x1p80f);
    const float expected = fabsf(scaled) < 0x1p-46f ? 0 : fmaf(a, b, c);
    return got == expected || (isnan(got) && isnan(expected));
}

/* How many of so many sums are off. Numbers are small, so that sums are near the least floats. */
int64_t count_wrong_sums(int64_t num_sums) {
    int64_t num_wrong = 0;
    for (int64_t i = 0; i < num_sums; i++) {
        const float a = ldexpf((float)(128 + below(128)), -(int)below(80) - 20);
        const float b = ldexpf((float)(128 + below(128)), -(int)below(40) - 20);
        float c = addend((double)a * (double)b);
        if (fabsf(c) < FLT_MIN) c = 0;
        num_wrong += !is_rounded_once(a, b, c);
    }
    return num_wrong;
}

static void multiply_but_one(const struct product *p) {
    level_amx_emulated.multiply(p);
    float number;
    memcpy(&number, p->out, sizeof number);
    number = nextafterf(number, INFINITY);
    memcpy(p->out, &number, sizeof number);
}

/* The last row's first result is far off. */
static void multiply_badly(const struct product *p) {
    level_amx_emulated.multiply(p);
    memset(p->out + (p->num_rows - 1) * p->out_stride, 64, sizeof(float));
}

/* Levels that compute wrongly: a bit of one number, and one number. */
const struct level level_off_by_a_bit = {.multiply = multiply_but_one};
const struct level level_off = {.multiply = multiply_badly};

/* Two results that are no numbers count as the same, whatever their bits. */
static int are_same(const char *one, const char *other, const struct product *p) {
    for (int64_t row = 0; row < p->num_rows; row++)
        for (int64_t i = 0; i < p->num_outputs; i++) {
            const int64_t at = row * p->out_stride + i * item_bytes(p->out_dtype);
            float a, b;
            widen_weights(&a, one + at, 1, p->out_dtype);
            widen_weights(&b, other + at, 1, p->out_dtype);
            if (memcmp(one + at, other + at, (size_t)item_bytes(p->out_dtype)) &&
                !(isnan(a) && isnan(b)))
                return 0;
        }
    return 1;
}

/* In how many of some products two levels differ. */
int64_t count_differences(const struct level *one, const struct level *other,
                          int64_t num_products) {
    int64_t index[64], num_different = 0;
    for (int64_t i = 0; i < num_products; i++) {
        const struct product product = random_product(index);
        char *first = multiplied(one, product), *second = multiplied(other, product);
        num_different += !are_same(first, second, &product);
        free(first);
        free(second);
        free_product(&product);
    }
    return num_different;
}
