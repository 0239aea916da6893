/* Draws a token from a row of logits, the same at every level.
 *
 * Tokens are in order with the likeliest first, and of equals the lower first. Nothing is put in
 * order that need not be: the sums of shares by parts of the range of logits tell in which part a
 * draw ends, and only that one is looked at, in the same way until few tokens are left. */

#include "order.h"

#include <math.h>
#include <stdlib.h>

/* Sums of a vocabulary's shares in two orders, by whichever exponential, differ by less. */
#define ROUNDING 1e-9
/* Logits that lie further below the highest one, at temperature 1, have no share worth adding. */
#define NEGLIGIBLE 45.0
/* So many are put in order at once. */
#define FEW 48

/* Where a sum of shares in order reaches a bound: the token, or UNCERTAIN, and the sum with it. */
struct place {
    int64_t token;
    double sum, share;
};

static const struct place unknown = {UNCERTAIN, 0.0, 0.0};

/* A bound, and how far from it a sum has to be. */
struct bound {
    double low, high;
    int passing; /* a sum that is equal is not there yet */
};

static struct bound bound_at(double value, int passing) {
    return (struct bound){value * (1 - ROUNDING), value * (1 + ROUNDING), passing};
}

static int may_reach(const struct bound *bound, double sum) {
    return bound->passing ? sum > bound->low : sum >= bound->low;
}

static int surely_reaches(const struct bound *bound, double sum) {
    return bound->passing ? sum > bound->high : sum >= bound->high;
}

static int by_likelihood(const void *left, const void *right) {
    const struct likely *const one = left, *const other = right;
    if (one->logit != other->logit) return one->logit > other->logit ? -1 : 1;
    return one->token < other->token ? -1 : 1;
}

static struct likely likely_of(const struct vocabulary *row, int32_t token) {
    const float logit = row->logits[token];
    const double below = (double)logit - (double)row->highest;
    return (struct likely){below == 0.0 ? 1.0 : exp(below * row->inverse), logit, token};
}

static void pick_likely(struct order *order, int64_t count) {
    for (int64_t i = 0; i < count; i++) order->picked[i] = likely_of(&order->row, order->tokens[i]);
}

/* The place among tokens that are in order, after those of the sum `before`. */
static struct place place_in_order(const struct likely *tokens, int64_t count, double before,
                                   const struct bound *bound) {
    for (int64_t i = 0; i < count; i++) {
        before += tokens[i].share;
        if (!may_reach(bound, before)) continue;
        if (!surely_reaches(bound, before)) return unknown;
        return (struct place){tokens[i].token, before, tokens[i].share};
    }
    return unknown;
}

/* Keeps those of one part of their range of logits, the one in which the sum may reach the bound;
 * how many, or 0 where that is nowhere. Raises `before` by the shares of the parts before it. */
static int64_t narrow(struct likely *tokens, int64_t count, float highest, float per_logit,
                      double *before, const struct bound *bound) {
    double sums[VOCABULARY_BINS] = {0};
    for (int64_t i = 0; i < count; i++)
        sums[(int)((highest - tokens[i].logit) * per_logit)] += tokens[i].share;
    int bin = 0;
    while (bin < VOCABULARY_BINS && !may_reach(bound, *before + sums[bin])) *before += sums[bin++];
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
        if ((int)((highest - tokens[i].logit) * per_logit) == bin) tokens[kept++] = tokens[i];
    return kept;
}

/* A little less, so that the lowest of a range is in the last bin. */
static float bins_in(float range) { return (VOCABULARY_BINS - 0.01f) / range; }

/* The place among tokens that are ascending. */
static struct place place_among(struct likely *tokens, int64_t count, double before,
                                const struct bound *bound) {
    while (count > FEW) {
        float highest = tokens[0].logit, lowest = highest;
        for (int64_t i = 1; i < count; i++) {
            highest = tokens[i].logit > highest ? tokens[i].logit : highest;
            lowest = tokens[i].logit < lowest ? tokens[i].logit : lowest;
        }
        if (highest == lowest) return place_in_order(tokens, count, before, bound);
        const float per_logit = bins_in(highest - lowest);
        if (!(per_logit < INFINITY)) return unknown;
        count = narrow(tokens, count, highest, per_logit, &before, bound);
    }
    qsort(tokens, (size_t)count, sizeof *tokens, by_likelihood);
    return place_in_order(tokens, count, before, bound);
}

static struct place place_of(struct order *order, double value, int passing) {
    const struct bound bound = bound_at(value, passing);
    double before = 0.0;
    for (int bin = 0; bin < VOCABULARY_BINS; bin++) {
        if (may_reach(&bound, before + order->sums[bin])) {
            const int64_t count = order->level->pick(&order->row, bin, order->tokens);
            pick_likely(order, count);
            return place_among(order->picked, count, before, &bound);
        }
        before += order->sums[bin];
    }
    return unknown;
}

/* How far below the highest logit one with this share is, and a little more. */
static float depth_of(const struct order *order, double share) {
    return (float)(-log(share) / order->row.inverse * (1 + 1e-6));
}

