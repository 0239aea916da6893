/* Reads numbers and indices that Python passes, checks indices, lets other threads run in long work.
 *
 * Addresses come as integers (`tensor.data_ptr()`), unchecked: the facade sees to shapes, dtypes and lifetimes. */

#ifndef MOESAIC_ARGUMENTS_H
#define MOESAIC_ARGUMENTS_H

#include <Python.h>

#include <stdint.h>

#define ADDRESS(number) ((char *)(intptr_t)(number))

/* Reads `wanted` integers. 0, or -1 with an error set. */
int read_numbers(PyObject *const *arguments, Py_ssize_t given, int64_t *into, Py_ssize_t wanted);

/* Borrows an array of `count` indices, each at least 0 and below `limit`. 0, or -1 with an error set. */
int read_indices(PyObject *array, int64_t count, int64_t limit, Py_buffer *buffer);

/* Lets other threads run when there is much to do; NULL when not. */
PyThreadState *pause_for(int64_t multiplications);

void resume(PyThreadState *paused);

#endif
