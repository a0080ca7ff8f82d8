cimport cython

from node.loop cimport kernel
from node.loop.poller cimport Poller, Source
from node.loop.receiver cimport Receiver


cdef class Stream(Source):
    cdef public object loop
    cdef object _protocol, _waiting, _error
    cdef Poller _poller
    cdef Receiver _receiver
    cdef int _asked, _family
    cdef bint _reading, _closing, _lost, _eof, _paused
    cdef Py_ssize_t _waiting_bytes

    cpdef ready(self, int events)
    @cython.locals(data=bytes)
    cdef _read(self)
    cdef _read_end(self)
    cdef _ask(self, int events)
    @cython.locals(sent=Py_ssize_t)
    cpdef write(self, data)
    cdef _keep(self, rest)
    @cython.locals(sent=Py_ssize_t)
    cdef _flush(self)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef close(self)
    cpdef abort(self)
    cdef _fail(self, error)
    cdef _end(self, error)
