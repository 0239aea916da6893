/* Draws tokens from rows of probabilities, the same at every level.
 *
 * Tokens are in order with the likeliest first, and of equals the lower first. They are found in
 * tiers: each holds those that are nearly as likely as the likeliest not found yet. Only tiers that
 * a draw needs are found, and only one that it ends in is put in order. */

#include "calls.h"
#include "workers.h"

#include <stdlib.h>

#define BLOCK 64 /* tokens of which the highest probability is kept */
/* All tokens that are less likely than this share of the likeliest are one tier, the last. */
#define NEGLIGIBLE 1e-12
#define MOST_TIERS 100
/* How likely the others of a tier are, at least, beside what those before had to be. */
#define SHARE 0.75
/* Sums of a vocabulary's probabilities in two orders differ by less than this share. */
#define ROUNDING 1e-9
/* What a row's draw is without one. */
#define UNCERTAIN (-1)

struct likely {
    double probability;
    int64_t token;
};

/* Which tokens are kept, as sampling.py says it, and the point in [0, 1) of the draw. */
struct choice {
    double top_k, top_p, min_p, point;
};

/* The tokens of at least the probability `lowest` that no tier before has. */
struct tier {
    struct likely *tokens;
    int64_t count;
    double sum, lowest;
    int is_sorted;
};

/* A row's tokens, as far as they are found. */
struct order {
    const double *probabilities; /* [width] */
    int64_t width;
    double *highest_of; /* by block */
    double highest, total;
    struct likely *room; /* for [width], and one more */
    struct tier tiers[MOST_TIERS];
    int num_tiers;
};

static int by_likelihood(const void *left, const void *right) {
    const struct likely *const one = left, *const other = right;
    if (one->probability != other->probability)
        return one->probability > other->probability ? -1 : 1;
    return one->token < other->token ? -1 : 1;
}

static void survey(struct order *order) {
    order->highest = order->total = 0.0;
    for (int64_t start = 0; start < order->width; start += BLOCK) {
        const int64_t left = order->width - start, count = left < BLOCK ? left : BLOCK;
        const double *const block = order->probabilities + start;
        double highest[4] = {0}, sums[4] = {0};
        for (int64_t i = 0; i + 4 <= count; i += 4) {
            for (int lane = 0; lane < 4; lane++) {
                const double value = block[i + lane];
                sums[lane] += value;
                highest[lane] = value > highest[lane] ? value : highest[lane];
            }
        }
        for (int64_t i = count / 4 * 4; i < count; i++) {
            sums[0] += block[i];
            highest[0] = block[i] > highest[0] ? block[i] : highest[0];
        }
        for (int lane = 1; lane < 4; lane++)
            highest[0] = highest[lane] > highest[0] ? highest[lane] : highest[0];
        order->highest_of[start / BLOCK] = highest[0];
        order->total += sums[0] + sums[1] + sums[2] + sums[3];
        if (highest[0] > order->highest) order->highest = highest[0];
    }
    order->num_tiers = 0;
}

static void find(const struct order *order, struct tier *tier, double below) {
    for (int64_t start = 0; start < order->width; start += BLOCK) {
        if (order->highest_of[start / BLOCK] < tier->lowest) continue;
        const int64_t left = order->width - start, end = start + (left < BLOCK ? left : BLOCK);
        for (int64_t token = start; token < end; token++) {
            const double probability = order->probabilities[token];
            const int is_of_it = (probability >= tier->lowest) & (probability < below);
            tier->tokens[tier->count] = (struct likely){probability, token}; /* or overwritten */
            tier->count += is_of_it;
            tier->sum += is_of_it ? probability : 0.0;
        }
    }
}

/* The tier of this number, or NULL when all tokens are in those before. */
static struct tier *tier_of(struct order *order, int number) {
    struct tier *const tier = order->tiers + number;
    if (number < order->num_tiers) return tier;
    const struct tier *const before = number ? tier - 1 : NULL;
    if (before && before->lowest <= 0.0) return NULL;
    double lowest = (before ? before->lowest : order->highest) * SHARE;
    if (!(lowest >= order->highest * NEGLIGIBLE)) lowest = 0.0;
    *tier = (struct tier){
        .tokens = before ? before->tokens + before->count : order->room,
        .lowest = lowest,
    };
    find(order, tier, before ? before->lowest : __builtin_inf());
    order->num_tiers++;
    return tier;
}

static void sort(struct tier *tier) {
    if (!tier->is_sorted)
        qsort(tier->tokens, (size_t)tier->count, sizeof *tier->tokens, by_likelihood);
    tier->is_sorted = 1;
}

static double sum_of_first(struct order *order, int64_t count) {
    double sum = 0.0;
    struct tier *tier;
    for (int number = 0; count > 0 && (tier = tier_of(order, number)); number++) {
        if (tier->count > count) {
            sort(tier);
            for (int64_t i = 0; i < count; i++) sum += tier->tokens[i].probability;
        } else {
            sum += tier->sum;
        }
        count -= tier->count;
    }
    return sum;
}

