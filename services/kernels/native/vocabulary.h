/* Passes over one row of a vocabulary's logits, from which draws are made. */

#define HALF_LANES (LANES / 2)

typedef double doubles __attribute__((vector_size(REGISTER_BYTES)));
typedef uint64_t double_words __attribute__((vector_size(REGISTER_BYTES)));
typedef float half_vector __attribute__((vector_size(REGISTER_BYTES / 2)));
typedef int32_t integers __attribute__((vector_size(REGISTER_BYTES)));

INLINE vector larger(vector a, vector b) {
#if LANES == 16
    return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return either((words)(a > b), a, b);
#endif
}

INLINE doubles multiply_add_doubles(doubles a, doubles b, doubles c) {
#if LANES == 16
    return (doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif LANES == 8
    return (doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return a * b + c;
#endif
}

INLINE doubles every_double(double value) { return value - (doubles){0}; }

/* e to the power of numbers of at most 0, to 1e-12 of each; 0 far below.
 *
 * As `exponential` does it: 2^n times a polynomial, here Taylor's, of what remains. */
INLINE doubles exponential_doubles(doubles x) {
    const doubles shift = every_double(6755399441055744.0); /* 1.5 * 2^52 */
    const double_words is_low = (double_words)(x < -700.0);
    x = (doubles)(((double_words)x & ~is_low) | ((double_words)every_double(-700.0) & is_low));
    const doubles shifted = multiply_add_doubles(x, every_double(1.4426950408889634), shift);
    const doubles power = shifted - shift;
    doubles rest = multiply_add_doubles(power, every_double(-0.6931471805599453), x);
    doubles sum = every_double(1.0 / 3628800.0);
    sum = multiply_add_doubles(sum, rest, every_double(1.0 / 362880.0));
    sum = multiply_add_doubles(sum, rest, every_double(1.0 / 40320.0));
    sum = multiply_add_doubles(sum, rest, every_double(1.0 / 5040.0));
    sum = multiply_add_doubles(sum, rest, every_double(1.0 / 720.0));
    sum = multiply_add_doubles(sum, rest, every_double(1.0 / 120.0));
    sum = multiply_add_doubles(sum, rest, every_double(1.0 / 24.0));
    sum = multiply_add_doubles(sum, rest, every_double(1.0 / 6.0));
    sum = multiply_add_doubles(sum, rest, every_double(0.5));
    sum = multiply_add_doubles(sum, rest, every_double(1.0));
    sum = multiply_add_doubles(sum, rest, every_double(1.0));
    const doubles scale = (doubles)(((double_words)shifted + 1023u) << 52);
    return (doubles)((double_words)(sum * scale) & ~is_low);
}

/* The block that begins at `start`: in the row, or in `room` with -inf after its end. */
INLINE const float *block_at(const struct vocabulary *row, int64_t start, float *room) {
    const int64_t left = row->width - start;
    if (left >= VOCABULARY_BLOCK) return row->logits + start;
    for (int64_t i = 0; i < VOCABULARY_BLOCK; i++)
        room[i] = i < left ? row->logits[start + i] : -__builtin_inff();
    return room;
}

INLINE float highest_lane(vector values) {
    float highest = values[0];
    for (int lane = 1; lane < LANES; lane++)
        highest = values[lane] > highest ? values[lane] : highest;
    return highest;
}

TARGET static void survey(struct vocabulary *row) {
    float room[VOCABULARY_BLOCK];
    const vector none = every(-__builtin_inff());
    vector highest = none, highest_negated = none;
    for (int64_t start = 0; start < row->width; start += VOCABULARY_BLOCK) {
        const float *const block = block_at(row, start, room);
        vector of_block = none;
        for (int64_t i = 0; i < VOCABULARY_BLOCK; i += LANES) {
            const vector values = load_floats(block + i);
            of_block = larger(of_block, values);
            const vector negated = either((words)(values > none), -values, none);
            highest_negated = larger(highest_negated, negated);
        }
        row->highest_of[start / VOCABULARY_BLOCK] = highest_lane(of_block);
        highest = larger(highest, of_block);
    }
    row->highest = highest_lane(highest);
    row->lowest = -highest_lane(highest_negated);
}

/* The bins of a register of logits. The same expression tells a logit's bin everywhere: it grows
 * as the logit falls, however it is rounded. */
INLINE integers bins_of(const struct vocabulary *row, vector logits) {
    const vector most = every((float)VOCABULARY_BINS);
    const vector place = (every(row->highest) - logits) * every(row->bins_per_logit);
    return __builtin_convertvector(either((words)(place < most), place, most), integers);
}

INLINE int bin_of(const struct vocabulary *row, float logit) {
    const float place = (row->highest - logit) * row->bins_per_logit;
    return place < (float)VOCABULARY_BINS ? (int)place : VOCABULARY_BINS;
}

/* The shares of a block's logits, beside the highest of the row, which has 1. */
INLINE void shares_of(const struct vocabulary *row, const float *block, double *shares) {
    const doubles highest = every_double(row->highest), inverse = every_double(row->inverse);
    for (int64_t i = 0; i < VOCABULARY_BLOCK; i += HALF_LANES) {
        half_vector logits;
        memcpy(&logits, block + i, sizeof logits);
        const doubles below = __builtin_convertvector(logits, doubles) - highest;
        const doubles share = exponential_doubles(below * inverse);
        memcpy(shares + i, &share, sizeof share);
    }
}

TARGET static void tally(const struct vocabulary *row, double *sums) {
    /* Neighbours have sums of their own: additions to one do not wait for each other. */
    double own[4][VOCABULARY_BINS + 1] = {{0}};
    float room[VOCABULARY_BLOCK];
    for (int64_t start = 0; start < row->width; start += VOCABULARY_BLOCK) {
        if (bin_of(row, row->highest_of[start / VOCABULARY_BLOCK]) == VOCABULARY_BINS) continue;
        const float *const block = block_at(row, start, room);
        double shares[VOCABULARY_BLOCK];
        int32_t bins[VOCABULARY_BLOCK];
        shares_of(row, block, shares);
        for (int64_t i = 0; i < VOCABULARY_BLOCK; i += LANES) {
            const integers some = bins_of(row, load_floats(block + i));
            memcpy(bins + i, &some, sizeof some);
        }
        for (int64_t i = 0; i < VOCABULARY_BLOCK; i += 4)
            for (int lane = 0; lane < 4; lane++) own[lane][bins[i + lane]] += shares[i + lane];
    }
    for (int bin = 0; bin < VOCABULARY_BINS; bin++)
        sums[bin] = own[0][bin] + own[1][bin] + own[2][bin] + own[3][bin];
}

TARGET static int64_t pick(const struct vocabulary *row, int bin, int32_t *tokens) {
    float room[VOCABULARY_BLOCK];
    int64_t count = 0;
    for (int64_t start = 0; start < row->width; start += VOCABULARY_BLOCK) {
        if (bin_of(row, row->highest_of[start / VOCABULARY_BLOCK]) > bin) continue;
        const float *const block = block_at(row, start, room);
        integers found = {0};
        for (int64_t i = 0; i < VOCABULARY_BLOCK; i += LANES)
            found |= bins_of(row, load_floats(block + i)) == bin;
        int any = 0;
        for (int lane = 0; lane < LANES; lane++) any |= found[lane];
        for (int64_t i = 0; any && i < VOCABULARY_BLOCK; i++) {
            tokens[count] = (int32_t)(start + i); /* or overwritten */
            count += bin_of(row, block[i]) == bin;
        }
    }
    return count;
}

TARGET static double sum_of_at_least(const struct vocabulary *row, double low, double high) {
    float room[VOCABULARY_BLOCK];
    doubles total = {0};
    double_words is_doubtful = {0};
    for (int64_t start = 0; start < row->width; start += VOCABULARY_BLOCK) {
        if (row->highest_of[start / VOCABULARY_BLOCK] < row->least) continue;
        double shares[VOCABULARY_BLOCK];
        shares_of(row, block_at(row, start, room), shares);
        for (int64_t i = 0; i < VOCABULARY_BLOCK; i += HALF_LANES) {
            doubles share;
            memcpy(&share, shares + i, sizeof share);
            const double_words is_kept = (double_words)(share >= high);
            is_doubtful |= (double_words)(share >= low) & ~is_kept;
            total += (doubles)((double_words)share & is_kept);
        }
    }
    double sum = 0.0;
    for (int lane = 0; lane < HALF_LANES; lane++)
        sum = is_doubtful[lane] ? -__builtin_inf() : sum + total[lane];
    return sum;
}
