/* How modules in C are handed a context by Python. */

#ifndef MOESAIC_TLS_PYTHON_H
#define MOESAIC_TLS_PYTHON_H

#include <Python.h>

#include "tls.h"

#define TLS_CAPSULE "capsule"
#define TLS_CONTEXT_NAME "services.wire.tls.Context"

/* The context behind a `Context`, which the caller has yet to hold; NULL for None. 0, or -1 with an
 * error set. */
static inline int tls_context_of(PyObject *object, struct tls_context **context) {
    *context = NULL;
    if (!object || object == Py_None) return 0;
    PyObject *const capsule = PyObject_GetAttrString(object, TLS_CAPSULE);
    if (!capsule) return -1;
    *context = PyCapsule_GetPointer(capsule, TLS_CONTEXT_NAME);
    Py_DECREF(capsule);
    return *context ? 0 : -1;
}

#endif
