/* What is described once for many calls. Python keeps it in capsules, and sees to it that what the
 * addresses in it point to lives as long. */

#ifndef MOESAIC_DESCRIBED_H
#define MOESAIC_DESCRIBED_H

#include "arguments.h"

#define EXPERTS_NAME "services.kernels._native.experts"

/* The rows of a step: each sees its own keys, and goes to a slot of its own. The arrays are
 * borrowed. */
struct described_rows {
    Py_buffer arrays[3];
    const int64_t *first_slots, *num_keys; /* [num_tokens] */
    const int64_t *slots;                  /* [num_written] */
    int64_t num_tokens, num_written;
    int64_t slots_end; /* above all slots */
    const char *cosines, *sines;
    int64_t angle_stride; /* in numbers */
};

/* The keys and values of a layer. */
struct described_cache {
    char *keys, *values;
    int64_t num_slots;
};

/* The kinds of arguments: what such a capsule holds, borrowed. A layer is complete but for rows,
 * cache, input and results, experts but for rows, pairs and results. */
typedef const struct attention_layer *layer_argument;
typedef const struct described_rows *rows_argument;
typedef const struct described_cache *cache_argument;
typedef const struct experts *experts_argument;

int read_layer(PyObject *capsule, layer_argument *into);
int read_rows(PyObject *capsule, rows_argument *into);
int read_cache(PyObject *capsule, cache_argument *into);

/* Here, since the expert service's module reads such a capsule, too. */
static inline int read_experts(PyObject *capsule, experts_argument *into) {
    *into = PyCapsule_GetPointer(capsule, EXPERTS_NAME);
    return *into ? 0 : -1;
}

/* A capsule of this name with a copy of what is described; NULL with an error set. */
PyObject *in_capsule(const void *described, size_t size, const char *name);

/* Completes a layer but for input and results. The most keys that a token sees, of all of which
 * `work` is raised by the multiplications, with all others of the layer; -1 with an error set when
 * rows and cache do not fit. */
int64_t complete_layer(struct attention_layer *layer, const struct described_rows *rows,
                       const struct described_cache *cache, int64_t *work);

#endif
