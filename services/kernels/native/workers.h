/* Threads that compute the parts of one call together. Plain C, nothing of Python.
 *
 * A call gathers a crew, has it compute parts, as often as it likes, and dismisses it. Between
 * calls the threads sleep. There is one pool of them: who finds it in use computes alone. */

#ifndef MOESAIC_WORKERS_H
#define MOESAIC_WORKERS_H

#include <stdint.h>

/* How many threads compute the parts, the calling one among them. */
struct crew {
    int num_threads;
};

/* Computes one part; `thread` is below the crew's number, and nobody else's meanwhile. */
typedef void (*part_function)(const void *call, int64_t part, int thread);

/* The threads that a crew may have from now on, at least 1; with 1 none is ever started. Each has
 * to have so many numbers to read, at least 1, or work that takes as long. */
void set_num_threads(int64_t count, int64_t numbers_each);
int64_t num_threads(void);

/* The crew for so many multiplications by weights that each serve `num_rows` of them: the calling
 * thread alone where there is little to do, or the pool is in use. */
struct crew gather_crew(int64_t multiplications, int64_t num_rows);

/* Computes all parts, each once and in any order, and returns when all are computed. */
void run_parts(const struct crew *crew, part_function compute, const void *call, int64_t num_parts);

void dismiss_crew(const struct crew *crew);

#endif
