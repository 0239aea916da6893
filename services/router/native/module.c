/* The Python module of the router's native streams. */

#include "checksum.h"
#include "stream.h"

static int initialise(PyObject *module) {
    prepare_checksums();
    return add_stream_type(module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, initialise}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_streams",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__streams(void) { return PyModuleDef_Init(&definition); }
