/* What Python may call; see _codec.pyi for the arguments. */

#ifndef MOESAIC_CODEC_H
#define MOESAIC_CODEC_H

#include <Python.h>

PyObject *call_encode_frame(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_encode_reply(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *call_decode_request(PyObject *module, PyObject *message);
PyObject *call_decode_response(PyObject *module, PyObject *message);

#endif
