/* The Python module: a type whose instances are planes. All of Python that this folder has. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "checksum.h"
#include "plane.h"

#include <errno.h>
#include <stdlib.h>

struct plane_object {
    PyObject_HEAD PyObject *kept; /* what the plane's addresses point into */
    struct plane plane;
    int has_begun;
};

static struct plane *plane_of(PyObject *self) { return &((struct plane_object *)self)->plane; }

/* The kernels of services.kernels, which stay loaded; NULL with an error set. */
static const struct kernels_interface *kernels(void) {
    PyObject *module = PyImport_ImportModule("services.kernels._native");
    PyObject *capsule = module ? PyObject_GetAttrString(module, "interface") : NULL;
    void *interface = capsule ? PyCapsule_GetPointer(capsule, INTERFACE_NAME) : NULL;
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    return interface;
}

/* Reads what services/expert/native/_plane.pyi describes. 0, or -1 with an error set. */
static int read_arguments(struct plane_object *object, PyObject *names) {
    static char *const keywords[] = {"kept",
                                     "listener",
                                     "slots",
                                     "num_layers",
                                     "num_experts",
                                     "gate_up",
                                     "gate_up_stride",
                                     "down",
                                     "down_stride",
                                     "num_slots",
                                     "hidden",
                                     "intermediate",
                                     "dtype",
                                     "element_type",
                                     "row_bytes",
                                     "most_pairs",
                                     "max_frame_bytes",
                                     "max_message_bytes",
                                     "window_pairs",
                                     "max_waiting_pairs",
                                     NULL};
    struct plane *plane = &object->plane;
    struct bank *bank = &plane->bank;
    long long slots, gate_up, down, layers, experts, num_slots, hidden, intermediate, row_bytes;
    long long gate_up_stride, down_stride, max_frame_bytes, max_waiting_pairs;
    unsigned long long window_pairs;
    int dtype;
    plane->limits = plane_limits_default;
    PyObject *nothing = PyTuple_New(0), *kept;
    const int is_read =
        nothing &&
        PyArg_ParseTupleAndKeywords(
            nothing, names, "$OiLLLLLLLLLLiILdLIKL", (char **)keywords, &kept, &plane->listener,
            &slots, &layers, &experts, &gate_up, &gate_up_stride, &down, &down_stride, &num_slots,
            &hidden, &intermediate, &dtype, &bank->element_type, &row_bytes, &bank->most_pairs,
            &max_frame_bytes, &plane->limits.max_message_bytes, &window_pairs, &max_waiting_pairs);
    Py_XDECREF(nothing);
    if (!is_read || !(bank->kernels = kernels())) return -1;
    bank->slots = (const int64_t *)(intptr_t)slots;
    bank->num_layers = layers;
    bank->num_experts = experts;
    bank->gate_up = (const char *)(intptr_t)gate_up;
    bank->gate_up_stride = gate_up_stride;
    bank->down = (const char *)(intptr_t)down;
    bank->down_stride = down_stride;
    bank->num_slots = num_slots;
    bank->hidden = hidden;
    bank->intermediate = intermediate;
    bank->dtype = dtype ? BFLOAT16 : FLOAT32;
    bank->row_bytes = row_bytes;
    bank->max_frame_bytes = max_frame_bytes;
    plane->window_pairs = window_pairs;
    plane->limits.max_waiting_pairs = max_waiting_pairs;
    object->kept = Py_NewRef(kept);
    return 0;
}

static PyObject *new_plane(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    if (PyTuple_Size(arguments)) {
        PyErr_SetString(PyExc_TypeError, "all arguments have names");
        return NULL;
    }
    allocfunc allocate = PyType_GetSlot(type, Py_tp_alloc);
    struct plane_object *object = (struct plane_object *)allocate(type, 0);
    if (!object) return NULL;
    object->plane.listener = -1;
    if (read_arguments(object, names) == 0) {
        object->has_begun = begin_plane(&object->plane) == 0;
        if (!object->has_begun) PyErr_SetFromErrno(PyExc_OSError);
    }
    if (object->has_begun) return (PyObject *)object;
    Py_DECREF(object);
    return NULL;
}

