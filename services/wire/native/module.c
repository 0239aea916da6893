/* The Python module of the frame codec. */

#include "arguments.h"
#include "checksum.h"
#include "codec.h"

static PyMethodDef methods[] = {
    {"encode_frame", FASTCALL(call_encode_frame), METH_FASTCALL, NULL},
    {"encode_reply", FASTCALL(call_encode_reply), METH_FASTCALL, NULL},
    {"decode_request", call_decode_request, METH_O, NULL},
    {"decode_response", call_decode_response, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int initialise(PyObject *Py_UNUSED(module)) {
    prepare_checksums();
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, initialise}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_codec",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__codec(void) { return PyModuleDef_Init(&definition); }
