/* What Python may call. All take plain arguments; see _native.pyi for their order. */

#ifndef MOESAIC_CALLS_H
#define MOESAIC_CALLS_H

#include <Python.h>

#include "kernels.h"

/* The level in use. */
extern const struct level *active;

/* Slots and numbers of keys stay below, so that `most_keys` can add them before it compares them
 * with the cache. */
#define MOST_SLOTS (INT64_MAX / 2)

/* The most keys that any token sees, of all of which `num_seen` is raised by the number; -1 with an
 * error set when some token would see slots beyond the cache. */
int64_t most_keys(const struct attention *call, int64_t num_slots, int64_t *num_seen);

PyObject *call_linear(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_gated_experts(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_rms_norm(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_attend(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_apply_rotary(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_attention_layer(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_gate(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_scatter(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_combine(PyObject *module, PyObject *const *arguments, Py_ssize_t given);

#endif
