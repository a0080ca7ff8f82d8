cimport cython

from node.server.connection cimport ServerConnection

cdef class PoolCore:
    cdef public Py_ssize_t size
    cdef public list idle
    cdef public dict lent
    cdef public Py_ssize_t connecting
    cdef public object waiters
    cdef public bint paused

    cpdef ServerConnection acquire(self)
    @cython.locals(at=Py_ssize_t, server=ServerConnection, idle=list)
    cpdef ServerConnection acquire_like(self, object parameters)
    cpdef put_back(self, ServerConnection server)
