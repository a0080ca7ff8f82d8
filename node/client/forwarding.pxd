cimport cython

from node.client.linked cimport Linked
from node.client.shape cimport Shape
from node.server.connection cimport ServerConnection
from node.wire.pipeline cimport Pipeline
from node.wire.requests cimport Requests

cdef int _BIND, _CLOSE, _COPY_DONE, _COPY_FAIL, _DESCRIBE, _EXECUTE, _FLUSH, _FUNCTION_CALL, _PARSE, _QUERY, _SYNC
cdef int _TERMINATE, _TX_FAILED, _IDLE, _NOTHING, _TOO_LONG, _READY, _ROOM
cdef Py_ssize_t _SMALL_BYTES, _KEPT_BYTES

cdef class Forwarding(Linked):
    cdef public object startup, tracked, reset_settings

    cpdef bint enter(self)
    @cython.locals(requests=Requests, server=ServerConnection, pipeline=Pipeline, buffer=bytes, letter=int,
                   first=Py_ssize_t, run=Py_ssize_t, upto=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t,
                   stop_at=Py_ssize_t, again=bint, large=bint, shape=Shape,
                   replacement=bytes, pieces=list)
    cpdef bint pump(self)
    @cython.locals(server=ServerConnection, data=bytes)
    cpdef Py_ssize_t flush(self, bytes buffer, Py_ssize_t run, Py_ssize_t upto, Py_ssize_t next_run, list pieces)
