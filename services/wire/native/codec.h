/* What Python may call: to write, with keyword arguments, which are described where the function is
 * defined; to read, with a message. */

#ifndef MOESAIC_CODEC_H
#define MOESAIC_CODEC_H

#include "arguments.h"

DECLARE_CALL(encode_frame);
DECLARE_CALL(encode_reply);

PyObject *call_decode_request(PyObject *module, PyObject *message);
PyObject *call_decode_response(PyObject *module, PyObject *message);

#endif
