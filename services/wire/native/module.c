/* The Python module of the frame codec. */

#include "checksum.h"
#include "codec.h"

static PyMethodDef methods[] = {
    METHOD(encode_frame),
    METHOD(encode_reply),
    {"decode_request", call_decode_request, METH_O, "decode_request($module, message, /)\n--\n\n"},
    {"decode_response", call_decode_response, METH_O,
     "decode_response($module, message, /)\n--\n\n"},
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