static int64_t num_of_at_least(struct order *order, double lowest) {
    int64_t count = 0;
    struct tier *tier;
    for (int number = 0; (tier = tier_of(order, number)); number++) {
        for (int64_t i = 0; i < tier->count; i++) count += tier->tokens[i].probability >= lowest;
        if (tier->lowest < lowest) break;
    }
    return count;
}

/* Where the sum of the tokens in order reaches a bound: how many are before, and which it is. */
struct place {
    int64_t num_before, token;
};

/* UNCERTAIN where it depends on rounding. With `passing` the sum is above the bound there. */
static struct place place_of(struct order *order, double bound, int passing) {
    const double low = bound * (1 - ROUNDING), high = bound * (1 + ROUNDING);
    struct place place = {0, UNCERTAIN};
    double before = 0.0;
    struct tier *tier;
    for (int number = 0; (tier = tier_of(order, number)); number++) {
        double sum = before;
        before += tier->sum;
        if (before >= low) sort(tier);
        for (int64_t i = 0; before >= low && i < tier->count; i++) {
            sum += tier->tokens[i].probability;
            if (passing ? sum <= low : sum < low) continue;
            if (passing ? sum > high : sum >= high) place.token = tier->tokens[i].token;
            place.num_before += i;
            return place;
        }
        place.num_before += tier->count;
    }
    return place;
}

/* At least 1, or UNCERTAIN. */
static int64_t num_kept(struct order *order, const struct choice *choice) {
    int64_t kept = order->width;
    const int has_top_k = choice->top_k > 0.0;
    if (has_top_k && choice->top_k < (double)kept) kept = (int64_t)choice->top_k;
    if (choice->top_p < 1.0) {
        const double whole = has_top_k ? sum_of_first(order, kept) : order->total;
        const struct place reached = place_of(order, choice->top_p * whole, 0);
        if (reached.token == UNCERTAIN || reached.num_before >= kept) return UNCERTAIN;
        kept = reached.num_before + 1;
    }
    if (choice->min_p > 0.0) {
        const int64_t likely = num_of_at_least(order, choice->min_p * order->highest);
        kept = likely < kept ? likely : kept;
    }
    return kept > 1 ? kept : 1;
}

static int64_t drawn_from(struct order *order, const struct choice *choice) {
    const int64_t kept = num_kept(order, choice);
    if (kept == UNCERTAIN) return UNCERTAIN;
    const double whole = kept == order->width ? order->total : sum_of_first(order, kept);
    const struct place place = place_of(order, choice->point * whole, 1);
    return place.num_before < kept ? place.token : UNCERTAIN;
}

#define DRAW(X)                                                                                    \
    X(address, probabilities)                                                                      \
    X(number, num_rows)                                                                            \
    X(number, width)                                                                               \
    X(address, choices)                                                                            \
    X(address, tokens)

CALL(draw, DRAW);

/* Rows of which each is drawn from by itself; each thread has an order of its own. */
struct drawing {
    const struct draw_arguments *given;
    struct order *orders;
};

static void draw_row(const void *call, int64_t row, int thread) {
    const struct drawing *drawing = call;
    const struct draw_arguments *given = drawing->given;
    struct order *const order = drawing->orders + thread;
    order->probabilities = (const double *)given->probabilities + row * given->width;
    survey(order);
    ((int64_t *)given->tokens)[row] =
        drawn_from(order, (const struct choice *)given->choices + row);
}

/* 0, or -1 when memory is short. */
static int draw_rows(const struct crew *crew, const struct draw_arguments *given) {
    const size_t tokens = ((size_t)given->width + 1) * sizeof(struct likely);
    const size_t each = tokens + ((size_t)given->width / BLOCK + 1) * sizeof(double);
    const size_t num_threads = (size_t)crew->num_threads;
    char *const room = malloc(num_threads * (sizeof(struct order) + each));
    if (!room) return -1;
    struct order *const orders = (struct order *)(room + num_threads * each);
    for (size_t thread = 0; thread < num_threads; thread++) {
        char *const own = room + thread * each;
        orders[thread] = (struct order){
            .width = given->width,
            .room = (struct likely *)own,
            .highest_of = (double *)(own + tokens),
        };
    }
    run_parts(crew, draw_row, &(struct drawing){given, orders}, given->num_rows);
    free(room);
    return 0;
}

static PyObject *draw(const struct draw_arguments *given) {
    const int64_t work = given->num_rows * given->width;
    PyThreadState *paused = pause_for(work);
    const struct crew crew = gather_crew(work, 1);
    const int failed = draw_rows(&crew, given);
    dismiss_crew(&crew);
    resume(paused);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}
