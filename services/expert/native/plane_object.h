/* What Python holds of a plane. */

#ifndef MOESAIC_PLANE_OBJECT_H
#define MOESAIC_PLANE_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "plane.h"

struct plane_object {
    PyObject_HEAD PyObject *kept; /* what the plane's addresses point into */
    struct plane plane;
    int has_begun;
};

static inline struct plane *plane_of(PyObject *self) {
    return &((struct plane_object *)self)->plane;
}

/* making.c: begins a plane as _plane.pyi describes. */
PyObject *new_plane(PyTypeObject *, PyObject *arguments, PyObject *names);

/* calls.c: what Python may ask of it. */
extern PyMethodDef plane_methods[];

#endif
