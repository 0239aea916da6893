/* The Python module of TLS: the type `Context`. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "context.h"
#include "tls_python.h"

struct context_object {
    PyObject base;
    PyObject *capsule; /* that of `context` */
    struct context *context;
};

static void free_context(PyObject *self) {
    struct context_object *const object = (struct context_object *)self;
    PyTypeObject *const type = Py_TYPE(self);
    Py_XDECREF(object->capsule);
    if (object->context) context_release(&object->context->shown);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *new_context(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(named)) {
    int is_server;
    struct pem certificate, key, authority;
    Py_ssize_t counts[3];
    const char *why;
    if (!PyArg_ParseTuple(arguments, "pz#z#z#", &is_server, &certificate.data, &counts[0],
                          &key.data, &counts[1], &authority.data, &counts[2]))
        return NULL;
    certificate.count = (size_t)counts[0];
    key.count = (size_t)counts[1];
    authority.count = (size_t)counts[2];
    struct context_object *const object = (struct context_object *)PyType_GenericAlloc(type, 0);
    if (!object) return NULL;
    object->context = context_make(is_server, certificate, key, authority, &why);
    if (object->context)
        object->capsule = PyCapsule_New(&object->context->shown, TLS_CONTEXT_NAME, NULL);
    else
        PyErr_SetString(PyExc_ValueError, why);
    if (object->capsule) return (PyObject *)object;
    Py_DECREF(object);
    return NULL;
}

static PyObject *get_capsule(PyObject *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(((struct context_object *)self)->capsule);
}

static PyGetSetDef properties[] = {
    {TLS_CAPSULE, get_capsule, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_new, new_context},
    {Py_tp_dealloc, free_context},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec specification = {
    .name = "services.wire.tls._tls.Context",
    .basicsize = sizeof(struct context_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = type_slots,
};

static int initialise(PyObject *module) {
    /* Python's own module may use the same library until the process ends. */
    if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL)) {
        PyErr_SetString(PyExc_ImportError, "OpenSSL cannot be initialised");
        return -1;
    }
    PyObject *const type = PyType_FromSpec(&specification);
    const int failed = type ? PyModule_AddObjectRef(module, "Context", type) : -1;
    Py_XDECREF(type);
    return failed;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, initialise}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_tls",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__tls(void) { return PyModuleDef_Init(&definition); }
