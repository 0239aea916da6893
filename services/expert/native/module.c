/* The Python module: a type whose instances are planes. */

#include "checksum.h"
#include "plane_object.h"

static void deallocate(PyObject *self) {
    struct plane_object *object = (struct plane_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (object->has_begun) end_plane(&object->plane);
    Py_XDECREF(object->kept);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyType_Slot type_slots[] = {
    {Py_tp_new, new_plane},
    {Py_tp_dealloc, deallocate},
    {Py_tp_methods, plane_methods},
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