static void deallocate(PyObject *self) {
    struct plane_object *object = (struct plane_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (object->has_begun) end_plane(&object->plane);
    Py_XDECREF(object->kept);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *events(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    struct handover *handover = &plane_of(self)->handover;
    PyObject *list = PyList_New(0);
    struct event *event = list ? take_events(handover) : NULL;
    while (event) {
        PyObject *told =
            Py_BuildValue("iKKy#", event->kind, (unsigned long long)event->number,
                          (unsigned long long)event->nanos, event->data, (Py_ssize_t)event->count);
        const int failed = !told || PyList_Append(list, told) < 0;
        Py_XDECREF(told);
        if (failed) {
            put_back(handover, event);
            if (PyList_Size(list)) { /* the next call has the rest */
                PyErr_Clear();
                return list;
            }
            Py_CLEAR(list);
            return NULL;
        }
        struct event *next = event->next;
        free(event);
        event = next;
    }
    return list;
}

static PyObject *command(PyObject *self, PyObject *arguments) {
    int kind;
    unsigned long long number;
    const char *data = NULL;
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(arguments, "iK|y#", &kind, &number, &data, &count)) return NULL;
    const enum command_kind asked = (enum command_kind)kind;
    if (ask(&plane_of(self)->handover, asked, number, data, (size_t)count) < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *take(PyObject *self, PyObject *arguments) {
    unsigned long long number, num_pairs;
    if (!PyArg_ParseTuple(arguments, "KK", &number, &num_pairs)) return NULL;
    return PyBool_FromLong(take_credit(plane_of(self), number, num_pairs));
}

static PyObject *grant(PyObject *self, PyObject *arguments) {
    unsigned long long number, num_pairs;
    if (!PyArg_ParseTuple(arguments, "KK", &number, &num_pairs)) return NULL;
    grant_credit(plane_of(self), number, num_pairs);
    Py_RETURN_NONE;
}

static PyObject *fileno_of(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLong(plane_of(self)->handover.told);
}

static unsigned long long count_of(_Atomic uint64_t *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static PyObject *counts(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    struct plane *plane = plane_of(self);
    struct records *records = &plane->records;
    PyObject *batches = PyList_New(0);
    for (int64_t layer = 0; batches && layer < plane->bank.num_layers; layer++) {
        PyObject *count = PyLong_FromUnsignedLongLong(count_of(records->num_batches + layer));
        if (!count || PyList_Append(batches, count) < 0) Py_CLEAR(batches);
        Py_XDECREF(count);
    }
    if (!batches) return NULL;
    return Py_BuildValue("KKKN", count_of(&records->num_frames), count_of(&records->num_pairs),
                         count_of(&records->num_lost), batches);
}

static int append(PyObject *list, PyObject *made) {
    const int failed = !made || PyList_Append(list, made) < 0;
    Py_XDECREF(made);
    return failed ? -1 : 0;
}

static PyObject *made_of_batch(const struct batch_record *batch) {
    return Py_BuildValue("LLLL", (long long)batch->layer, (long long)batch->num_frames,
                         (long long)batch->num_active, (long long)batch->nanos);
}

static PyObject *made_of_frame(const struct frame_record *frame) {
    const uint64_t *const timings = frame->timings;
    return Py_BuildValue("s#LLLLLL(KKKK)", frame->traceparent, (Py_ssize_t)TRACEPARENT_BYTES,
                         (long long)frame->layer, (long long)frame->num_rows,
                         (long long)frame->num_pairs, (long long)frame->num_bytes,
                         (long long)frame->batch_frames, (long long)frame->ended_nanos,
                         (unsigned long long)timings[0], (unsigned long long)timings[1],
                         (unsigned long long)timings[2], (unsigned long long)timings[3]);
}

static PyObject *records(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    const struct rings *rings = take_records(&plane_of(self)->records);
    PyObject *batches = PyList_New(0), *frames = PyList_New(0);
    int failed = !batches || !frames;
    for (size_t i = 0; !failed && i < rings->num_batches; i++)
        failed = append(batches, made_of_batch(rings->batches + i));
    for (size_t i = 0; !failed && i < rings->num_frames; i++)
        failed = append(frames, made_of_frame(rings->frames + i));
    if (!failed) return Py_BuildValue("NN", batches, frames);
    Py_XDECREF(batches);
    Py_XDECREF(frames);
    return NULL;
}

static PyObject *stop(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    Py_BEGIN_ALLOW_THREADS;
    stop_plane(plane_of(self));
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"fileno", fileno_of, METH_NOARGS, "fileno($self, /)\n--\n\n"},
    {"events", events, METH_NOARGS, "events($self, /)\n--\n\n"},
    {"command", command, METH_VARARGS, "command($self, kind, number, data=b'', /)\n--\n\n"},
    {"take", take, METH_VARARGS, "take($self, number, num_pairs, /)\n--\n\n"},
    {"grant", grant, METH_VARARGS, "grant($self, number, num_pairs, /)\n--\n\n"},
    {"counts", counts, METH_NOARGS, "counts($self, /)\n--\n\n"},
    {"records", records, METH_NOARGS, "records($self, /)\n--\n\n"},
    {"stop", stop, METH_NOARGS, "stop($self, /)\n--\n\n"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_new, new_plane},
    {Py_tp_dealloc, deallocate},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec type_spec = {
    .name = "services.expert._plane.Plane",
    .basicsize = sizeof(struct plane_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = type_slots,
};

static int initialise(PyObject *module) {
    prepare_checksums();
    PyObject *type = PyType_FromModuleAndSpec(module, &type_spec, NULL);
    const int failed = !type || PyModule_AddObjectRef(module, "Plane", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, initialise}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_plane",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__plane(void) { return PyModuleDef_Init(&definition); }
