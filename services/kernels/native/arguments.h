/* Reads numbers and arrays of indices that Python passes, and lets other threads run in long work.
 *
 * Addresses come as integers (`tensor.data_ptr()`), unchecked: the facade sees to shapes, dtypes
 * and lifetimes. What could lead outside of memory whatever the shapes, an index, is checked here.
 */

#ifndef MOESAIC_ARGUMENTS_H
#define MOESAIC_ARGUMENTS_H

#include <Python.h>

#include <stdint.h>

#include "kernels.h"

#define ADDRESS(number) ((char *)(intptr_t)(number))

/* A function that takes its arguments as an array, as a method table wants it. */
#define FASTCALL(function) (PyCFunction)(void (*)(void)) function

/* What an array must be: `count` int64, each at least `lowest` and below `limit`; or room to write
 * as many. */
struct array {
    int64_t count, lowest, limit;
    int is_room;
};

/* Reads `wanted` integers. 0, or -1 with an error set. */
int read_numbers(PyObject *const *arguments, Py_ssize_t given, int64_t *into, Py_ssize_t wanted);

/* Reads `wanted` floats, which are there. 0, or -1 with an error set. */
int read_floats(PyObject *const *arguments, float *into, int wanted);

/* Borrows `count` arrays, until `release_arrays`. 0, or -1 with an error set and nothing borrowed.
 */
int read_arrays(PyObject *const *arguments, const struct array *wanted, Py_buffer *buffers,
                int count);

void release_arrays(Py_buffer *buffers, int count);

/* As level.py numbers the dtypes. */
static inline enum dtype dtype_of(int64_t number) { return number ? BFLOAT16 : FLOAT32; }

/* Lets other threads run when there is much to do; NULL when not. */
PyThreadState *pause_for(int64_t multiplications);

void resume(PyThreadState *paused);

#endif
