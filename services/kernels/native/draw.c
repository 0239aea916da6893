/* Draws tokens from rows of logits. */

#include "calls.h"
#include "order.h"
#include "workers.h"

#include <stdlib.h>

#define DRAW(X)                                                                                    \
    X(address, rows)                                                                               \
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

static void draw_row(const void *call, int64_t number, int thread) {
    const struct drawing *drawing = call;
    const struct draw_arguments *given = drawing->given;
    struct order *const order = drawing->orders + thread;
    order->row.logits = ((const float *const *)given->rows)[number];
    ((int64_t *)given->tokens)[number] =
        drawn(order, (const struct choice *)given->choices + number);
}

/* 0, or -1 when memory is short. */
static int draw_rows(const struct crew *crew, const struct draw_arguments *given) {
    /* A multiple of the block's length, so that each part begins where its numbers may. */
    const size_t blocks = ((size_t)given->width + VOCABULARY_BLOCK) / VOCABULARY_BLOCK + 1;
    const size_t width = blocks * VOCABULARY_BLOCK;
    const size_t likely = width * sizeof(struct likely), tokens = width * sizeof(int32_t);
    const size_t each = likely + tokens + width / VOCABULARY_BLOCK * sizeof(double);
    const size_t num_threads = (size_t)crew->num_threads;
    char *const room = malloc(num_threads * (sizeof(struct order) + each));
    if (!room) return -1;
    struct order *const orders = (struct order *)room;
    for (size_t thread = 0; thread < num_threads; thread++) {
        char *const own = (char *)(orders + num_threads) + thread * each;
        orders[thread] = (struct order){
            .level = active,
            .row = {.width = given->width, .highest_of = (float *)(own + likely + tokens)},
            .picked = (struct likely *)own,
            .tokens = (int32_t *)(own + likely),
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
