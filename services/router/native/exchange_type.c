/* The Python type `Exchange`. */

#include "exchange_calls.h"

#include <stdlib.h>

/* More than any layer of decoding needs; what a prefill needed beyond is given back. */
#define MOST_KEPT_BYTES (4 << 20)

const struct kernels_interface *kernels_in_use;
static PyTypeObject *exchange_type;

struct exchange *exchange_of(PyObject *object) {
    if (PyObject_TypeCheck(object, exchange_type)) return (struct exchange *)object;
    PyErr_SetString(PyExc_TypeError, "an Exchange is wanted");
    return NULL;
}

static void shrink(struct room *room) {
    if (room->count <= MOST_KEPT_BYTES) return;
    free(room->at);
    *room = (struct room){0};
}

void exchange_end(struct exchange *exchange) {
    exchange_detach(exchange);
    exchange->num_shares = exchange->num_awaited = 0;
    shrink(&exchange->numbers), shrink(&exchange->written), shrink(&exchange->replies);
    shrink(&exchange->sums);
}

static PyObject *new_exchange(PyTypeObject *type, PyObject *arguments,
                              PyObject *Py_UNUSED(keywords)) {
    return PyArg_ParseTuple(arguments, "") ? PyType_GenericAlloc(type, 0) : NULL;
}

static void free_exchange(PyObject *self) {
    struct exchange *const exchange = (struct exchange *)self;
    PyTypeObject *const type = Py_TYPE(self);
    exchange_detach(exchange);
    free(exchange->pairs.stretches);
    free(exchange->numbers.at), free(exchange->services.at), free(exchange->written.at);
    free(exchange->replies.at), free(exchange->polled.at), free(exchange->sums.at);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_new, new_exchange},
    {Py_tp_dealloc, free_exchange},
    {0, NULL},
};

static PyType_Spec specification = {
    .name = "services.router._streams.Exchange",
    .basicsize = sizeof(struct exchange),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int add_exchanges(PyObject *module) {
    PyObject *const module_of_kernels = PyImport_ImportModule("services.kernels._native");
    if (!module_of_kernels) return -1;
    Py_DECREF(module_of_kernels); /* it stays among the loaded modules */
    kernels_in_use = PyCapsule_Import(INTERFACE_NAME, 0);
    if (!kernels_in_use) return -1;
    PyObject *const type = PyType_FromSpec(&specification);
    exchange_type = (PyTypeObject *)type;
    return type && PyModule_AddObjectRef(module, "Exchange", type) == 0 ? 0 : -1;
}
