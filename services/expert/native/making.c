/* From Python's arguments to a plane. Addresses are unchecked, as services/kernels/native takes
 * them. */

#include "plane_object.h"

#include "described.h"

#include "tls_python.h"

#include <errno.h>

/* The kernels of services.kernels, which stay loaded; NULL with an error set. */
static const struct kernels_interface *kernels(void) {
    PyObject *module = PyImport_ImportModule("services.kernels._native");
    PyObject *capsule = module ? PyObject_GetAttrString(module, "interface") : NULL;
    void *interface = capsule ? PyCapsule_GetPointer(capsule, INTERFACE_NAME) : NULL;
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    return interface;
}

typedef double real_argument;

static int read_real(PyObject *number, double *into) {
    *into = PyFloat_AsDouble(number);
    return *into == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* As _plane.pyi describes them. */
#define ARGUMENTS(X)                                                                               \
    X(object, kept)                                                                                \
    X(object, tls)                                                                                 \
    X(number, listener)                                                                            \
    X(address, slots)                                                                              \
    X(number, num_layers)                                                                          \
    X(number, num_experts)                                                                         \
    X(experts, experts)                                                                            \
    X(number, base_nanos)                                                                          \
    X(number, expert_nanos)                                                                        \
    X(number, pair_nanos)                                                                          \
    X(number, element_type)                                                                        \
    X(number, row_bytes)                                                                           \
    X(real, most_pairs)                                                                            \
    X(number, max_frame_bytes)                                                                     \
    X(number, max_message_bytes)                                                                   \
    X(number, max_silent_nanos)                                                                    \
    X(number, window_pairs)                                                                        \
    X(number, max_waiting_pairs)

struct plane_arguments {
    ARGUMENTS(AS_MEMBER)
};

/* Borrowed; NULL with an error set where there is none of this name. */
static PyObject *find_named(PyObject *names, const char *name) {
    PyObject *value = names ? PyDict_GetItemString(names, name) : NULL;
    if (!value) PyErr_Format(PyExc_TypeError, "%s is missing", name);
    return value;
}

#define IS_UNREAD(kind, name)                                                                      \
    || !(value = find_named(names, #name)) || read_##kind(value, &given->name) < 0
#define AS_ONE(kind, name) +1

/* 0, or -1 with an error set. */
static int read_arguments(struct plane_arguments *given, PyObject *names) {
    PyObject *value;
    if (0 ARGUMENTS(IS_UNREAD)) return -1;
    if (PyDict_Size(names) == 0 ARGUMENTS(AS_ONE)) return 0;
    PyErr_SetString(PyExc_TypeError, "there are more arguments than are known");
    return -1;
}

static void set_up(struct plane *plane, const struct plane_arguments *given) {
    plane->limits = plane_limits_default;
    plane->limits.max_waiting_pairs = given->max_waiting_pairs;
    plane->limits.max_message_bytes = (uint32_t)given->max_message_bytes;
    plane->limits.max_silent_nanos = (uint64_t)given->max_silent_nanos;
    plane->window_pairs = (uint64_t)given->window_pairs;
    plane->listener = (int)given->listener;
    plane->bank.slots = (const int64_t *)given->slots;
    plane->bank.num_layers = given->num_layers;
    plane->bank.num_experts = given->num_experts;
    plane->bank.experts = *given->experts;
    plane->bank.base_nanos = given->base_nanos;
    plane->bank.expert_nanos = given->expert_nanos;
    plane->bank.pair_nanos = given->pair_nanos;
    plane->bank.element_type = (uint32_t)given->element_type;
    plane->bank.row_bytes = given->row_bytes;
    plane->bank.most_pairs = given->most_pairs;
    plane->bank.max_frame_bytes = given->max_frame_bytes;
}

PyObject *new_plane(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    struct plane_arguments given;
    if (PyTuple_Size(arguments)) {
        PyErr_SetString(PyExc_TypeError, "all arguments have names");
        return NULL;
    }
    struct tls_context *tls;
    const struct kernels_interface *interface = kernels();
    if (!interface || read_arguments(&given, names) < 0 || tls_context_of(given.tls, &tls) < 0)
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct plane_object *object = (struct plane_object *)allocate(type, 0);
    if (!object) return NULL;
    object->kept = Py_NewRef(given.kept);
    set_up(&object->plane, &given);
    object->plane.bank.kernels = interface;
    object->has_begun = begin_plane(&object->plane, tls) == 0;
    if (object->has_begun) return (PyObject *)object;
    PyErr_SetFromErrno(PyExc_OSError);
    Py_DECREF(object);
    return NULL;
}