/* Sums up the shares of all that may be kept by their bins; 0 where there can be no bins. */
static int tally(struct order *order, const struct choice *choice) {
    struct vocabulary *const row = &order->row;
    float depth = (float)(NEGLIGIBLE / row->inverse);
    if (choice->top_p >= 1.0 && choice->min_p > 0.0) {
        const float kept = depth_of(order, choice->min_p);
        depth = kept < depth ? kept : depth;
    }
    const float range = row->highest - row->lowest;
    depth = depth > range * 1e-6f ? depth : range * 1e-6f;
    /* Where all are equal, all are of the first bin. */
    row->bins_per_logit = range > 0.0f ? bins_in(range < depth ? range : depth) : 0.0f;
    if (!(row->bins_per_logit < INFINITY)) return 0;
    order->level->tally(row, order->sums);
    order->total = 0.0;
    for (int bin = 0; bin < VOCABULARY_BINS; bin++) order->total += order->sums[bin];
    return 1;
}

/* The draw from all tokens, but for the filters. */
static int64_t drawn_from_all(struct order *order, const struct choice *choice) {
    if (!tally(order, choice)) return UNCERTAIN;
    double whole = order->total, least = 0.0;
    if (choice->top_p < 1.0) {
        const struct place last = place_of(order, choice->top_p * whole, 0);
        if (last.token == UNCERTAIN) return UNCERTAIN;
        whole = last.sum;
        least = last.share;
    }
    if (choice->min_p > 0.0 && !(least > choice->min_p * (1 + ROUNDING))) {
        order->row.least = order->row.highest - depth_of(order, choice->min_p);
        const double low = choice->min_p * (1 - ROUNDING);
        const double high = choice->min_p < 1.0 ? choice->min_p * (1 + ROUNDING) : 1.0;
        const double kept = order->level->sum_of_at_least(&order->row, low, high);
        if (!(kept > 0.0)) return UNCERTAIN;
        whole = kept < whole ? kept : whole;
    }
    return place_of(order, choice->point * whole, 1).token;
}

static int from_the_highest(const void *left, const void *right) {
    const float one = *(const float *)left, other = *(const float *)right;
    return one > other ? -1 : one < other;
}

/* Picks the first `count` tokens in order, of fewer than there are blocks; how many were seen. */
static void pick_first(struct order *order, int64_t count) {
    const struct vocabulary *const row = &order->row;
    const int64_t num_blocks = (row->width + VOCABULARY_BLOCK - 1) / VOCABULARY_BLOCK;
    float *const highest = (float *)order->tokens; /* which are as large, and not used yet */
    memcpy(highest, row->highest_of, (size_t)num_blocks * sizeof *highest);
    qsort(highest, (size_t)num_blocks, sizeof *highest, from_the_highest);
    const float least = highest[count - 1]; /* as many blocks have one at least as high */
    int64_t seen = 0;
    for (int64_t block = 0; block < num_blocks; block++) {
        if (row->highest_of[block] < least) continue;
        const int64_t start = block * VOCABULARY_BLOCK, left = row->width - start;
        for (int64_t i = 0; i < (left < VOCABULARY_BLOCK ? left : VOCABULARY_BLOCK); i++)
            if (row->logits[start + i] >= least)
                order->picked[seen++] = likely_of(row, (int32_t)(start + i));
    }
    qsort(order->picked, (size_t)seen, sizeof *order->picked, by_likelihood);
}

/* The draw from the first `count` tokens in order, but for the other filters. */
static int64_t drawn_from_first(struct order *order, int64_t count, const struct choice *choice) {
    pick_first(order, count);
    double whole = 0.0;
    for (int64_t i = 0; i < count; i++) whole += order->picked[i].share;
    if (choice->top_p < 1.0) {
        const struct bound bound = bound_at(choice->top_p * whole, 0);
        const struct place last = place_in_order(order->picked, count, 0.0, &bound);
        if (last.token == UNCERTAIN) return UNCERTAIN;
        for (count = 1; order->picked[count - 1].token != last.token;) count++;
        whole = last.sum;
    }
    const double low = choice->min_p * (1 - ROUNDING), high = choice->min_p * (1 + ROUNDING);
    while (count > 1 && order->picked[count - 1].share < high &&
           order->picked[count - 1].share < 1.0) {
        if (order->picked[count - 1].share >= low) return UNCERTAIN;
        whole -= order->picked[--count].share;
    }
    const struct bound bound = bound_at(choice->point * whole, 1);
    return place_in_order(order->picked, count, 0.0, &bound).token;
}

static int64_t likeliest(const struct vocabulary *row) {
    int64_t token = 0;
    while (row->highest_of[token / VOCABULARY_BLOCK] < row->highest) token += VOCABULARY_BLOCK;
    while (token < row->width && row->logits[token] != row->highest) token++;
    return token < row->width ? token : UNCERTAIN;
}

int64_t drawn(struct order *order, const struct choice *choice) {
    struct vocabulary *const row = &order->row;
    order->level->survey(row);
    if (!(fabsf(row->highest) < INFINITY)) return UNCERTAIN;
    if (choice->temperature <= 0.0) return likeliest(row);
    row->inverse = 1.0 / choice->temperature;
    if (!(row->inverse < INFINITY)) row->inverse = 1.7e308; /* nothing is left beside the highest */
    const double num_blocks = (double)((row->width + VOCABULARY_BLOCK - 1) / VOCABULARY_BLOCK);
    const double count = choice->top_k;
    if (count <= 0.0 || count >= (double)row->width) return drawn_from_all(order, choice);
    return count <= num_blocks ? drawn_from_first(order, (int64_t)count, choice) : UNCERTAIN;
}
