/* The Python module of connections that carry many gRPC streams. */

#include "connection_type.h"
#include "decoder_type.h"

static PyMethodDef methods[] = {{NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_connection_type}, {Py_mod_exec, add_decoder_type}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_connections",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__connections(void) { return PyModuleDef_Init(&definition); }
